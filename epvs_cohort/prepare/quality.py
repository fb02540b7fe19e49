"""Quality measures of one prepared scan: outline, contrast, noise, trim, acquisition.

Measures have no bounds here; the protocol brings them (``epvs_cohort.bounds``). A measure that cannot be known,
for example the contrast to fluid where no ventricle lies in the field of view, is None and never 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.prepare.evidence import (
    CORTEX,
    OTHER_CSF,
    VENTRICLE,
    WIDE_LOW_MM,
    WIDE_STEP_MM,
    Evidence,
    Near,
    Wide,
)
from epvs_cohort.prepare.resample import inverse, voxel_coordinates
from epvs_cohort.records import LABEL_NO_REGION, QcValue

SIDES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def measure(evidence: Evidence) -> tuple[QcValue, ...]:
    """Every quality measure of one scan but those of registration and detection."""
    return (
        *_acquisition(evidence),
        *_outline(evidence),
        *_mask_contents(evidence),
        *_contrast(evidence),
        *_trim(evidence),
        *_surroundings(evidence),
    )


def _acquisition(evidence: Evidence) -> Iterator[QcValue]:
    edges = evidence.image.grid.spacing_mm
    yield QcValue("slice_thickness_mm", max(edges), "mm")
    yield QcValue("anisotropy", max(edges) / min(edges), "ratio")


def _outline(evidence: Evidence) -> Iterator[QcValue]:
    voxel_mm3 = float(np.prod(evidence.grid.spacing_mm))
    named = (evidence.roi > 0) & (evidence.roi != LABEL_NO_REGION)
    # What a mask of the user outlines beyond the named regions goes to the side of the middle that it lies on.
    nameless = evidence.roi == LABEL_NO_REGION
    half = evidence.roi.shape[0] // 2
    volumes = []
    for side, odd, part in (("left", 1, slice(half)), ("right", 0, slice(half, None))):
        mine = named & (evidence.roi % 2 == odd)
        mine[part] |= nameless[part]
        volumes.append(float(mine.sum()) * voxel_mm3)
        yield QcValue(f"roi_volume_{side}_mm3", volumes[-1], "mm3")
    larger, smaller = max(volumes), min(volumes)
    yield QcValue("roi_asymmetry", _ratio(larger - smaller, (larger + smaller) / 2.0), "share")
    for where, shares in (("fov", _cut_by_view(evidence)), ("box", _cut_by_box(evidence))):
        for side, share in shares.items():
            yield QcValue(f"roi_cut_by_{where}_{side}", share, "share")


def _cut_by_view(evidence: Evidence) -> dict[str, float | None]:
    """Share of the region beyond each face of the native scan, by the side that the face looks to."""
    return _beyond_faces(evidence.voxel_from_rigid, evidence.image.grid.shape, evidence.near)


def _cut_by_box(evidence: Evidence) -> dict[str, float | None]:
    """Share of the region beyond each face of the prepared grid."""
    return _beyond_faces(inverse(evidence.grid.affine), evidence.grid.shape, evidence.near)


def _beyond_faces(
    voxel_from_rigid: FloatArray, shape: tuple[int, int, int], near: Near
) -> dict[str, float | None]:
    shares: dict[str, float | None] = {side: None for pair in SIDES for side in pair}
    where = np.argwhere(near.labels > 0)
    if len(where) == 0:
        return shares
    voxels = apply_affine(voxel_from_rigid @ near.grid.affine, where)
    directions = inverse(voxel_from_rigid)[:3, :3]
    found = dict.fromkeys(shares, 0.0)
    for axis in range(3):
        world = int(np.argmax(np.abs(directions[:, axis])))
        low, high = SIDES[world] if directions[world, axis] > 0 else SIDES[world][::-1]
        found[low] += float(np.mean(voxels[:, axis] < -0.5))
        found[high] += float(np.mean(voxels[:, axis] > shape[axis] - 0.5))
    return {side: min(share, 1.0) for side, share in found.items()}


def _mask_contents(evidence: Evidence) -> Iterator[QcValue]:
    wide = evidence.wide
    at = voxel_coordinates(inverse(evidence.grid.affine) @ wide.grid.affine, wide.grid.shape)
    index = [np.rint(axis).astype(np.intp) for axis in at]
    legal = np.ones(wide.grid.shape, dtype=np.bool_)
    for axis, size in zip(index, evidence.grid.shape, strict=True):
        legal &= (axis >= 0) & (axis < size)
    masked = evidence.mask.labels[index[0][legal], index[1][legal], index[2][legal]] > 0
    tissue = wide.tissue[legal][masked]
    for name, number in (("ventricle", VENTRICLE), ("csf", OTHER_CSF), ("cortex", CORTEX)):
        share = float(np.mean(tissue == number)) if tissue.size else None
        yield QcValue(f"mask_{name}_share", share, "share")
    values = evidence.values[evidence.mask.labels > 0]
    white, fluid = wide.white_matter, wide.fluid
    known = values.size > 0 and white is not None and fluid is not None and fluid > white
    half_way = 0.5 * ((white or 0.0) + (fluid or 0.0))
    yield QcValue("mask_bright_share", float(np.mean(values > half_way)) if known else None, "share")
    yield QcValue("mask_negative_share", float(np.mean(values < 0)) if values.size else None, "share")


def _contrast(evidence: Evidence) -> Iterator[QcValue]:
    white, fluid = evidence.wide.white_matter, evidence.wide.fluid
    tissue = _median(evidence.values[evidence.mask.region])
    noise = _roi_noise(evidence)
    yield QcValue("csf_wm_ratio", _ratio(fluid, white), "ratio")
    yield QcValue("roi_wm_ratio", _ratio(tissue, white), "ratio")
    yield QcValue("roi_snr", _ratio(tissue, noise), "ratio")
    above = None if fluid is None or tissue is None else fluid - tissue
    yield QcValue("roi_cnr", _ratio(above, noise), "ratio")
    yield QcValue("sharpness", _sharpness(evidence, above), "1/mm")


def _roi_noise(evidence: Evidence) -> float | None:
    """Noise of the native voxels around the region, before any interpolation."""
    corners = np.argwhere(np.ones((2, 2, 2))) * (np.array(evidence.grid.shape) - 1)
    voxels = apply_affine(evidence.voxel_from_rigid @ evidence.grid.affine, corners)
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
    high = np.ceil(voxels.max(axis=0)).astype(int) + 1
    return noise_sigma(evidence.image.data[low[0] : high[0], low[1] : high[1], low[2] : high[2]])


def noise_sigma(data: npt.NDArray[np.generic]) -> float | None:
    """Standard deviation of the noise, from the finest diagonal Haar details of a volume.

    MAD / 0.6745 of the HHH sub-band (Donoho and Johnstone 1994, Biometrika 81, for wavelets; Coupé et al. 2010,
    Medical Image Analysis 14, for MRI). Blocks that touch zero are left out: they are background that was set so.
    Scans that the scanner interpolated have too little noise in this band, so their SNR reads too high.

    Parameters
    ----------
    data : ndarray, shape (I, J, K)
        Native intensities.

    Returns
    -------
    float or None
        None where fewer than 1000 blocks of 2 x 2 x 2 voxels hold signal, or their details are all zero.
    """
    even = tuple(slice(0, size - size % 2) for size in data.shape)
    detail = data[even].astype(np.float32)
    solid = detail != 0
    for axis in range(3):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(0, None, 2), slice(1, None, 2)
        detail = (detail[tuple(first)] - detail[tuple(second)]) / np.float32(np.sqrt(2.0))
        solid = solid[tuple(first)] & solid[tuple(second)]
    inside = detail[solid]
    if inside.size < 1000:
        return None
    sigma = float(np.median(np.abs(inside - np.median(inside)))) / 0.6745
    return sigma if sigma > 0 else None


def _sharpness(evidence: Evidence, contrast: float | None) -> float | None:
    """Mean gradient magnitude inside the region over the contrast from tissue to fluid (after Tenengrad)."""
    inner = evidence.mask.region
    if contrast is None or contrast <= 0 or not inner.any():
        return None
    # The values are known where the smoothed mask is, which reaches past the region by the radius of dilation.
    known = ndimage.binary_erosion(evidence.mask.weight > 0)
    squared = np.zeros(evidence.values.shape, dtype=np.float32)
    for axis, step in enumerate(evidence.grid.spacing_mm):
        squared += np.gradient(evidence.values, step, axis=axis) ** 2
    chosen = squared[inner & known]
    return float(np.mean(np.sqrt(chosen))) / contrast if chosen.size else None


def _trim(evidence: Evidence) -> Iterator[QcValue]:
    trimmed = evidence.trimmed
    yield QcValue("clip_wm_ratio", _ratio(trimmed.clip_value, evidence.wide.white_matter), "ratio")
    yield QcValue("saturated_share", trimmed.saturated_share, "share")


def _surroundings(evidence: Evidence) -> Iterator[QcValue]:
    yield QcValue("foreground_background_ratio", _foreground_background(evidence.image.data), "ratio")
    share = _signal_around_brain(evidence.wide)
    yield QcValue("signal_around_brain_share", share, "share")
    stripped = None if share is None else float(share < 0.2)
    yield QcValue("skull_stripped", stripped, "0 or 1")


def _foreground_background(data: npt.NDArray[np.generic]) -> float | None:
    """Mean square of the head over that of the background (FBER of the QAP measures, Shehzad et al. 2015).

    None where the background was set to zero.
    """
    thin = tuple(slice(None, None, max(size // 64, 1)) for size in data.shape)
    values = data[thin].astype(np.float64).ravel()
    cut = otsu_threshold(values)
    head, background = values[values > cut], values[values <= cut]
    below = float(np.mean(background**2)) if background.size else 0.0
    return float(np.mean(head**2)) / below if head.size and below > 0 else None


def otsu_threshold(values: npt.NDArray[np.float64]) -> float:
    """Threshold that best separates two classes (Otsu 1979, IEEE Trans. SMC 9(1)), over 256 bins.

    >>> 1.0 <= otsu_threshold(np.array([0.9, 1.0, 1.0, 5.0, 5.1])) < 5.0
    True
    """
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    sums = np.cumsum(counts * middles)
    legal = (below > 0) & (above > 0)
    difference = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = np.where(legal, below * above * difference**2, -1.0)
    return float(edges[int(np.argmax(between)) + 1])


def _signal_around_brain(wide: Wide) -> float | None:
    """Share of a shell 5 to 15 mm outside the brain that shines: scalp and marrow, or nothing when stripped."""
    if wide.white_matter is None or wide.white_matter <= 0:
        return None
    distance = ndimage.distance_transform_edt(wide.tissue == 0) * WIDE_STEP_MM
    shell = (distance > 5.0) & (distance < 15.0) & wide.inside
    # Face and neck lie below; above the middle of the region the shell is scalp and skull in every head.
    shell[:, :, : round(-WIDE_LOW_MM[2] / WIDE_STEP_MM)] = False
    if int(shell.sum()) < 500:
        return None
    return float(np.mean(wide.values[shell] > 0.15 * wide.white_matter))


def _median(values: npt.NDArray[np.floating]) -> float | None:
    return float(np.median(values)) if values.size else None


def _ratio(above: float | None, below: float | None) -> float | None:
    if above is None or below is None or below <= 0:
        return None
    return above / below
