"""Rigid registration of a scan to MNI152 (paper, Sec. 3): elastix, mutual information."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.shrunk import shrunk_atlas, shrunk_image
from epvs_cohort.errors import RegistrationError
from epvs_cohort.geometry import FloatArray, apply_affine, rotation_angle_deg
from epvs_cohort.prepare.elastix import (
    SHORT_GUESS,
    SMALL_PYRAMID,
    Setting,
    Volume,
    linear_ras,
    parameter_map,
    run_elastix,
)
from epvs_cohort.prepare.similarity import similarity
from epvs_cohort.prepare.starts import PIVOT_MM, Start, find_starts, start_of
from epvs_cohort.protocol import RegistrationSettings
from epvs_cohort.records import Image, QcValue

#: From a start that is already near. The template's size is fitted with the pose and then left out: MNI brains are
#: larger than people's, and one of fixed size slides about within the skull (repeated from other poses it came
#: back up to 6 mm away, with its size fitted 0.3 mm).
_FAST: dict[str, Setting] = {
    "Transform": "SimilarityTransform",
    "NumberOfResolutions": 2,
    "ImagePyramidSchedule": (2, 2, 2, 1, 1, 1),
    "MaximumNumberOfIterations": 250,
    "NumberOfSpatialSamples": 2000,
    **SHORT_GUESS,
    **SMALL_PYRAMID,
}
#: Then few steps on many samples: the pose settles, from whichever side it came. Where labels put the head is near
#: enough to begin with these: 4 mm away on average and 6 mm at most, on heads turned by up to 30 degrees. Poses of
#: turned copies then differed by 0.6 mm at most (on 5000 samples by 1.0 mm).
_FINE: dict[str, Setting] = {
    "Transform": "SimilarityTransform",
    "NumberOfResolutions": 1,
    "ImagePyramidSchedule": (1, 1, 1),
    "MaximumNumberOfIterations": 100,
    "NumberOfSpatialSamples": 10000,
    **SHORT_GUESS,
}
#: elastix's default rigid parameters, at full resolution.
_PAPER: dict[str, Setting] = {
    "Transform": "EulerTransform",
    "NumberOfResolutions": 4,
    "ImagePyramidSchedule": (8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1),
    "MaximumNumberOfIterations": 256,
    "NumberOfSpatialSamples": 2048,
}


#: From this similarity on, in nats, a pose is taken without trying another start. Flat contrast (fluid 1.5 times white
#: matter) reached 0.09 at the right pose and 0.05 at wrong ones; usual scans reach 0.15 and more.
SURE_SIMILARITY = 0.12

#: Middle of the basal ganglia in MNI RAS mm.
ROI_CENTER_MM = np.array([0.0, 2.0, 2.0])


@dataclass(frozen=True)
class Rigid:
    """Rigid pose of a scan.

    Attributes
    ----------
    rigid_from_native : ndarray, shape (4, 4)
        Native RAS mm to the MNI-oriented rigid frame, RAS mm.
    quality : tuple of QcValue
        ``similarity_start``, ``similarity_rigid`` (nats, template at its fitted size), ``rigid_rotation_deg``,
        ``rigid_translation_mm`` (of the middle of the brain).
    """

    rigid_from_native: FloatArray
    quality: tuple[QcValue, ...]


def register_rigid(
    image: Image, settings: RegistrationSettings, atlas: Atlas, near: FloatArray | None = None
) -> Rigid:
    """Register a scan rigidly to the template, which is fixed and masked to its brain.

    Parameters
    ----------
    image : Image
        Native scan: whole head, stripped, defaced or cropped.
    settings : RegistrationSettings
        ``resolution_mm`` 0 registers at full resolution with elastix's default rigid settings, ``fit_scale``
        false with the same settings at ``resolution_mm``.
    atlas : Atlas
        Template and brain mask.
    near : ndarray, shape (4, 4), or None
        Similarity map of MNI RAS mm to native RAS mm that is known to be right but for some millimetres, as by the
        labels of its structures; without one the head is searched for.

    Returns
    -------
    Rigid

    Raises
    ------
    RegistrationError
        The scan holds no contrast, or elastix gave up.
    """
    if not _has_contrast(image.data):
        raise RegistrationError("the scan has no contrast: all its voxels are equal or not finite")
    starts = find_starts(image, atlas) if near is None else (start_of(near),)
    pair = pair_of(image, settings, atlas)
    paper = settings.resolution_mm == 0 or not settings.fit_scale
    start = starts[0]
    if paper:
        found = _refined(pair, start.native_from_mni, _PAPER)
    elif near is not None:
        found = _refined(pair, near, _FINE)
    else:
        start, found = best_pose(starts, pair, image, atlas)
        found = _refined(pair, found, _FINE)
    rigid_from_native = np.asarray(np.linalg.inv(rigid_part(found)), dtype=np.float64)
    return Rigid(rigid_from_native, _quality(image, atlas, start, found))


def _has_contrast(data: npt.NDArray[np.generic]) -> bool:
    """Whether all voxels are finite and not all of them equal; the extremes of a volume with a NaN are NaN."""
    low, high = float(np.min(data)), float(np.max(data))
    return bool(np.isfinite(low) and np.isfinite(high) and high > low)


@dataclass(frozen=True)
class Pair:
    """Template, its mask and scan as elastix gets them, and the seed of its samples."""

    fixed: Volume
    mask: npt.NDArray[np.bool_]
    moving: Volume
    seed: int


def pair_of(image: Image, settings: RegistrationSettings, atlas: Atlas) -> Pair:
    """Shrink template and scan to ``settings.resolution_mm``."""
    fixed, mask = shrunk_template(atlas, settings.resolution_mm)
    return Pair(fixed, mask, shrunk_scan(image, settings.resolution_mm), settings.seed)


def _refined(pair: Pair, found: FloatArray, kind: dict[str, Setting]) -> FloatArray:
    placed = Volume(pair.moving.data, np.linalg.inv(found) @ pair.moving.affine)
    run = run_elastix(pair.fixed, placed, pair.mask, parameter_map(kind, pair.seed))
    refined: FloatArray = found @ linear_ras(run)
    return refined


def best_pose(starts: tuple[Start, ...], pair: Pair, image: Image, atlas: Atlas) -> tuple[Start, FloatArray]:
    """First start that leads to a sure pose, else the one of all that leads to the most similar.

    Returns
    -------
    tuple
        The start, and the similarity map that elastix made of it, (4, 4), MNI RAS mm to native RAS mm.

    Raises
    ------
    RegistrationError
        elastix gave up on every start.
    """
    best: tuple[float, Start, FloatArray] | None = None
    failure: RegistrationError | None = None
    for start in starts:
        try:
            found = _refined(pair, start.native_from_sized, _FAST)
        except RegistrationError as error:
            failure = error
            continue
        score = similarity(image, atlas, partial(apply_affine, found))
        if best is None or score > best[0]:
            best = score, start, found
        if score >= SURE_SIMILARITY:
            break
    if best is None:
        raise failure or RegistrationError("no pose of the scan could be tried")
    return best[1], best[2]


def rigid_part(similarity_map: FloatArray) -> FloatArray:
    """Rigid map, (4, 4), nearest to a similarity: same rotation, and the middle of the basal ganglia stays put.

    >>> rigid_part(np.diag([2.0, 2.0, 2.0, 1.0]))[:3, :3].round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    left, _, right = np.linalg.svd(similarity_map[:3, :3])
    out = np.eye(4)
    out[:3, :3] = left @ right
    out[:3, 3] = apply_affine(similarity_map, ROI_CENTER_MM) - out[:3, :3] @ ROI_CENTER_MM
    return out


