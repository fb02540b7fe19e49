"""Painting a whole head on a native grid: plain outside the basal ganglia's box, in full detail within it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import Float32Array, LabelArray
from epvs_cohort.simulate.anatomy import Anatomy, Int16Array, regions_of
from epvs_cohort.simulate.lesions import LesionSpec, fluid_fraction
from epvs_cohort.simulate.mimics import Mimics, paint_mimics
from epvs_cohort.simulate.prepared import painted
from epvs_cohort.simulate.scanner import Scanner, bias_field, blur, ghosted, rician
from epvs_cohort.simulate.tissue import TissueModel, paint
from epvs_cohort.simulate.warp import Placed, Warp, sample, stretch

#: Outside the box, voxels finer than the first are interpolated from a lattice about as fine, and coarser ones
#: than the second are averaged from sub-voxels; within the box, those coarser than the third.
LATTICE_MM = 0.95
SUB_MM = 1.5
FINE_SUB_MM = 0.9

#: Half the edges in mm of the box in full detail, and the border in which it fades into the rest.
BOX_HALF_MM = (46.0, 40.0, 38.0)
FADE_MM = 5.0

#: Gaussian in voxels of the 1 mm labels that turns them into probabilities.
HEAD_BLUR = 0.5


@dataclass(frozen=True)
class Scene:
    """All that a scan shows, lesions apart; positions in native RAS mm."""

    anatomy: Anatomy
    warp: Warp
    placed: Placed
    roi_center_mm: FloatArray
    tissue: TissueModel
    scanner: Scanner
    mimics: Mimics


def render(
    rng: np.random.Generator, scene: Scene, lesions: tuple[LesionSpec, ...]
) -> tuple[Float32Array, LabelArray]:
    """Image relative to white matter = 1, with noise, and the true regions.

    Returns
    -------
    tuple of ndarray, shape (I, J, K)
        float32 and uint8.
    """
    grid = scene.placed.grid
    image = _plain(rng, scene)
    window = _box(scene)
    inner, inner_regions = _detailed(rng, scene, window, lesions)
    weight = _fade(window, grid)
    part = image[window]
    part += weight * (inner - part)
    regions = np.zeros(grid.shape, dtype=np.uint8)
    regions[window] = inner_regions
    image *= bias_field(rng, grid, scene.scanner.bias)
    image = ghosted(image, grid, scene.scanner)
    return rician(rng, image, scene.scanner.noise_sigma), regions


def _plain(rng: np.random.Generator, scene: Scene) -> Float32Array:
    """The whole head from 1 mm labels, texture at the scale of the lattice."""
    anatomy = scene.anatomy
    lattice, expand, factors = _lattice(scene.placed.grid)
    mean = paint(anatomy.labels, scene.tissue, HEAD_BLUR)
    values, labels = sample(
        [mean, anatomy.labels], anatomy.grid, scene.warp, Placed(lattice, scene.placed.person_from_world)
    )
    image = np.asarray(values, dtype=np.float32)
    texture = rng.standard_normal(image.shape, dtype=np.float32)
    texture *= scene.tissue.texture_of(np.asarray(labels, dtype=np.int16))
    image += texture
    np.maximum(image, 0.0, out=image)
    return stretch(_averaged(image, factors), expand)


def _detailed(
    rng: np.random.Generator,
    scene: Scene,
    window: tuple[slice, slice, slice],
    lesions: tuple[LesionSpec, ...],
) -> tuple[Float32Array, LabelArray]:
    """Image and regions in the box."""
    native = _part(scene.placed.grid, window)
    factors = _factors(native, FINE_SUB_MM)
    fine = _subdivided(native, factors)
    image, labels = painted(
        rng, scene.anatomy, scene.warp, Placed(fine, scene.placed.person_from_world), scene.tissue
    )
    sigma = scene.scanner.psf_sigma_mm
    image = _averaged(blur(image, fine, sigma), factors)
    fluid = scene.tissue.fluid
    image = paint_mimics(image, native, fluid, scene.mimics, sigma)
    image += fluid_fraction(lesions, native, psf_sigma_mm=sigma) * (np.float32(fluid) - image)
    return image, regions_of(labels if fine.shape == native.shape else _labels_on(scene, native))


def _labels_on(scene: Scene, grid: Grid) -> Int16Array:
    """Labels at the middles of a grid's voxels; with an even factor no sub-voxel has its middle there."""
    block = scene.anatomy.detail
    placed = Placed(grid, scene.placed.person_from_world)
    (labels,) = sample([block.labels], block.grid, scene.warp, placed)
    return np.asarray(labels, dtype=np.int16)


