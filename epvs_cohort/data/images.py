"""Native images in memory: NIfTI, MGH, MetaImage, NRRD, DICOM series; checked before they are allocated."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from epvs_cohort.data.claims import Claim, check_claim, check_contrast, check_finite, check_memory
from epvs_cohort.data.detached import check_data_files
from epvs_cohort.data.dicom import Series, find_series
from epvs_cohort.data.nifti import orientation_quality
from epvs_cohort.data.sidecar import facts_beside
from epvs_cohort.data.sniff import check_extension, opened
from epvs_cohort.data.voxels import claim_of_layout, layout_of, read_stored
from epvs_cohort.errors import UnreadableError, UnsuitableImageError
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray, spacing_of
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import Image

logger = logging.getLogger(__name__)

_Read = TypeVar("_Read")
_STORED = (".nii", ".nii.gz", ".mgh", ".mgz")


@dataclass(frozen=True)
class Description:
    """What the header alone tells.

    Attributes
    ----------
    shape : tuple of int
        (I, J, K).
    spacing_mm : tuple of float
        Voxel edge lengths.
    float32_bytes : int
        Memory of the voxels as float32.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    float32_bytes: int


def read_image(path: Path, settings: InputSettings) -> Image:
    """Read one scan and check that it is a usable 3D image.

    Parameters
    ----------
    path : Path
        NIfTI, MGH, MetaImage or NRRD file, or a folder that holds one DICOM series.
    settings : InputSettings
        Limits of memory and voxel size, and what to do with 4D.

    Returns
    -------
    Image
        Data (I, J, K) as float32, or the integer type on disk where no scaling applies; affine to RAS mm.

    Raises
    ------
    UnreadableError
        Missing, empty, truncated, damaged, or not of a format that is read here.
    UnsuitableImageError
        Readable, but not 3D, without contrast, not finite, or with an impossible geometry.
    TooLargeError
        The header claims more than ``settings.max_gib``.
    """
    image = _read(path, settings)
    check_contrast(path, image.data)
    if not os.path.isdir(path):
        facts, notes = facts_beside(path)
        image = replace(image, facts=facts, notes=image.notes + notes)
    for note in image.notes:
        logger.info("%s: %s", path, note)
    return image


def read_labels(path: Path, settings: InputSettings | None = None) -> Image:
    """Read a label map or mask: integers, 0 is background. An empty map is legal here.

    Returns
    -------
    Image
        Data (I, J, K) of an integer type, affine to RAS mm.

    Raises
    ------
    ScanError
        As ``read_image``, or voxels that are not whole numbers.
    """
    image = _read(path, settings or InputSettings())
    if image.data.dtype.kind in "iu":
        return image
    check_finite(path, image.data)
    with np.errstate(invalid="ignore"):
        labels = image.data.astype(np.int32)
    if not np.array_equal(labels, image.data):
        at = tuple(int(i[0]) for i in np.nonzero(labels != image.data))
        raise UnsuitableImageError(
            f"{path}: a label map holds whole numbers; voxel {at} holds {image.data[at]!s}",
            hint="a probability map or an interpolated mask has to be thresholded first",
        )
    return replace(image, data=labels)


def describe(path: Path, settings: InputSettings | None = None) -> Description:
    """Shape, voxel size and memory of an image from its header alone; the same checks as when it is read.

    Raises
    ------
    ScanError
        As ``read_image``, as far as the header shows it.
    """
    chosen = settings or InputSettings()
    if os.path.isdir(path):
        series = find_series(path)
        claim = check_claim(path, series.shape, series.affine, chosen)
    else:
        extension = check_extension(path)
        if extension in _STORED:
            claim = claim_of_layout(path, layout_of(path, extension), chosen)
        else:
            claim = _itk_header(path, chosen)
    return Description(claim.shape, spacing_of(claim.affine), 4 * int(np.prod(claim.shape, dtype=object)))


def _read(path: Path, settings: InputSettings) -> Image:
    if os.path.isdir(path):
        return _read_dicom(path, settings)
    extension = check_extension(path)
    if extension in _STORED:
        return read_stored(path, extension, settings)
    return _read_itk(path, settings)


