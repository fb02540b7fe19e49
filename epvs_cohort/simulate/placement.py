"""Where perivascular spaces lie in the basal ganglia, and how an atlas ROI errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import LabelArray
from epvs_cohort.simulate.lesions import LesionShape, Placement
from epvs_cohort.simulate.warp import smooth_field

#: Density per volume by structure: caudate, putamen, pallidum, accumbens (both sides alike).
DENSITY = (0.0, 0.35, 0.35, 1.0, 1.0, 0.5, 0.5, 0.6, 0.6)

#: Density along inferior-superior is highest this far above the anterior commissure and falls off as a
#: Gaussian with these deviations below and above, over a small plateau, all in mm.
PEAK_ABOVE_AC_MM = 0.5
SPREAD_BELOW_MM = 2.6
SPREAD_ABOVE_MM = 3.6
PLATEAU = 0.03

#: Perforating arteries enter below the basal ganglia; they fan out from here (below the AC, in mm).
FOCUS_BELOW_AC_MM = 25.0


def placement_settings() -> dict[str, object]:
    """The densities that lesions are placed by, for the hash of a cohort's parameters."""
    return {
        "density": list(DENSITY),
        "peak_above_ac_mm": PEAK_ABOVE_AC_MM,
        "spread_below_mm": SPREAD_BELOW_MM,
        "spread_above_mm": SPREAD_ABOVE_MM,
        "plateau": PLATEAU,
        "focus_below_ac_mm": FOCUS_BELOW_AC_MM,
    }


def placement_of(regions: LabelArray, grid: Grid, ac_mm: FloatArray, up: FloatArray) -> Placement:
    """Density of perivascular spaces over the basal ganglia.

    Parameters
    ----------
    regions : ndarray, shape (I, J, K), uint8
        True region numbers on ``grid``; candidates lie well inside, so that rods do not stick out far.
    ac_mm, up : ndarray, shape (3,)
        Anterior commissure and unit vector inferior to superior, in the grid's world mm.
    """
    voxels = np.argwhere(_inner(regions))
    if len(voxels) > 60_000:
        voxels = voxels[:: len(voxels) // 30_000]
    points = apply_affine(grid.affine, voxels)
    numbers = regions[tuple(voxels.T)]
    height = (points - ac_mm) @ up - PEAK_ABOVE_AC_MM
    spread = np.where(height < 0, SPREAD_BELOW_MM, SPREAD_ABOVE_MM)
    weights = np.asarray(DENSITY)[numbers] * (np.exp(-0.5 * (height / spread) ** 2) + PLATEAU)
    jitter = 0.45 * min(grid.spacing_mm)
    focus = ac_mm - FOCUS_BELOW_AC_MM * up
    return Placement(
        points_mm=points,
        weights=weights / weights.sum(),
        regions=numbers,
        up=(float(up[0]), float(up[1]), float(up[2])),
        focus_mm=(float(focus[0]), float(focus[1]), float(focus[2])),
        jitter_mm=min(jitter, 0.4),
        shape=LesionShape(),
    )


@dataclass(frozen=True)
class RoiError:
    """How an outline by the atlas errs.

    Attributes
    ----------
    shift_mm : float
        Standard deviation of the displacement, a third of its variance a shift of the whole.
    grown_mm, grown_sigma_mm : float
        Mean and standard deviation over people of how far the border lies outside the true one.
    """

    shift_mm: float
    grown_mm: float
    grown_sigma_mm: float


def mistaken_roi(rng: np.random.Generator, regions: LabelArray, grid: Grid, error: RoiError) -> LabelArray:
    """Region numbers as an atlas registration would place them: shifted, smoothly deformed, grown or shrunk.

    Parameters
    ----------
    regions : ndarray, shape (I, J, K), uint8

    Returns
    -------
    ndarray, shape (I, J, K), uint8
    """
    index = []
    for axis, spacing in enumerate(grid.spacing_mm):
        field = smooth_field(rng, grid, 14.0) * np.float32(error.shift_mm * 1.1 / spacing)
        field += np.float32(rng.normal(0.0, error.shift_mm * 0.58 / spacing))
        base = np.arange(grid.shape[axis], dtype=np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        field += base.reshape(shape)
        np.rint(field, out=field)
        np.clip(field, 0, grid.shape[axis] - 1, out=field)
        index.append(field.astype(np.int32))
    moved: LabelArray = regions[index[0], index[1], index[2]]
    return _grown(moved, grid, float(rng.normal(error.grown_mm, error.grown_sigma_mm)))


def _grown(regions: LabelArray, grid: Grid, grown_mm: float) -> LabelArray:
    """Regions whose common border lies ``grown_mm`` further out, each new voxel of the nearest region."""
    if not regions.any():
        return regions
    at = np.argwhere(regions)
    reach = np.ceil(max(grown_mm, 0.0) / np.asarray(grid.spacing_mm)).astype(int) + 1
    box = tuple(
        slice(max(int(low) - int(r), 0), int(high) + int(r) + 1)
        for low, high, r in zip(at.min(axis=0), at.max(axis=0), reach, strict=True)
    )
    out, part = regions.copy(), regions[box]
    if grown_mm < 0:
        depth = ndimage.distance_transform_edt(part > 0, sampling=grid.spacing_mm)
        out[box] = np.where(depth > -grown_mm, part, 0)
        return out if out.any() else regions
    distance, nearest = ndimage.distance_transform_edt(
        part == 0, sampling=grid.spacing_mm, return_indices=True
    )
    out[box] = np.where(distance <= grown_mm, part[tuple(nearest)], 0)
    return out


def dice(a: LabelArray, b: LabelArray) -> float:
    """Overlap of the nonzero parts of two label maps, 0 to 1."""
    both = int(((a > 0) & (b > 0)).sum())
    return 2.0 * both / max(int((a > 0).sum()) + int((b > 0).sum()), 1)


def _inner(regions: LabelArray) -> npt.NDArray[np.bool_]:
    """Voxels whose six neighbours lie in a region too."""
    inside = regions > 0
    out = inside.copy()
    for axis in range(3):
        for step in (1, -1):
            out &= np.roll(inside, step, axis)
    return out if out.any() else inside
