"""Noise of native voxels as it is after a scan was interpolated onto the prepared grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, apply_affine, rigid_about
from epvs_cohort.prepare.resample import resample_cubic
from epvs_cohort.records import Float32Array

BoolArray = npt.NDArray[np.bool_]

#: Native voxels around the wanted ones that noise is drawn in: the reach of the spline, and a little for its prefilter.
MARGIN = 4

#: Heads are turned against the prepared grid by at most so many degrees on each axis.
TURN_DEG = 10.0


def interpolated_rician(
    rng: np.random.Generator, image: Float32Array, sigma: float, voxel_from_grid: FloatArray, where: BoolArray
) -> Float32Array:
    """Magnitude of an image with complex noise of native voxels, interpolated as `resample_cubic` does a scan.

    Interpolation makes noise weaker and smooth, by how much depends on where a voxel lies between native ones. A
    magnitude is not linear in the noise, but nearly so at the signal of tissue.

    Parameters
    ----------
    image : ndarray, shape (I, J, K), float32
        Without noise, on the prepared grid or a part of it.
    sigma : float
        Standard deviation of the real and of the imaginary channel in native voxels.
    voxel_from_grid : ndarray, shape (4, 4)
        Voxel of ``image`` to native voxel, up to a shift by whole voxels.
    where : ndarray, shape (I, J, K), bool
        Voxels that noise is wanted in; the others stay as they are.

    Returns
    -------
    ndarray, shape (I, J, K), float32
    """
    if not where.any():
        return image
    ends = apply_affine(voxel_from_grid, _corners(where))
    low = np.floor(ends.min(axis=0)).astype(int) - MARGIN
    i, j, k = (int(n) for n in np.ceil(ends.max(axis=0)).astype(int) + MARGIN + 1 - low)
    box_from_grid = np.array(voxel_from_grid, dtype=np.float64)
    box_from_grid[:3, 3] -= low
    shape = (image.shape[0], image.shape[1], image.shape[2])
    real, imaginary = (
        resample_cubic(rng.standard_normal((i, j, k), dtype=np.float32), box_from_grid, shape, where)
        * np.float32(sigma)
        for _ in range(2)
    )
    real += image
    magnitude: Float32Array = np.hypot(real, imaginary, out=real)
    return magnitude


def random_voxel_from_grid(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> FloatArray:
    """(4, 4) map from a grid to native voxels of the same size: turned and shifted as heads are."""
    middle = (np.asarray(shape) - 1.0) / 2.0 * np.asarray(spacing_mm)
    turned = rigid_about(middle, np.radians(rng.uniform(-TURN_DEG, TURN_DEG, 3)), np.zeros(3))
    scale = np.diag([*spacing_mm, 1.0])
    matrix: FloatArray = np.linalg.inv(scale) @ turned @ scale
    matrix[:3, 3] += rng.uniform(0.0, 1.0, 3)
    return matrix


def _corners(where: BoolArray) -> FloatArray:
    """Corners of the box that holds all true voxels, shape (8, 3)."""
    spans = []
    for axis in range(3):
        at = np.flatnonzero(where.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append((float(at[0]), float(at[-1])))
    return np.array([[spans[a][c] for a, c in enumerate(corner)] for corner in np.ndindex(2, 2, 2)])
