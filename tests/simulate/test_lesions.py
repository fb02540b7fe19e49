"""Perivascular spaces: counts, places, rendering."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from epvs_cohort.geometry import Grid, centered_grid, rigid_about
from epvs_cohort.simulate.lesions import (
    LesionSpec,
    NegativeBinomial,
    Placement,
    Slab,
    crossing_mm,
    draw_lesions,
    fluid_fraction,
    slab_of,
)

UP = (0.0, 0.0, 1.0)
ROD = LesionSpec((0.3, -0.2, 0.4), UP, 6.0, 0.8, 0.5)


def cube(spacing: tuple[float, float, float]) -> Grid:
    shape = tuple(int(14 / s) for s in spacing)
    return centered_grid((shape[0], shape[1], shape[2]), spacing, (0.0, 0.0, 0.0))


def capsule_volume(rod: LesionSpec) -> float:
    return np.pi * rod.radius_mm**2 * (2 * rod.half_axis_mm + 4 / 3 * rod.radius_mm)


def placement() -> Placement:
    index = np.indices((30, 30, 20)).reshape(3, -1).T
    points = index * 0.8 - np.array([12.0, 12.0, 8.0])
    weights = np.full(len(points), 1.0 / len(points))
    return Placement(points, weights, np.full(len(points), 3, dtype=np.uint8), UP, (0.0, 0.0, -30.0))


def test_negative_binomial_has_its_mean_and_variance() -> None:
    rng = np.random.default_rng(1)
    law = NegativeBinomial(12.0, 2.5)
    drawn = np.array([law.draw(rng) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(12.0, rel=0.03)
    assert drawn.var() == pytest.approx(12.0 + 12.0**2 / 2.5, rel=0.06)


@pytest.mark.parametrize("spacing", [(0.49, 0.49, 0.8), (0.3, 0.3, 0.3), (1.0, 1.0, 2.0)])
@pytest.mark.parametrize("psf", [(0.0, 0.0, 0.0), (0.3, 0.3, 0.5)])
def test_rendering_keeps_volume_and_centre(
    spacing: tuple[float, float, float], psf: tuple[float, float, float]
) -> None:
    grid = cube(spacing)
    part = fluid_fraction([ROD], grid, psf_sigma_mm=psf, with_contrast=False)
    assert part.dtype == np.float32
    assert part.min() >= 0.0
    assert part.max() <= 1.0
    assert float(part.sum()) * np.prod(spacing) == pytest.approx(capsule_volume(ROD), rel=0.04)
    voxels = np.moveaxis(np.indices(grid.shape), 0, -1)
    middle = (part[..., None] * voxels).sum(axis=(0, 1, 2)) / part.sum()
    assert grid.affine[:3, :3] @ middle + grid.affine[:3, 3] == pytest.approx(ROD.center_mm, abs=0.05)


def test_a_window_shows_what_the_whole_shows() -> None:
    grid = cube((0.49, 0.49, 0.8))
    whole = fluid_fraction([ROD], grid, psf_sigma_mm=(0.3, 0.3, 0.5))
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([14, 10, 5])
    window = Grid((6, 8, 4), affine)
    part = fluid_fraction([ROD], window, psf_sigma_mm=(0.3, 0.3, 0.5))
    np.testing.assert_allclose(part, whole[14:20, 10:18, 5:9], atol=1e-6)
    assert part.any()


def test_contrast_scales_and_sign_darkens_and_outside_is_nothing() -> None:
    grid = cube((0.5, 0.5, 0.5))
    pure = fluid_fraction([ROD], grid, with_contrast=False)
    np.testing.assert_allclose(fluid_fraction([ROD], grid), 0.5 * pure, atol=1e-6)
    np.testing.assert_allclose(fluid_fraction([replace(ROD, contrast=-0.5)], grid), -0.5 * pure, atol=1e-6)
    assert not fluid_fraction([replace(ROD, center_mm=(99.0, 0.0, 0.0))], grid).any()


def test_lesions_keep_their_distance_and_ranges() -> None:
    drawn = draw_lesions(np.random.default_rng(4), 40, placement())
    assert len(drawn) == 40
    centers = np.array([lesion.center_mm for lesion in drawn])
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1)[np.triu_indices(40, 1)]
    assert gaps.min() >= 2.5
    assert all(0.4 <= lesion.radius_mm <= 1.5 and 0.8 <= lesion.length_mm <= 10.0 for lesion in drawn)
    assert np.mean([lesion.direction[2] for lesion in drawn]) > 0.9
    assert {lesion.region for lesion in drawn} == {3}


def test_full_basal_ganglia_give_fewer() -> None:
    few = placement()
    corner = few.points_mm[:40]
    tight = replace(few, points_mm=corner, weights=np.full(40, 1 / 40), regions=few.regions[:40])
    assert 0 < len(draw_lesions(np.random.default_rng(0), 60, tight)) < 60


def test_same_state_same_lesions() -> None:
    first, second = (draw_lesions(np.random.default_rng(9), 7, placement()) for _ in range(2))
    assert first == second


def level(z: float, half_mm: float = 0.4) -> Slab:
    return Slab(np.array([5.0, 5.0, z]), np.array([0.0, 0.0, 1.0]), half_mm)


def test_crossing_of_the_slice() -> None:
    # The axis runs from z = -1.8 to 2.6, the capsule to 3.4.
    assert crossing_mm(ROD, level(2.0)) == pytest.approx([0.3, -0.2, 2.0])
    # Half of the slab lies beyond the end of the axis: 2.4 to 2.6.
    assert crossing_mm(ROD, level(2.8)) == pytest.approx([0.3, -0.2, 2.5])
    # Only the round end reaches in, from 3.3 to 3.4.
    assert crossing_mm(ROD, level(3.7)) == pytest.approx([0.3, -0.2, 3.35])
    assert crossing_mm(ROD, level(-2.9)) == pytest.approx([0.3, -0.2, -2.55])
    assert crossing_mm(ROD, level(3.79)) is not None
    assert crossing_mm(ROD, level(3.81)) is None
    assert crossing_mm(ROD, level(0.4, half_mm=9.0)) == pytest.approx(ROD.center_mm)


def test_a_level_rod_and_a_tilted_one() -> None:
    across = replace(ROD, direction=(1.0, 0.0, 0.0))
    assert crossing_mm(across, level(0.4)) == pytest.approx(across.center_mm)
    # From the face at 1.1 down to the top of the capsule at 1.2.
    assert crossing_mm(across, level(1.5)) == pytest.approx([0.3, -0.2, 1.15])
    tilted = replace(ROD, direction=(0.6, 0.0, 0.8))
    found = crossing_mm(tilted, level(1.2))
    assert found == pytest.approx([0.9, -0.2, 1.2])


def test_the_slab_of_a_slice_is_what_rounds_to_it() -> None:
    turned = rigid_about((0.0, 0.0, 0.0), (0.2, -0.1, 0.3), (1.0, 2.0, 3.0)) @ np.diag([0.5, -0.5, 0.8, 1.0])
    slab = slab_of(Grid((40, 40, 40), turned), 2, 11)
    assert slab.half_mm == pytest.approx(0.4)
    voxels = np.random.default_rng(0).uniform(0, 39, (500, 3))
    voxels[:, 2] = np.linspace(9.0, 13.0, 500)
    points = voxels @ turned[:3, :3].T + turned[:3, 3]
    within = np.abs((points - slab.point_mm) @ slab.normal) < slab.half_mm
    np.testing.assert_array_equal(within, np.rint(voxels[:, 2]) == 11)


def test_a_moved_lesion_looks_the_same_in_the_moved_grid() -> None:
    pose = rigid_about((1.0, 2.0, 3.0), (0.3, -0.2, 0.5), (10.0, -4.0, 2.0))
    grid = cube((0.5, 0.5, 0.5))
    there = fluid_fraction([ROD.moved(pose)], Grid(grid.shape, pose @ grid.affine))
    np.testing.assert_allclose(there, fluid_fraction([ROD], grid), atol=1e-4)
