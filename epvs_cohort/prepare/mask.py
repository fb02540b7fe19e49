"""Mask of the basal ganglia: region labels dilated by millimetres, border smoothed (paper, Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.protocol import RoiSettings
from epvs_cohort.records import LABEL_NO_REGION, Float32Array, LabelArray

BoolArray = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

#: The Gaussian is cut off at this many sigma, and a weight below this is 0: voxels nobody could tell from the
#: background need no interpolation.
TRUNCATE_SIGMA = 3.0
LEAST_WEIGHT = 0.005


@dataclass(frozen=True)
class SoftMask:
    """Mask with a smooth border.

    Attributes
    ----------
    weight : ndarray, shape (I, J, K), float32
        In [0, 1]; what the intensities are multiplied by.
    labels : ndarray, shape (I, J, K), uint8
        0 where the weight is at most 0.5, else the region of the undilated outline, or 255 where there is none.
    """

    weight: Float32Array
    labels: LabelArray

    @property
    def region(self) -> BoolArray:
        """Undilated outline within the mask: voxels of a named region, or the whole mask where none has a name."""
        named = (self.labels > 0) & (self.labels != LABEL_NO_REGION)
        return np.asarray(named if named.any() else self.labels > 0, dtype=np.bool_)


def dilate_mm(roi: BoolArray, spacing_mm: Spacing, radius_mm: float) -> BoolArray:
    """Voxels whose centre lies within ``radius_mm`` of the centre of a voxel of ``roi``: exact, anisotropic.

    The squared distance is a sum over axes, so its minimum is found one axis at a time (Felzenszwalb and
    Huttenlocher 2012, Theory of Computing 8, Sec. 3); with a small radius plain shifts beat a distance transform.

    >>> line = np.zeros((7, 1, 1), bool); line[3] = True
    >>> dilate_mm(line, (0.5, 1.0, 1.0), 1.0)[:, 0, 0].astype(int).tolist()
    [0, 1, 1, 1, 1, 1, 0]
    """
    far = np.float32(1e6)
    squared = np.where(roi, np.float32(0), far)
    for axis, step_mm in enumerate(spacing_mm):
        source = np.moveaxis(squared, axis, 0)
        nearest = source.copy()
        for shift in range(1, min(int(radius_mm / step_mm + 1e-6), source.shape[0] - 1) + 1):
            cost = np.float32((shift * step_mm) ** 2)
            np.minimum(nearest[shift:], source[:-shift] + cost, out=nearest[shift:])
            np.minimum(nearest[:-shift], source[shift:] + cost, out=nearest[:-shift])
        squared = np.moveaxis(nearest, 0, axis)
    return np.asarray(squared <= np.float32(radius_mm**2 + 1e-4), dtype=np.bool_)


def soft_mask(
    labels: LabelArray,
    spacing_mm: Spacing,
    settings: RoiSettings,
    inside: BoolArray,
    reach: BoolArray | None = None,
) -> SoftMask:
    """Dilate the outline, smooth its border, and keep what lies in the field of view.

    Parameters
    ----------
    labels : ndarray, shape (I, J, K), uint8
        Regions of the undilated outline, 0 elsewhere.
    spacing_mm : tuple of float
        Voxel edges of the grid.
    settings : RoiSettings
        Radius in mm and sigma in voxels (the paper's sigma is 2, its unit is not given).
    inside : ndarray, shape (I, J, K), bool
        Voxels within the native field of view; the others are never mask.
    reach : ndarray, shape (I, J, K), bool, optional
        Voxels that may belong to the region: dilated with it, though they are in no region.

    Returns
    -------
    SoftMask
    """
    weight = np.zeros(labels.shape, dtype=np.float32)
    roi = labels > 0
    grown = roi if reach is None else roi | reach
    if roi.any():
        beyond = (
            settings.dilate_mm / np.asarray(spacing_mm) + TRUNCATE_SIGMA * settings.smooth_sigma_voxels + 1
        )
        box = _grown_box(grown, np.ceil(beyond).astype(int))
        dilated = dilate_mm(grown[box], spacing_mm, settings.dilate_mm).astype(np.float32)
        # "nearest": an outline that runs out of the box must not fade at the border of the box.
        weight[box] = ndimage.gaussian_filter(
            dilated, settings.smooth_sigma_voxels, mode="nearest", truncate=TRUNCATE_SIGMA
        )
    np.clip(weight, 0.0, 1.0, out=weight)
    weight[~inside | (weight < LEAST_WEIGHT)] = 0.0
    rim = np.where(roi, labels, np.uint8(LABEL_NO_REGION))
    return SoftMask(weight, np.where(weight > 0.5, rim, np.uint8(0)).astype(np.uint8))


def _grown_box(roi: BoolArray, reach: npt.NDArray[np.int_]) -> tuple[slice, slice, slice]:
    spans = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(roi.any(axis=others))
        spans.append(slice(max(int(at[0]) - int(reach[axis]), 0), int(at[-1]) + int(reach[axis]) + 1))
    return spans[0], spans[1], spans[2]