def _read_itk(path: Path, settings: InputSettings) -> Image:
    claim = _itk_header(path, settings)
    pixels = _itk(path, lambda: sitk.ReadImage(str(path)))
    values = sitk.GetArrayViewFromImage(pixels).T
    while values.ndim > 3:
        values = values[..., 0]
    return Image(data=_compact(values), affine=claim.affine, notes=claim.notes)


def _itk_header(path: Path, settings: InputSettings) -> Claim:
    check_data_files(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _itk(path, reader.ReadImageInformation)
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if reader.GetNumberOfComponents() != 1 or "complex" in kind or "vector" in kind:
        raise UnsuitableImageError(
            f"{path}: {reader.GetNumberOfComponents()} values a voxel ({kind}); one real number is legal"
        )
    shape = tuple(int(extent) for extent in reader.GetSize())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3:
        return check_claim(path, shape, np.eye(4), settings)
    claim = check_claim(path, shape, _ras_affine(reader), settings)
    # ITK loads every volume of a 4D file before the first can be taken, and as they are stored.
    check_memory(path, shape, settings, _bytes_a_voxel(reader.GetPixelID()))
    return claim


def _bytes_a_voxel(pixel_id: int) -> int:
    """What a voxel takes while ITK's image and the copy of it (`_compact`) are both in memory."""
    stored = int(sitk.Image(1, 1, 1, pixel_id).GetSizeOfPixelComponent())
    floating = pixel_id in (sitk.sitkFloat32, sitk.sitkFloat64)
    return stored + (4 if floating else min(stored, 4))


def _ras_affine(reader: sitk.ImageFileReader) -> FloatArray:
    """Voxel to RAS mm, from ITK's origin, spacing and direction, which are LPS."""
    size = reader.GetDimension()
    direction = np.array(reader.GetDirection(), dtype=np.float64).reshape(size, size)[:3, :3]
    affine_lps = np.eye(4)
    affine_lps[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine_lps[:3, 3] = reader.GetOrigin()[:3]
    return LPS_FROM_RAS @ affine_lps


def _read_dicom(folder: Path, settings: InputSettings) -> Image:
    series = find_series(folder)
    claim = check_claim(folder, series.shape, series.affine, settings)
    with TemporaryDirectory() as scratch:
        files = _without_padding(series, Path(scratch))
        try:
            pixels = _itk(folder, lambda: sitk.ReadImage([str(file) for file in files]))
        except UnreadableError:
            # ITK does not say which file of the series it was: read one by one, the damaged one is named.
            for file in series.files:
                _itk(file, partial(sitk.ReadImage, str(file)))
            raise
    data = _compact(sitk.GetArrayViewFromImage(pixels).T)
    if data.shape != series.shape:
        raise UnreadableError(
            f"{folder}: {_found(data.shape)} pixels were read where the headers say {_found(series.shape)}"
        )
    return Image(
        data=data,
        affine=claim.affine,
        facts=series.facts,
        notes=series.notes + claim.notes,
        quality=(orientation_quality(known=True),),
    )


def _without_padding(series: Series, scratch: Path) -> list[Path]:
    """Files of a series, those that go on behind their pixels as shortened copies.

    ITK takes 2.4 MB of zeros behind the pixels of one file for 300 000 elements, five seconds each time it looks.
    """
    files = list(series.files)
    for at, file in enumerate(files):
        if file in series.padded:
            files[at] = scratch / f"{at}.dcm"
            with opened(file) as handle:
                files[at].write_bytes(handle.read(series.padded[file]))
    return files


def _compact(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Copy to an array of its own: integers of up to 32 bits as they are, all else as float32."""
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 4:
        return np.array(values, order="K")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(values, dtype=np.float32, order="K")


def _found(shape: tuple[int, ...]) -> str:
    return "x".join(str(extent) for extent in shape)


def _itk(path: Path, call: Callable[[], _Read]) -> _Read:
    """Call ITK without its warnings on standard error, its failures as errors of ours."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return call()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UnreadableError(
            f"{path}: truncated, damaged, or without the data file that it names ({reason})"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
