"""Fused resampling: one cubic B-spline interpolation from the native scan to the prepared grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import FloatArray
from epvs_cohort.records import Float32Array

BoolArray = npt.NDArray[np.bool_]
Shape = tuple[int, int, int]

#: Native voxels kept around the sub-box. The pole of the cubic B-spline prefilter is sqrt(3) - 2 = -0.268
#: (Unser 1999, IEEE Signal Processing Magazine 16(6), Table 1), so a cut 8 voxels away changes a coefficient
#: by less than 0.268 ** 8 < 3e-5 of the intensity range. Two more hold the support of the spline itself.
SUB_BOX_MARGIN = 10


def inverse(affine: npt.ArrayLike) -> FloatArray:
    """Inverse of a (4, 4) affine."""
    return np.asarray(np.linalg.inv(np.asarray(affine, dtype=np.float64)), dtype=np.float64)


def voxel_coordinates(voxel_from_grid: FloatArray, shape: Shape) -> tuple[FloatArray, ...]:
    """Native voxel coordinate along each native axis, of every voxel of a grid.

    Parameters
    ----------
    voxel_from_grid : ndarray, shape (4, 4)
        Grid voxel to native voxel.
    shape : tuple of int
        (I, J, K) of the grid.

    Returns
    -------
    tuple of three ndarray, shape (I, J, K), float64
    """
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    m = np.asarray(voxel_from_grid, dtype=np.float64)
    return tuple((m[a, 0] * i + m[a, 3]) + m[a, 1] * j + m[a, 2] * k for a in range(3))


def field_of_view(native_shape: Shape, voxel_from_grid: FloatArray, shape: Shape) -> BoolArray:
    """Which voxels of a grid have their centre within the native voxels, edges included.

    Parameters
    ----------
    native_shape : tuple of int
        Shape of the native scan; voxel v fills [v - 0.5, v + 0.5].
    voxel_from_grid : ndarray, shape (4, 4)
        Grid voxel to native voxel.
    shape : tuple of int
        (I, J, K) of the grid.

    Returns
    -------
    ndarray, shape (I, J, K), bool
    """
    inside = np.ones(shape, dtype=np.bool_)
    for at, size in zip(voxel_coordinates(voxel_from_grid, shape), native_shape, strict=True):
        inside &= (at >= -0.5) & (at <= size - 0.5)
    return inside


def resample_cubic(
    data: npt.NDArray[np.generic], voxel_from_grid: FloatArray, shape: Shape, where: BoolArray | None = None
) -> Float32Array:
    """Cubic B-spline interpolation of a native scan on a grid (paper, Sec. 3).

    Only the native sub-box that the wanted voxels reach is prefiltered, and only wanted voxels are computed:
    outside the smoothed mask the prepared volume is zero whatever the scan holds.

    Parameters
    ----------
    data : ndarray, shape (native I, J, K)
        Native intensities.
    voxel_from_grid : ndarray, shape (4, 4)
        Grid voxel to native voxel.
    shape : tuple of int
        (I, J, K) of the grid.
    where : ndarray, shape (I, J, K), bool, optional
        Voxels wanted; all where missing.

    Returns
    -------
    ndarray, shape (I, J, K), float32
        0 outside the native field of view and where not wanted.
    """
    out = np.zeros(shape, dtype=np.float32)
    wanted = np.ones(shape, dtype=np.bool_) if where is None else where
    index = np.flatnonzero(wanted)
    matrix = np.asarray(voxel_from_grid, dtype=np.float64)
    at = matrix[:3, :3] @ np.stack(np.unravel_index(index, shape)) + matrix[:3, 3:]
    size = np.array(data.shape)[:, None]
    seen = np.all((at >= -0.5) & (at <= size - 0.5), axis=0)
    index, at = index[seen], at[:, seen]
    if index.size == 0:
        return out
    low = np.maximum(np.floor(at.min(axis=1)).astype(int) - SUB_BOX_MARGIN, 0)
    high = np.minimum(np.ceil(at.max(axis=1)).astype(int) + SUB_BOX_MARGIN + 1, data.shape)
    box = data[low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.float32)
    coefficients = ndimage.spline_filter(box, order=3, output=np.float32, mode="mirror")
    out.ravel()[index] = ndimage.map_coordinates(
        coefficients, at - low[:, None], order=3, prefilter=False, mode="mirror", output=np.float32
    )
    return out


def sample_linear(data: npt.NDArray[np.generic], voxel_from_grid: FloatArray, shape: Shape) -> Float32Array:
    """Trilinear interpolation on a coarse grid, for measures that need no more; 0 outside the field of view.

    Parameters
    ----------
    data : ndarray, shape (native I, J, K)
        Native intensities.
    voxel_from_grid : ndarray, shape (4, 4)
        Grid voxel to native voxel.
    shape : tuple of int
        (I, J, K) of the grid.

    Returns
    -------
    ndarray, shape (I, J, K), float32
    """
    matrix = np.asarray(voxel_from_grid, dtype=np.float64)
    voxels: npt.NDArray[Any] = data
    out: Float32Array = ndimage.affine_transform(
        voxels, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1, mode="nearest", output=np.float32
    )
    out[~field_of_view((data.shape[0], data.shape[1], data.shape[2]), matrix, shape)] = 0.0
    return out
