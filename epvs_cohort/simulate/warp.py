"""Random head shapes: an affine and a smooth nonlinear deformation, and sampling through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, FloatArray, Grid, apply_affine, rigid_about
from epvs_cohort.records import Float32Array
from epvs_cohort.simulate.anatomy import Anatomy

#: Nodes at which a deformation is evaluated on a target grid, in mm; it is linear in between.
NODE_MM = 6.0

#: Middle of the lateral ventricles' bodies in MNI RAS mm, and how far in mm their growth is felt.
VENTRICLES_MM = (0.0, 0.0, 16.0)
VENTRICLE_REACH_MM = 20.0

#: Middle of the right basal ganglia in MNI RAS mm, the left ones being its mirror image, and how far in mm their growth
#: is felt.
NUCLEI_MM = (20.0, 4.0, 2.0)
NUCLEI_REACH_MM = 18.0


@dataclass(frozen=True)
class ShapeVariation:
    """How much people differ from their anatomy: standard deviations.

    ``offset_mm`` is that of the B-spline coefficients; the spline makes about a third of it of them.
    """

    scale: float = 0.035
    #: Intracranial volume that heads are drawn towards, and how far (0 not at all, 1 wholly): the bundled head
    #: is an average in MNI space, which is larger than people.
    intracranial_ml: float = 1500.0
    pull: float = 0.8
    shear: float = 0.02
    knot_mm: float = 24.0
    offset_mm: float = 4.5


@dataclass(frozen=True)
class Warp:
    """Person RAS mm to anatomy RAS mm: an affine plus cubic B-spline offsets.

    Attributes
    ----------
    anatomy_from_person : ndarray, shape (4, 4)
    lattice : Grid
        Knots in person RAS mm.
    offsets_mm : ndarray, shape (A, B, C, 3), float32
        B-spline coefficients, added in anatomy mm.
    """

    anatomy_from_person: FloatArray
    lattice: Grid
    offsets_mm: Float32Array

    def __call__(self, person_mm: npt.ArrayLike) -> FloatArray:
        """Anatomy RAS mm of person RAS mm, shape (..., 3) to (..., 3)."""
        points = np.asarray(person_mm, dtype=np.float64)
        at = apply_affine(np.linalg.inv(self.lattice.affine), points.reshape(-1, 3)).T
        moved = [
            ndimage.map_coordinates(self.offsets_mm[..., c], at, order=3, mode="nearest", prefilter=False)
            for c in range(3)
        ]
        return apply_affine(self.anatomy_from_person, points) + np.stack(moved, axis=-1).reshape(points.shape)

    def inverse(self, anatomy_mm: npt.ArrayLike) -> FloatArray:
        """Person RAS mm of anatomy RAS mm by fixed-point iteration, to about 0.001 mm."""
        target = np.asarray(anatomy_mm, dtype=np.float64)
        back = np.linalg.inv(self.anatomy_from_person)
        guess = apply_affine(back, target)
        for _ in range(30):
            guess = guess + (target - self(guess)) @ back[:3, :3].T
        return guess


@dataclass(frozen=True)
class Placed:
    """A target grid and where it lies: ``person_from_world`` is a (4, 4) map of the grid's world mm."""

    grid: Grid
    person_from_world: FloatArray


