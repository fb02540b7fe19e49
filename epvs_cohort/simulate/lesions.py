"""Perivascular spaces and what is mistaken for them, as capsules rendered with partial volume.

Shape, size and place follow STRIVE-2 (Duering et al., Lancet Neurology 2023) and Potter's rating scale
(Cerebrovascular Diseases 2015): signal of fluid, round or linear along the perforating arteries, mostly
under 3 mm wide, in the basal ganglia most of all in the lower putamen around the anterior commissure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import Float32Array

#: Edge of the sub-voxels that a lesion is rendered with, in mm.
SUB_MM = 0.25


@dataclass(frozen=True)
class NegativeBinomial:
    """Overdispersed counts: variance ``mean + mean**2 / dispersion`` (gamma-Poisson mixture)."""

    mean: float
    dispersion: float

    def draw(self, rng: np.random.Generator) -> int:
        """One count."""
        return int(rng.poisson(rng.gamma(self.dispersion, self.mean / self.dispersion)))


#: Whole-ROI count. 40 % of the lesions lie in an AC slice of 0.8 mm: 360 training scans hold 13.5 and 5.4 on average;
#: row (f) of the paper's Table 1 implies 5.3.
DEFAULT_COUNT = NegativeBinomial(mean=13.2, dispersion=2.5)


@dataclass(frozen=True)
class LesionSpec:
    """One lesion or mimic: a capsule, that is a rod with round ends.

    Attributes
    ----------
    center_mm, direction : tuple of float
        In one world frame (RAS mm); direction has unit length.
    length_mm : float
        End to end, at least ``2 * radius_mm``.
    radius_mm : float
    contrast : float
        Part of the way from the tissue around to fluid; negative is darker than the tissue.
    region : int
        1..8 as in ``data.atlas.REGIONS``; 0 in none.
    """

    center_mm: tuple[float, float, float]
    direction: tuple[float, float, float]
    length_mm: float
    radius_mm: float
    contrast: float
    region: int = 0

    @property
    def half_axis_mm(self) -> float:
        """From the centre to the middle of either round end."""
        return max(0.0, self.length_mm / 2.0 - self.radius_mm)

    def moved(self, world_b_from_a: npt.ArrayLike) -> LesionSpec:
        """The lesion in another frame, through a rigid (4, 4) map."""
        matrix = np.asarray(world_b_from_a, dtype=np.float64)
        center = apply_affine(matrix, self.center_mm)
        turned = matrix[:3, :3] @ np.asarray(self.direction)
        turned = turned / np.linalg.norm(turned)
        return LesionSpec(
            _triple(center), _triple(turned), self.length_mm, self.radius_mm, self.contrast, self.region
        )


@dataclass(frozen=True)
class LesionShape:
    """Distribution of size, direction and contrast of perivascular spaces.

    Radius and length are log-normal (median, sigma of the log), cut to the ranges of STRIVE-2; contrast is a
    beta distribution over ``contrast``, so that some are barely visible.
    """

    radius_median_mm: float = 0.85
    radius_sigma: float = 0.35
    radius_range_mm: tuple[float, float] = (0.4, 1.5)
    length_median_mm: float = 3.5
    length_sigma: float = 0.55
    length_range_mm: tuple[float, float] = (1.0, 10.0)
    contrast_range: tuple[float, float] = (0.3, 1.0)
    contrast_beta: tuple[float, float] = (3.0, 1.0)
    tilt_deg: float = 12.0
    separation_mm: float = 2.5


@dataclass(frozen=True)
class Placement:
    """Where lesions may lie.

    Attributes
    ----------
    points_mm : ndarray, shape (N, 3), float64
        Candidate centres in the world frame of the lesions.
    weights : ndarray, shape (N,), float64
        Relative density, sums to 1.
    regions : ndarray, shape (N,), uint8
        Region number of each candidate.
    up : tuple of float
        Inferior to superior in that frame, unit length.
    focus_mm : tuple of float
        Perforating arteries fan out upwards from about here.
    jitter_mm : float
        Half the distance between candidates: centres are spread uniformly within it.
    shape : LesionShape
    """

    points_mm: FloatArray
    weights: FloatArray
    regions: npt.NDArray[np.uint8]
    up: tuple[float, float, float]
    focus_mm: tuple[float, float, float]
    jitter_mm: float = 0.2
    shape: LesionShape = LesionShape()


def draw_lesions(rng: np.random.Generator, n: int, placement: Placement) -> list[LesionSpec]:
    """Draw ``n`` perivascular spaces that do not touch.

    Centres keep ``shape.separation_mm``, and the rods a clear gap; where the basal ganglia are so full that a
    place cannot be found, the smallest sizes are tried, and then fewer than ``n`` are returned.
    """
    drawn: list[LesionSpec] = []
    for _ in range(n):
        for attempt in range(60):
            lesion = _draw_one(rng, placement, shrink=attempt >= 40)
            if all(_apart(lesion, other, placement.shape.separation_mm) for other in drawn):
                drawn.append(lesion)
                break
    return drawn


def fluid_fraction(
    lesions: Sequence[LesionSpec],
    grid: Grid,
    *,
    psf_sigma_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    with_contrast: bool = True,
) -> Float32Array:
    """Part of each voxel that lesions move towards fluid.

    ``image + fluid_fraction * (fluid - image)`` paints them.

    Parameters
    ----------
    lesions : sequence of LesionSpec
        In the world frame of ``grid``.
    grid : Grid
        Any grid, small windows included.
    psf_sigma_mm : tuple of float
        Blur of the scanner along i, j and k, on top of the voxel's extent.
    with_contrast : bool
        Multiply by each lesion's contrast (then values lie in [-1, 1]); else pure coverage in [0, 1].

    Returns
    -------
    ndarray, shape (I, J, K), float32
    """
    out = np.zeros(grid.shape, dtype=np.float32)
    for lesion in lesions:
        found = coverage(lesion, grid, psf_sigma_mm)
        if found is None:
            continue
        target, patch = found
        patch = patch * np.float32(lesion.contrast if with_contrast else 1.0)
        held = out[target]
        np.copyto(held, patch, where=np.abs(patch) > np.abs(held))
    return out


def coverage(
    lesion: LesionSpec, grid: Grid, psf_sigma_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[tuple[slice, slice, slice], Float32Array] | None:
    """Part of each voxel that one lesion fills, where it lies on the grid.

    Returns
    -------
    tuple or None
        Window of the grid and coverage in [0, 1] of its voxels, float32; None where the lesion misses the grid.
    """
    window = _window(lesion, grid, psf_sigma_mm)
    if any(w.start >= w.stop for w in window):
        return None
    patch, inside = _render(lesion, grid, window, psf_sigma_mm)
    target = [slice(max(w.start, 0), min(w.stop, n)) for w, n in zip(window, grid.shape, strict=True)]
    return (target[0], target[1], target[2]), patch[inside]


@dataclass(frozen=True)
class Slab:
    """What one slice of an image shows.

    Attributes
    ----------
    point_mm : ndarray, shape (3,)
        A point of its middle plane.
    normal : ndarray, shape (3,)
        Unit normal of that plane.
    half_mm : float
        Half the thickness.
    """

    point_mm: FloatArray
    normal: FloatArray
    half_mm: float


def slab_of(grid: Grid, axis: int, index: int) -> Slab:
    """Slab of one slice: points whose voxel coordinate along ``axis`` rounds to ``index``."""
    row = np.linalg.inv(grid.affine)[axis, :3]
    steepness = float(np.linalg.norm(row))
    voxel = np.zeros(3)
    voxel[axis] = index
    normal = np.asarray(row / steepness, dtype=np.float64)
    return Slab(apply_affine(grid.affine, voxel), normal, 0.5 / steepness)


def crossing_mm(lesion: LesionSpec, slab: Slab) -> FloatArray | None:
    """Middle of the part of the lesion's axis within a slab, or None where the capsule misses the slab.

    Where only a round end reaches into the slab: the point beyond that end at half the depth it reaches.
    """
    center = np.asarray(lesion.center_mm)
    direction = np.asarray(lesion.direction)
    height = float((center - slab.point_mm) @ slab.normal)
    slope = float(direction @ slab.normal)
    reach = lesion.half_axis_mm
    low, high = -reach, reach
    if abs(slope) * reach > 1e-9:
        faces = sorted(((-slab.half_mm - height) / slope, (slab.half_mm - height) / slope))
        low, high = float(np.clip(faces[0], low, high)), float(np.clip(faces[1], low, high))
    nearest = center + (low + high) / 2.0 * direction
    above = float((nearest - slab.point_mm) @ slab.normal)
    if abs(above) - lesion.radius_mm > slab.half_mm:
        return None
    tip = max(abs(above) - lesion.radius_mm, -slab.half_mm)
    depth = abs(above) - (slab.half_mm + tip) / 2.0 if abs(above) > slab.half_mm else 0.0
    return np.asarray(nearest - np.sign(above) * depth * slab.normal, dtype=np.float64)


def _draw_one(rng: np.random.Generator, placement: Placement, *, shrink: bool) -> LesionSpec:
    shape = placement.shape
    index = int(np.searchsorted(np.cumsum(placement.weights), rng.random() * placement.weights.sum()))
    index = min(index, len(placement.weights) - 1)
    center = placement.points_mm[index] + rng.uniform(-1.0, 1.0, 3) * placement.jitter_mm
    radius = float(
        np.clip(rng.lognormal(np.log(shape.radius_median_mm), shape.radius_sigma), *shape.radius_range_mm)
    )
    length = float(
        np.clip(rng.lognormal(np.log(shape.length_median_mm), shape.length_sigma), *shape.length_range_mm)
    )
    low, high = shape.contrast_range
    contrast = low + (high - low) * float(rng.beta(*shape.contrast_beta))
    fan = center - np.asarray(placement.focus_mm)
    direction = np.asarray(placement.up) + 0.35 * fan / max(float(np.linalg.norm(fan)), 1e-6)
    direction = direction / np.linalg.norm(direction)
    direction = direction + rng.normal(0.0, np.tan(np.radians(shape.tilt_deg)), 3)
    direction = direction / np.linalg.norm(direction)
    if shrink:
        radius, length = shape.radius_range_mm[0], shape.length_range_mm[0]
    region = int(placement.regions[index])
    return LesionSpec(_triple(center), _triple(direction), max(length, 2 * radius), radius, contrast, region)


def _apart(a: LesionSpec, b: LesionSpec, separation_mm: float) -> bool:
    gap = float(np.linalg.norm(np.asarray(a.center_mm) - np.asarray(b.center_mm)))
    if gap < separation_mm:
        return False
    if gap > a.half_axis_mm + b.half_axis_mm + separation_mm + a.radius_mm + b.radius_mm:
        return True
    steps = np.linspace(-1.0, 1.0, 9)[:, None]
    rod_a = np.asarray(a.center_mm) + steps * a.half_axis_mm * np.asarray(a.direction)
    rod_b = np.asarray(b.center_mm) + steps * b.half_axis_mm * np.asarray(b.direction)
    distance = np.linalg.norm(rod_a[:, None, :] - rod_b[None, :, :], axis=-1)
    # A voxel's diagonal (1.06 mm at 0.49 x 0.49 x 0.8 mm) between the walls keeps them two to the eye.
    return float(distance.min()) >= a.radius_mm + b.radius_mm + 1.1


def _window(
    lesion: LesionSpec, grid: Grid, psf_sigma_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """Voxels that the lesion can reach, clipped to the grid and then padded by what the blur needs."""
    to_voxel = np.linalg.inv(grid.affine)
    center = apply_affine(to_voxel, lesion.center_mm)
    axis = to_voxel[:3, :3] @ np.asarray(lesion.direction) * lesion.half_axis_mm
    spacing = np.asarray(grid.spacing_mm)
    reach = np.abs(axis) + lesion.radius_mm / spacing + 1.0 + 3.0 * np.asarray(psf_sigma_mm) / spacing
    low = np.floor(center - reach).astype(int)
    high = np.ceil(center + reach).astype(int) + 1
    shape = np.asarray(grid.shape)
    if (high <= 0).any() or (low >= shape).any():
        return (slice(0, 0), slice(0, 0), slice(0, 0))
    return (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )


def _render(
    lesion: LesionSpec,
    grid: Grid,
    window: tuple[slice, slice, slice],
    psf_sigma_mm: tuple[float, float, float],
) -> tuple[Float32Array, tuple[slice, slice, slice]]:
    """Coverage of the voxels of ``window`` and the part of it that lies inside the grid."""
    # Wide ones need no finer edge than a third of their radius.
    sub_mm = max(SUB_MM, lesion.radius_mm / 3.0)
    factors = [max(1, int(np.ceil(s / sub_mm))) for s in grid.spacing_mm]
    axes = [
        w.start - 0.5 + (np.arange((w.stop - w.start) * f) + 0.5) / f
        for w, f in zip(window, factors, strict=True)
    ]
    affine = grid.affine
    center = np.asarray(lesion.center_mm)
    direction = np.asarray(lesion.direction)
    # World offsets from the centre, one small array per axis; their sum is the mesh.
    steps = [np.multiply.outer(a, affine[:3, n]) for n, a in enumerate(axes)]
    steps[0] = steps[0] + affine[:3, 3] - center
    offset = steps[0][:, None, None] + steps[1][None, :, None] + steps[2][None, None, :]
    along = np.clip(offset @ direction, -lesion.half_axis_mm, lesion.half_axis_mm)
    offset -= along[..., None] * direction
    distance = np.sqrt(np.einsum("...c,...c->...", offset, offset))
    edge = max(s / f for s, f in zip(grid.spacing_mm, factors, strict=True))
    fine = np.clip(0.5 + (lesion.radius_mm - distance) / edge, 0.0, 1.0).astype(np.float32)
    sizes = [(w.stop - w.start, f) for w, f in zip(window, factors, strict=True)]
    patch = fine.reshape(sizes[0] + sizes[1] + sizes[2]).mean(axis=(1, 3, 5), dtype=np.float32)
    if any(psf_sigma_mm):
        sigmas = [mm / s for mm, s in zip(psf_sigma_mm, grid.spacing_mm, strict=True)]
        patch = ndimage.gaussian_filter(patch, sigmas, mode="constant", truncate=3.0)
    inside = [
        slice(max(0, -w.start), (w.stop - w.start) - max(0, w.stop - n))
        for w, n in zip(window, grid.shape, strict=True)
    ]
    return patch, (inside[0], inside[1], inside[2])


def _triple(values: npt.ArrayLike) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in np.asarray(values))
    return (x, y, z)