def _box(scene: Scene) -> tuple[slice, slice, slice]:
    grid = scene.placed.grid
    middle = apply_affine(np.linalg.inv(grid.affine), scene.roi_center_mm)
    half = np.asarray(BOX_HALF_MM) / np.asarray(grid.spacing_mm)
    low = np.clip(np.floor(middle - half).astype(int), 0, np.asarray(grid.shape) - 2)
    high = np.clip(np.ceil(middle + half).astype(int) + 1, low + 2, grid.shape)
    return (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )


def _fade(window: tuple[slice, slice, slice], grid: Grid) -> Float32Array:
    """1 within the box, falling to 0 towards its faces."""
    ramps = []
    for w, spacing in zip(window, grid.spacing_mm, strict=True):
        n = w.stop - w.start
        depth = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) * spacing
        ramps.append(np.clip(depth / FADE_MM, 0.0, 1.0).astype(np.float32))
    return ramps[0][:, None, None] * ramps[1][None, :, None] * ramps[2][None, None, :]


def _lattice(grid: Grid) -> tuple[Grid, tuple[int, int, int], tuple[int, int, int]]:
    """Lattice to paint on, the shape to stretch its averages to, and the factors to average by."""
    factors = _factors(grid, SUB_MM)
    counts = [
        n * f if f > 1 else min(n, int(np.ceil((n - 1) * s / LATTICE_MM)) + 1)
        for n, s, f in zip(grid.shape, grid.spacing_mm, factors, strict=True)
    ]
    step = np.array(
        [
            1.0 / f if f > 1 else (n - 1.0) / (c - 1.0)
            for n, c, f in zip(grid.shape, counts, factors, strict=True)
        ]
    )
    scale = np.diag([*step, 1.0])
    scale[:3, 3] = [(1.0 / f - 1.0) / 2.0 for f in factors]
    return Grid((counts[0], counts[1], counts[2]), grid.affine @ scale), grid.shape, factors


def _factors(grid: Grid, limit_mm: float) -> tuple[int, int, int]:
    i, j, k = (max(1, int(np.ceil(s / limit_mm - 1e-6))) for s in grid.spacing_mm)
    return (i, j, k)


def _subdivided(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    scale = np.diag([1.0 / factors[0], 1.0 / factors[1], 1.0 / factors[2], 1.0])
    scale[:3, 3] = [(1.0 / f - 1.0) / 2.0 for f in factors]
    i, j, k = (n * f for n, f in zip(grid.shape, factors, strict=True))
    return Grid((i, j, k), grid.affine @ scale)


def _part(grid: Grid, window: tuple[slice, slice, slice]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = apply_affine(affine, [w.start for w in window])
    i, j, k = (w.stop - w.start for w in window)
    return Grid((i, j, k), affine)


def _averaged(image: Float32Array, factors: tuple[int, int, int]) -> Float32Array:
    if factors == (1, 1, 1):
        return image
    i, j, k = (n // f for n, f in zip(image.shape, factors, strict=True))
    mean: Float32Array = image.reshape(i, factors[0], j, factors[1], k, factors[2]).mean(
        axis=(1, 3, 5), dtype=np.float32
    )
    return mean