def draw_warp(
    rng: np.random.Generator,
    anatomy: Anatomy,
    variation: ShapeVariation,
    growth: float = 0.0,
    nuclei: float = 0.0,
) -> Warp:
    """Random affine about the anterior commissure and a random smooth deformation of the whole head.

    Person space is MNI-oriented, and its anterior commissure lies near MNI's.

    Parameters
    ----------
    growth : float
        Widening of what lies around the lateral ventricles, as a part of its distance from their middle:
        0.3 in an old person, -0.2 in a young one.
    nuclei : float
        Widening of what lies around the basal ganglia of each side, alike.
    """
    center = np.asarray(MNI_ANTERIOR_COMMISSURE_MM)
    usual = (variation.intracranial_ml / anatomy.intracranial_ml) ** (variation.pull / 3.0)
    scale = usual * np.exp(rng.normal(0.0, variation.scale) + rng.normal(0.0, variation.scale * 0.6, 3))
    linear = np.diag(scale) @ (np.eye(3) + np.triu(rng.normal(0.0, variation.shear, (3, 3)), 1))
    shape = np.eye(4)
    shape[:3, :3] = np.linalg.inv(linear)
    shape[:3, 3] = center - shape[:3, :3] @ center
    affine = anatomy.anatomy_from_upright @ shape
    lattice = _lattice(anatomy.grid, inverse_of(affine), variation.knot_mm)
    offsets = rng.normal(0.0, variation.offset_mm, (*lattice.shape, 3)).astype(np.float32)
    knots = apply_affine(lattice.affine, np.moveaxis(np.indices(lattice.shape), 0, -1))
    widened = _widening(knots, VENTRICLES_MM, (1.0, 0.5, 1.0), VENTRICLE_REACH_MM) * growth
    for side in (-1.0, 1.0):
        middle = (side * NUCLEI_MM[0], *NUCLEI_MM[1:])
        widened += _widening(knots, middle, (1.0, 1.0, 1.0), NUCLEI_REACH_MM) * nuclei
    inward = -widened @ affine[:3, :3].T
    for c in range(3):
        # Coefficients of the spline that passes through the field at the knots.
        offsets[..., c] += ndimage.spline_filter(inward[..., c], order=3, output=np.float32)
    return Warp(affine, lattice, offsets)


def _widening(
    knots: FloatArray, middle_mm: Sequence[float], along: Sequence[float], reach_mm: float
) -> FloatArray:
    """Offsets away from a place, shape (..., 3): as long as the distance near it, fading beyond ``reach_mm``."""
    outward = (knots - np.asarray(middle_mm)) * np.asarray(along)
    near = np.exp(-0.5 * (outward**2).sum(axis=-1, keepdims=True) / reach_mm**2)
    return np.asarray(near * outward)


