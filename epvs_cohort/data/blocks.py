"""Scans made coarser by averaging whole blocks of voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, apply_affine, spacing_of
from epvs_cohort.records import Float32Array

#: Coarser voxels and their affine.
Shrunk = tuple[Float32Array, FloatArray]


def shrink(data: npt.NDArray[np.generic], affine: FloatArray, spacing_mm: float) -> Shrunk:
    """Average blocks of voxels so that edges come nearest to ``spacing_mm``; no axis is made finer.

    Parameters
    ----------
    data : ndarray, shape (I, J, K)
        Voxels; what does not fill a last block is left out.
    affine : ndarray, shape (4, 4)
        Voxel to mm.
    spacing_mm : float
        Wanted voxel edge; 0 changes nothing.

    Returns
    -------
    tuple
        Coarser voxels, float32, and their affine to the same mm.

    >>> coarse, affine = shrink(np.arange(8.0).reshape(8, 1, 1), np.eye(4), 2.0)
    >>> coarse[:, 0, 0].tolist(), float(affine[0, 3])
    ([0.5, 2.5, 4.5, 6.5], 0.5)
    """
    spacing = np.array(spacing_of(affine))
    wanted = np.rint(spacing_mm / spacing).astype(int)
    factor = np.clip(wanted, 1, np.array(data.shape))
    whole = [n // f * f for n, f in zip(data.shape, factor, strict=True)]
    inner = data[: whole[0], : whole[1], : whole[2]]
    # The axis farthest apart in memory goes first: its slices lie whole, and what is left is smaller at once.
    for axis in sorted(range(3), key=lambda a: -abs(inner.strides[a])):
        if factor[axis] > 1:
            inner = _averaged(inner, axis, int(factor[axis]))
    out: Float32Array = np.asarray(inner, dtype=np.float32)
    coarse = np.array(affine, dtype=np.float64)
    coarse[:3, 3] = apply_affine(affine, (factor - 1) / 2)
    coarse[:3, :3] = coarse[:3, :3] * factor
    return out, coarse


def _averaged(data: npt.NDArray[np.generic], axis: int, factor: int) -> Float32Array:
    """Mean of each ``factor`` slices along an axis; as a sum of strided slices, several times faster than ``mean``."""
    slices: npt.NDArray[Any] = np.moveaxis(data, axis, 0)
    total = np.array(slices[::factor], dtype=np.float32, order="K")
    for at in range(1, factor):
        total += slices[at::factor]
    total /= np.float32(factor)
    return np.moveaxis(total, 0, axis)
