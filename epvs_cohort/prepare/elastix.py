"""One elastix run in memory: two images, a mask and settings in, transform parameters out.

ITK's frame is LPS, the rest of the program is RAS; the frames meet in this module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import itk
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from epvs_cohort.errors import RegistrationError
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray
from epvs_cohort.records import Float32Array

#: One elastix parameter map: every value is a list of strings.
ParameterMap = dict[str, list[str]]
Setting = str | int | float | tuple[int | float, ...]

#: What all runs share. Mattes mutual information, adaptive stochastic gradient descent (Klein et al. 2010).
_SHARED: dict[str, Setting] = {
    "FixedInternalImagePixelType": "float",
    "MovingInternalImagePixelType": "float",
    "UseDirectionCosines": "true",
    "Registration": "MultiResolutionRegistration",
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "Interpolator": "LinearInterpolator",
    "ResampleInterpolator": "FinalLinearInterpolator",
    "Resampler": "DefaultResampler",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "Metric": "AdvancedMattesMutualInformation",
    "NumberOfHistogramBins": 32,
    "AutomaticParameterEstimation": "true",
    "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitialization": "false",
    "HowToCombineTransforms": "Compose",
    "ErodeMask": "false",
    "ImageSampler": "RandomCoordinate",
    "FixedImageBSplineInterpolationOrder": 1,
    "NewSamplesEveryIteration": "true",
    "CheckNumberOfSamples": "false",
    "RequiredRatioOfValidSamples": 0.05,
    "MaximumNumberOfSamplingAttempts": 8,
    "DefaultPixelValue": 0,
    "WriteResultImage": "false",
}


#: elastix looks at 100 000 samples several times over only to guess its first step, half as long as the steps
#: themselves then take; with 2000 the poses differ by less than those of two seeds.
SHORT_GUESS: dict[str, Setting] = {"NumberOfSamplesForExactGradient": 2000}
#: Coarse levels hold fewer voxels, and no longer only smoother ones: they fit the processor's cache. For a pose that
#: is made finer later; an affine found so was less sure (on one head Dice was 0.67 to 0.72 by seed, else 0.69 to 0.70).
SMALL_PYRAMID: dict[str, Setting] = {
    "FixedImagePyramid": "FixedRecursiveImagePyramid",
    "MovingImagePyramid": "MovingRecursiveImagePyramid",
}


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in a frame.

    Attributes
    ----------
    data : ndarray, shape (I, J, K), float32
    affine : ndarray, shape (4, 4)
        Voxel to RAS mm; need not be orthogonal.
    """

    data: Float32Array
    affine: FloatArray


@lru_cache(maxsize=1)
def _method() -> Any:
    # Loading ``itk.ElastixRegistrationMethod`` the lazy way pulls in a thousand wrapped modules (12 s of CPU a
    # process); its own module brings all it needs in 2 s.
    module = importlib.import_module("itk.itkElastixRegistrationMethodPython")
    parameters = importlib.import_module("itk.elxParameterObjectPython")
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    return module.itkElastixRegistrationMethodIF3IF3, parameters.elastixParameterObject


def parameter_map(settings: Mapping[str, Setting], seed: int) -> ParameterMap:
    """Settings shared by all runs, overridden by ``settings``, as elastix wants them.

    >>> parameter_map({"GridSpacingSchedule": (2, 1)}, seed=3)["GridSpacingSchedule"]
    ['2', '1']
    """
    merged: dict[str, Setting] = {**_SHARED, "RandomSeed": seed, **settings}
    return {
        name: [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
        for name, value in merged.items()
    }


def run_elastix(
    fixed: Volume, moving: Volume, mask: npt.NDArray[np.bool_], parameters: ParameterMap
) -> ParameterMap:
    """Register ``moving`` to ``fixed`` from the identity.

    Parameters
    ----------
    fixed, moving : Volume
        In one RAS frame, already brought near one another.
    mask : ndarray, shape of ``fixed``, bool
        Where the fixed image counts.
    parameters : dict
        As ``parameter_map`` gives them.

    Returns
    -------
    dict
        Transform parameters of the map of fixed to moving points, LPS mm.

    Raises
    ------
    RegistrationError
        elastix gave up, or its parameters are not finite.
    """
    method, parameter_object = _method()
    holder = parameter_object.New()
    holder.AddParameterMap(parameters)
    run = method.New()
    run.SetFixedImage(to_itk(fixed))
    run.SetMovingImage(to_itk(moving))
    run.SetFixedMask(to_itk(Volume(mask.astype(np.uint8), fixed.affine)))
    run.SetParameterObject(holder)
    run.SetLogToConsole(False)
    run.SetNumberOfThreads(1)
    try:
        run.UpdateLargestPossibleRegion()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
        raise RegistrationError(
            f"elastix ({parameters['Transform'][0]}) gave up: {reason}",
            hint="the scan may not show a head, or lie far from where its header says",
        ) from error
    result = run.GetTransformParameterObject().GetParameterMap(0)
    found = {str(name): [str(v) for v in result[name]] for name in result}
    if not np.isfinite(numbers(found, "TransformParameters")).all():
        raise RegistrationError(f"elastix ({parameters['Transform'][0]}) gave parameters that are not finite")
    return found


def to_itk(volume: Volume) -> Any:
    """ITK image that shares no memory with ``volume``, in LPS."""
    _method()
    image = itk.image_from_array(np.ascontiguousarray(volume.data.T))
    affine = LPS_FROM_RAS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in affine[:3, 3]])
    image.SetDirection(np.ascontiguousarray(affine[:3, :3] / spacing))
    return image


def numbers(parameters: Mapping[str, list[str]], name: str) -> FloatArray:
    """Values of one parameter as floats."""
    return np.array([float(v) for v in parameters[name]], dtype=np.float64)


def linear_ras(parameters: Mapping[str, list[str]]) -> FloatArray:
    """Euler, similarity or affine transform of elastix as a (4, 4) map of fixed to moving points in RAS mm.

    elastix's Euler transform turns about z last, x before, y first (``ComputeZYX`` false); its similarity
    transform has the vector part of a unit quaternion, a shift and a scale.
    """
    values, center = numbers(parameters, "TransformParameters"), numbers(parameters, "CenterOfRotationPoint")
    kind, matrix = parameters["Transform"][0], np.eye(4)
    if kind == "EulerTransform":
        matrix[:3, :3], shift = Rotation.from_euler("yxz", values[[1, 0, 2]]).as_matrix(), values[3:6]
    elif kind == "SimilarityTransform":
        last = np.sqrt(max(0.0, 1.0 - float(values[:3] @ values[:3])))
        matrix[:3, :3] = values[6] * Rotation.from_quat([*values[:3], last]).as_matrix()
        shift = values[3:6]
    else:
        matrix[:3, :3], shift = values[:9].reshape(3, 3), values[9:]
    matrix[:3, 3] = center + shift - matrix[:3, :3] @ center
    return LPS_FROM_RAS @ matrix @ LPS_FROM_RAS