def inverse_of(matrix: FloatArray) -> FloatArray:
    """Inverse of a (4, 4) map."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def sample(
    volumes: Sequence[npt.NDArray[np.number[Any]]], source: Grid, warp: Warp, target: Placed
) -> list[npt.NDArray[np.number[Any]]]:
    """Pull volumes of one source grid onto a target grid through a warp.

    Parameters
    ----------
    volumes : sequence of ndarray, shape ``source.shape``
        Floating volumes are interpolated linearly, integer ones take the nearest voxel; 0 outside.
    source : Grid
        In anatomy RAS mm.
    target : Placed
        Grid to fill.

    Returns
    -------
    list of ndarray, shape ``target.grid.shape``
        Of the volumes' own types.
    """
    outs = [np.zeros(target.grid.shape, dtype=v.dtype) for v in volumes]
    nodes, spots = _node_voxels(source, warp, target)
    # Slabs keep the coordinates of a whole head (47 million voxels) out of memory.
    depth = max(1, 4_000_000 // (target.grid.shape[0] * target.grid.shape[1]))
    for start in range(0, target.grid.shape[2], depth):
        stop = min(start + depth, target.grid.shape[2])
        coordinates = _expand(nodes, spots, target.grid.shape, slice(start, stop))
        for volume, out in zip(volumes, outs, strict=True):
            floating = np.issubdtype(volume.dtype, np.floating)
            ndimage.map_coordinates(
                volume,
                coordinates,
                output=out[:, :, start:stop],
                order=1 if floating else 0,
                mode="constant",
                prefilter=False,
            )
    return outs


def reached(source: Grid, warp: Warp, target: Placed, margin: int) -> tuple[slice, slice, slice]:
    """Voxels of a source grid that `sample` looks at, and ``margin`` more on each side; never none along an axis."""
    nodes, _ = _node_voxels(source, warp, target)
    low = np.floor(nodes.reshape(-1, 3).min(axis=0)).astype(int) - margin
    high = np.ceil(nodes.reshape(-1, 3).max(axis=0)).astype(int) + margin + 1
    size = np.asarray(source.shape)
    first = np.clip(low, 0, size - 1)
    last = np.clip(high, first + 1, size)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return i, j, k


def smooth_field(rng: np.random.Generator, grid: Grid, knot_mm: float) -> Float32Array:
    """Smooth random field of roughly unit variance on a grid, from knots ``knot_mm`` apart."""
    extent = (np.asarray(grid.shape) - 1) * np.asarray(grid.spacing_mm)
    knots = np.maximum(np.ceil(extent / knot_mm).astype(int) + 1, 2)
    values = rng.standard_normal(tuple(knots), dtype=np.float32)
    fine = tuple(min(int(n), 4 * int(k)) for n, k in zip(grid.shape, knots, strict=True))
    cubic = ndimage.zoom(values, [f / k for f, k in zip(fine, knots, strict=True)], order=3, mode="nearest")
    return stretch(np.asarray(cubic, dtype=np.float32), grid.shape)


def random_rigid(
    rng: np.random.Generator, center_mm: npt.ArrayLike, angle_deg: float, shift_mm: float
) -> FloatArray:
    """Rigid map about a point: Euler angles and shifts uniform within plus or minus the given limits."""
    angles = np.radians(rng.uniform(-angle_deg, angle_deg, 3))
    return rigid_about(center_mm, angles, rng.uniform(-shift_mm, shift_mm, 3))


def _lattice(grid: Grid, person_from_anatomy: FloatArray, knot_mm: float) -> Grid:
    """Knots that cover a grid of anatomy space, laid out in person space."""
    ends = np.array(list(np.ndindex(2, 2, 2))) * (np.asarray(grid.shape) - 1)
    corners = apply_affine(person_from_anatomy @ grid.affine, ends)
    low, high = corners.min(axis=0), corners.max(axis=0)
    count = np.ceil((high - low) / knot_mm).astype(int) + 3
    affine = np.diag([knot_mm, knot_mm, knot_mm, 1.0])
    affine[:3, 3] = (low + high) / 2.0 - (count - 1) / 2.0 * knot_mm
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def _node_voxels(source: Grid, warp: Warp, target: Placed) -> tuple[FloatArray, list[FloatArray]]:
    """Source voxels at coarse nodes of the target grid, and the nodes' places along each axis."""
    spots = [
        np.linspace(0.0, n - 1.0, max(2, int(np.ceil((n - 1) * s / NODE_MM)) + 1))
        for n, s in zip(target.grid.shape, target.grid.spacing_mm, strict=True)
    ]
    mesh = np.stack(np.meshgrid(*spots, indexing="ij"), axis=-1)
    person = apply_affine(target.person_from_world @ target.grid.affine, mesh)
    return apply_affine(np.linalg.inv(source.affine), warp(person)), spots


def _expand(
    nodes: FloatArray, spots: list[FloatArray], shape: tuple[int, int, int], ks: slice
) -> Float32Array:
    values = np.moveaxis(nodes, -1, 0).astype(np.float32)
    values = _lerp(values, 3, spots[2], np.arange(ks.start, ks.stop, dtype=np.float64))
    values = _lerp(values, 1, spots[0], np.arange(shape[0], dtype=np.float64))
    return _lerp(values, 2, spots[1], np.arange(shape[1], dtype=np.float64))


def stretch(values: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    """Corner-to-corner linear stretch of an array to a larger shape."""
    for axis, n in enumerate(shape):
        at = np.linspace(0.0, values.shape[axis] - 1.0, n)
        values = _lerp(values, axis, np.arange(values.shape[axis], dtype=np.float64), at)
    return values


def _lerp(values: Float32Array, axis: int, spots: FloatArray, at: FloatArray) -> Float32Array:
    if spots.size == 1:
        return np.repeat(values, at.size, axis=axis)
    low = np.clip(np.searchsorted(spots, at, side="right") - 1, 0, spots.size - 2)
    weight = ((at - spots[low]) / (spots[low + 1] - spots[low])).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    near = np.take(values, low, axis=axis)
    far = np.take(values, low + 1, axis=axis)
    far -= near
    far *= weight.reshape(shape)
    far += near
    return far
