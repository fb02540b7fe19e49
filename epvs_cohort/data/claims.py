"""Checks that every image passes, whatever its format: dimension, memory, geometry, values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epvs_cohort.errors import TooLargeError, UnreadableError, UnsuitableImageError
from epvs_cohort.geometry import FloatArray, spacing_of
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import QcValue

_BYTES_PER_GIB = 1 << 30

#: Volume spanned by unit steps along the voxel axes: 1 where they are orthogonal, 0 where they lie in a plane.
_SINGULAR = 1e-3
_SHEARED = 0.999

#: Further from the scanner's origin than this, a position in mm is damage.
_MAX_ORIGIN_MM = 1e5


@dataclass(frozen=True)
class Claim:
    """A checked header: what would be read, before anything is allocated."""

    shape: tuple[int, int, int]
    affine: FloatArray
    notes: tuple[str, ...]
    quality: tuple[QcValue, ...] = ()


def check_claim(path: Path, shape: tuple[int, ...], affine: FloatArray, settings: InputSettings) -> Claim:
    """Check dimension, memory and geometry of a header."""
    notes: tuple[str, ...] = ()
    if any(extent < 1 for extent in shape):
        raise UnreadableError(f"{path}: damaged header: shape {_times(shape)}, all axes must be at least 1")
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise UnsuitableImageError(
            f"{path}: shape {_times(shape)} is no volume; 3D with every axis at least 2"
        )
    if len(shape) > 4:
        raise UnsuitableImageError(f"{path}: shape {_times(shape)} has {len(shape)} dimensions; 3D is legal")
    if len(shape) == 4:
        if settings.four_d == "refuse":
            raise UnsuitableImageError(
                f"{path}: 4D with {shape[3]} volumes; 3D is legal",
                hint='name a 3D file, or set input.four_d = "first" in the protocol to take the first volume',
            )
        notes = (f"4D: the first of {shape[3]} volumes is taken",)
    i, j, k = shape[:3]
    check_memory(path, (i, j, k), settings)
    return Claim((i, j, k), affine, notes + _check_geometry(path, affine, settings))


def check_memory(path: Path, shape: tuple[int, ...], settings: InputSettings, bytes_a_voxel: int = 4) -> None:
    """Check the memory of that many voxels, as float32 or with another number of bytes each.

    Raises
    ------
    TooLargeError
        More than ``settings.max_gib``.
    """
    gib = bytes_a_voxel * math.prod(shape) / _BYTES_PER_GIB
    if gib > settings.max_gib:
        how = "as float32" if bytes_a_voxel == 4 else f"at {bytes_a_voxel} bytes each while they are read"
        raise TooLargeError(
            f"{path}: the header claims {_times(shape)} voxels, {gib:.3g} GiB {how}; "
            f"the limit is {settings.max_gib:g} GiB",
            hint="if the scan really is this large, raise input.max_gib in the protocol",
        )


def _check_geometry(path: Path, affine: FloatArray, settings: InputSettings) -> tuple[str, ...]:
    if not np.isfinite(affine).all():
        raise UnsuitableImageError(f"{path}: the affine holds NaN or infinity: {affine[:3].tolist()}")
    sizes = spacing_of(affine)
    low, high = settings.voxel_min_mm, settings.voxel_max_mm
    if not all(low <= size <= high for size in sizes):
        raise UnsuitableImageError(
            f"{path}: voxels of {_times(tuple(round(size, 4) for size in sizes))} mm; "
            f"legal is {low:g} to {high:g} mm",
            hint="often the header is in metres or micrometres, or was lost on conversion",
        )
    volume = abs(float(np.linalg.det(affine[:3, :3] / np.array(sizes))))
    if volume < _SINGULAR:
        raise UnsuitableImageError(
            f"{path}: the affine is singular, its axes lie in one plane: {affine[:3].tolist()}"
        )
    if float(np.abs(affine[:3, 3]).max()) > _MAX_ORIGIN_MM:
        raise UnsuitableImageError(
            f"{path}: the first voxel lies at {affine[:3, 3].tolist()} mm; legal is within "
            f"{_MAX_ORIGIN_MM:g} mm"
        )
    return (f"the voxel axes are oblique to one another (volume {volume:.4f})",) if volume < _SHEARED else ()


def check_finite(path: Path, data: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Lowest and highest voxel.

    Raises
    ------
    UnsuitableImageError
        A voxel is NaN or infinite.
    """
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(data.size - np.count_nonzero(np.isfinite(data)))
        raise UnsuitableImageError(
            f"{path}: {bad} of {data.size} voxels are NaN or infinite; all must be finite numbers"
        )
    return low, high


def check_contrast(path: Path, data: npt.NDArray[np.generic]) -> None:
    """Check that the voxels are finite and not all the same.

    Raises
    ------
    UnsuitableImageError
        They are not.
    """
    low, high = check_finite(path, data)
    if low == high:
        found = "all voxels are zero" if low == 0.0 else f"all voxels are {low:g}"
        raise UnsuitableImageError(f"{path}: {found}; an image with contrast is needed")


def _times(values: tuple[float, ...]) -> str:
    return "x".join(str(value) for value in values)
