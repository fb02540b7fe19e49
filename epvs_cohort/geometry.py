"""Grids, affines and frames. The one place, with the image readers and elastix, that knows RAS from LPS.

World coordinates are RAS millimetres; arrays are (I, J, K). ``b_from_a`` maps points of frame a to frame b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: RAS millimetres to LPS millimetres, and back (its own inverse).
LPS_FROM_RAS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])

#: The anterior commissure in MNI152 RAS mm: x = 0 by symmetry, y and z as ``design.md`` places it.
MNI_ANTERIOR_COMMISSURE_MM: tuple[float, float, float] = (0.0, 3.0, -4.5)


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxels in a world frame.

    Attributes
    ----------
    shape : tuple of int
        (I, J, K), all positive.
    affine : ndarray, shape (4, 4)
        0-based voxel (i, j, k, 1) to RAS mm.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Length in mm of a step along i, j and k."""
        return spacing_of(self.affine)

    @property
    def center_mm(self) -> FloatArray:
        """RAS mm of the middle of the lattice, shape (3,)."""
        middle = (np.asarray(self.shape, dtype=np.float64) - 1.0) / 2.0
        return apply_affine(self.affine, middle)


def apply_affine(affine: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Map points of shape (..., 3) through a (4, 4) affine.

    >>> apply_affine(np.diag([2.0, 2.0, 2.0, 1.0]), [1.0, 0.0, 3.0]).tolist()
    [2.0, 0.0, 6.0]
    """
    matrix = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def spacing_of(affine: npt.ArrayLike) -> tuple[float, float, float]:
    """Voxel edge lengths in mm of a (4, 4) voxel-to-mm affine: the norms of its columns.

    >>> spacing_of(np.diag([0.49, 0.49, 0.8, 1.0]))
    (0.49, 0.49, 0.8)
    """
    lengths = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def centered_grid(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], center_mm: npt.ArrayLike
) -> Grid:
    """Axis-aligned RAS grid (i to the right, j to the front, k up) whose middle lies at ``center_mm``."""
    affine = np.diag([*spacing_mm, 1.0])
    half = (np.asarray(shape, dtype=np.float64) - 1.0) / 2.0
    affine[:3, 3] = np.asarray(center_mm, dtype=np.float64) - half * np.asarray(spacing_mm)
    return Grid(shape, affine)


def axial_axis(affine: npt.ArrayLike) -> int:
    """Voxel axis (0, 1 or 2) that runs most nearly inferior to superior: the slice axis of an axial scan.

    >>> axial_axis(np.diag([-0.5, 0.5, 3.0, 1.0]))
    2
    """
    directions = np.asarray(affine, dtype=np.float64)[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    return int(np.argmax(np.abs(directions[2])))


def rotation_angle_deg(affine: npt.ArrayLike) -> float:
    """Angle in degrees of the rotation part of a rigid (4, 4) matrix, from its trace.

    >>> rotation_angle_deg(np.eye(4))
    0.0
    """
    trace = float(np.trace(np.asarray(affine, dtype=np.float64)[:3, :3]))
    return float(np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))))


def rigid_about(center_mm: npt.ArrayLike, angles_rad: npt.ArrayLike, shift_mm: npt.ArrayLike) -> FloatArray:
    """(4, 4) rigid map: rotate about ``center_mm`` by x, then y, then z Euler angles, then shift."""
    a, b, c = (float(v) for v in np.asarray(angles_rad, dtype=np.float64))
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    center = np.asarray(center_mm, dtype=np.float64)
    out = np.eye(4)
    out[:3, :3] = rz @ ry @ rx
    out[:3, 3] = center + np.asarray(shift_mm, dtype=np.float64) - out[:3, :3] @ center
    return out