def similarity_part(affine: FloatArray) -> FloatArray:
    """Similarity map, (4, 4), nearest to an affine: its turn and mean size; the middle of the basal ganglia stays put.

    >>> similarity_part(np.diag([1.0, 2.0, 4.0, 1.0]))[:3, :3].round(6).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    out = rigid_part(affine)
    middle = apply_affine(affine, ROI_CENTER_MM)
    out[:3, :3] *= float(np.cbrt(np.linalg.det(affine[:3, :3])))
    out[:3, 3] = middle - out[:3, :3] @ ROI_CENTER_MM
    return out


def shrunk_template(atlas: Atlas, resolution_mm: float) -> tuple[Volume, npt.NDArray[np.bool_]]:
    """Template and brain mask at ``resolution_mm`` (0: 1 mm)."""
    template, inside, affine = shrunk_atlas(atlas, resolution_mm)
    return Volume(template, affine), inside > 0.5


def shrunk_scan(image: Image, resolution_mm: float) -> Volume:
    """Scan at ``resolution_mm`` (0: as it is), bright outliers cut so that the histogram's bins are well used."""
    data, affine = shrunk_image(image, resolution_mm)
    positive = data[data > 0]
    high = np.percentile(positive if positive.size else data, 99.5)
    return Volume(np.minimum(data, np.float32(high)), affine)


def _quality(image: Image, atlas: Atlas, start: Start, found: FloatArray) -> tuple[QcValue, ...]:
    native_from_rigid = rigid_part(found)
    moved = apply_affine(native_from_rigid, PIVOT_MM) - PIVOT_MM
    before = similarity(image, atlas, lambda mm: apply_affine(start.native_from_sized, mm))
    after = similarity(image, atlas, lambda mm: apply_affine(found, mm))
    return (
        QcValue("similarity_start", before, "nats"),
        QcValue("similarity_rigid", after, "nats"),
        QcValue("rigid_rotation_deg", rotation_angle_deg(native_from_rigid), "deg"),
        QcValue("rigid_translation_mm", float(np.linalg.norm(moved)), "mm"),
    )
