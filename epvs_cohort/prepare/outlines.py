"""Label maps carried onto a grid with smooth borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import Float32Array, LabelArray, MniMap


@dataclass(frozen=True)
class SoftLabels:
    """Labels as probabilities on a box.

    Attributes
    ----------
    labels : tuple of int
        Label of each map.
    maps : tuple of ndarray, shape (I, J, K), float32
        Smoothed indicator of each label.
    affine : ndarray, shape (4, 4)
        Voxel of the maps to mm.
    """

    labels: tuple[int, ...]
    maps: tuple[Float32Array, ...]
    affine: FloatArray


def soft_labels(labels: LabelArray, affine: FloatArray, sigma_voxels: float) -> SoftLabels:
    """Smooth each label's indicator; only the box around the labels is kept.

    Parameters
    ----------
    labels : ndarray, shape (I, J, K), uint8
        Not all zero.
    affine : ndarray, shape (4, 4)
        Voxel to mm.
    sigma_voxels : float
        Gaussian; 0 leaves steps, which interpolation then smooths over one voxel.
    """
    margin = int(np.ceil(4 * sigma_voxels)) + 2
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    start = [s.start for s in box]
    inner = np.pad(labels[box], margin)
    names = tuple(int(v) for v in np.unique(inner) if v > 0)
    maps = tuple(
        np.asarray(
            ndimage.gaussian_filter((inner == name).astype(np.float32), sigma_voxels), dtype=np.float32
        )
        for name in names
    )
    moved = np.array(affine, dtype=np.float64)
    moved[:3, 3] = apply_affine(affine, np.array(start, dtype=np.float64) - margin)
    return SoftLabels(names, maps, moved)


def labels_at(soft: SoftLabels, mm: FloatArray, threshold: float) -> LabelArray:
    """Most probable label at points, 0 where the labels' probabilities together stay at or below ``threshold``.

    Parameters
    ----------
    soft : SoftLabels
    mm : ndarray, shape (n, 3)
        In the frame of ``soft.affine``.
    threshold : float
        In (0, 1).

    Returns
    -------
    ndarray, shape (n,), uint8
    """
    index = apply_affine(np.linalg.inv(soft.affine), mm).T
    total = np.zeros(index.shape[1], dtype=np.float32)
    best = np.zeros_like(total)
    out = np.zeros(index.shape[1], dtype=np.uint8)
    for label, values in zip(soft.labels, soft.maps, strict=True):
        found = ndimage.map_coordinates(values, index, order=1, output=np.float32)
        total += found
        better = found > best
        out[better] = label
        best[better] = found[better]
    out[total <= threshold] = 0
    return out


def labels_on_grid(soft: SoftLabels, points: GridPoints, threshold: float) -> LabelArray:
    """``labels_at`` for all voxels of a grid; only voxels near the labels are looked at closely."""
    # Linear interpolation exceeds the threshold only beside a voxel that does.
    near_map = np.asarray(np.sum(soft.maps, axis=0) > threshold, dtype=np.uint8)
    near = nearest_on_grid(ndimage.maximum_filter(near_map, size=3), soft.affine, points)
    voxels = np.argwhere(near > 0)
    out = np.zeros(points.shape, dtype=np.uint8)
    if len(voxels):
        out[tuple(voxels.T)] = labels_at(soft, points.at(voxels), threshold)
    return out


def nearest_on_grid(labels: LabelArray, affine: FloatArray, points: GridPoints) -> LabelArray:
    """Nearest voxel's label at every voxel of a grid; 0 outside ``labels``."""
    inverse = np.linalg.inv(affine)
    out = np.zeros(points.shape, dtype=np.uint8)
    for i in range(points.shape[0]):
        index = np.rint(apply_affine(inverse, points.plane(i))).astype(np.intp)
        inside = np.all((index >= 0) & (index < np.array(labels.shape)), axis=-1)
        index = np.where(inside[..., None], index, 0)
        out[i] = np.where(inside, labels[index[..., 0], index[..., 1], index[..., 2]], 0)
    return out


class GridPoints:
    """Where the voxels of a grid lie in another frame: an affine plus offsets on a coarse lattice.

    Parameters
    ----------
    grid : Grid
        Its shape is used.
    mapping : MniMap
        Voxel to mm of the other frame.
    """

    def __init__(self, grid: Grid, mapping: MniMap) -> None:
        self.shape = grid.shape
        self._mapping = mapping
        offsets = mapping.offsets_mm
        # Along j and k the lattice is interpolated once; along i plane by plane, which keeps memory small.
        for axis in (1, 2):
            offsets = _stretched(offsets, axis, grid.shape[axis])
        self._columns = offsets
        rows = np.stack(np.meshgrid(np.arange(grid.shape[1]), np.arange(grid.shape[2]), indexing="ij"), -1)
        flat = np.zeros((*rows.shape[:2], 3))
        flat[..., 1:] = rows
        self._plane = apply_affine(mapping.mni_from_grid, flat)

    def at(self, voxels: npt.NDArray[np.integer]) -> FloatArray:
        """Mm of voxels, shape (n, 3) to (n, 3)."""
        return self._mapping(voxels)

    def plane(self, i: int) -> FloatArray:
        """Mm of all voxels with first index ``i``, shape (J, K, 3)."""
        nodes = self._columns.shape[0]
        at = i / max(self.shape[0] - 1, 1) * (nodes - 1)
        low = min(int(at), nodes - 2)
        fraction = at - low
        offsets = (1 - fraction) * self._columns[low] + fraction * self._columns[low + 1]
        moved: FloatArray = self._plane + i * self._mapping.mni_from_grid[:3, 0] + offsets
        return moved


def affine_map(other_from_grid: FloatArray, grid: Grid) -> MniMap:
    """Map without offsets."""
    return MniMap(other_from_grid, np.zeros((2, 2, 2, 3)), grid.shape)


def _stretched(values: FloatArray, axis: int, size: int) -> FloatArray:
    nodes = values.shape[axis]
    at = np.linspace(0, nodes - 1, size)
    low = np.minimum(at.astype(np.intp), nodes - 2)
    fraction = np.expand_dims(at - low, tuple(k for k in range(values.ndim) if k != axis))
    lower, upper = np.take(values, low, axis=axis), np.take(values, low + 1, axis=axis)
    return np.asarray((1 - fraction) * lower + fraction * upper, dtype=np.float64)
