"""The grid that a head is segmented on: where it is laid, and what is put on it."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.head_grid import (
    CEILING,
    TOP_TO_MIDDLE_MM,
    HeadGrid,
    head_center,
    normalised,
    on_grid,
    otsu,
)
from epvs_cohort.data.orient import closest_canonical
from epvs_cohort.geometry import apply_affine
from epvs_cohort.records import Image

SPACING = 4.0


def scan(
    radii_mm: tuple[float, float, float], center_mm: tuple[float, float, float], *, neck: bool = False
) -> Image:
    """An ellipsoid at 4 mm in a field of 240 x 240 x 320 mm, on noise; with a neck down to the bottom if asked for."""
    shape = (60, 60, 80)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = (-118.0, -118.0, -158.0)
    at = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) - np.asarray(center_mm)
    inside = ((at / np.asarray(radii_mm)) ** 2).sum(axis=-1) <= 1.0
    if neck:
        inside |= (np.hypot(at[..., 0], at[..., 1] + 20.0) < 50.0) & (at[..., 2] < 0.0)
    noise = np.abs(np.random.default_rng(0).normal(0.0, 12.0, shape))
    return Image((noise + 300.0 * inside).astype(np.float32), affine)


def test_a_stripped_brain_is_met_in_its_middle() -> None:
    center = (11.0, -20.0, 30.0)
    assert head_center(scan((68.0, 84.0, 64.0), center)) == pytest.approx(center, abs=6.0)


def test_a_neck_does_not_draw_the_grid_down() -> None:
    found = head_center(scan((75.0, 95.0, 110.0), (5.0, 10.0, 20.0), neck=True))
    assert found[:2] == pytest.approx((5.0, 10.0), abs=8.0)
    assert found[2] == pytest.approx(130.0 - TOP_TO_MIDDLE_MM, abs=8.0)


def test_storage_order_moves_nothing() -> None:
    image = scan((68.0, 84.0, 64.0), (11.0, -20.0, 30.0))
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = image.data.shape[0] - 1.0
    turned = closest_canonical(Image(image.data[::-1], image.affine @ flip))
    assert head_center(turned) == pytest.approx(head_center(image), abs=1e-9)
    grid = HeadGrid(shape=(32, 40, 32), spacing_mm=5.0).at(head_center(image))
    np.testing.assert_allclose(on_grid(turned, grid)[0], on_grid(image, grid)[0], atol=1e-3)


def test_a_linear_ramp_comes_out_as_itself_where_it_is_seen() -> None:
    affine = np.array([[0.0, 0.0, 1.5, -20.0], [-0.9, 0.0, 0.0, 25.0], [0.0, 1.1, 0.0, -30.0], [0, 0, 0, 1]])
    shape = (50, 40, 30)
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    image = Image((world @ np.array([1.0, 2.0, -0.5]) + 200.0).astype(np.float32), affine)
    grid = HeadGrid(shape=(32, 32, 32), spacing_mm=2.0).at((0.0, 0.0, 0.0))
    values, seen = on_grid(closest_canonical(image), grid)
    points = apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
    voxels = apply_affine(np.linalg.inv(affine), points)
    inner = ((voxels >= 2.0) & (voxels <= np.asarray(shape) - 3.0)).all(axis=-1)
    outer = ((voxels < -1.5) | (voxels > np.asarray(shape) + 0.5)).any(axis=-1)
    assert inner.sum() > 1000
    assert seen[inner].all()
    assert not seen[outer].any()
    np.testing.assert_allclose(values[inner], (points @ np.array([1.0, 2.0, -0.5]) + 200.0)[inner], atol=1.0)
    assert (values[~seen] == 0.0).all()


def test_normalisation_does_not_depend_on_units_or_on_what_is_not_seen() -> None:
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, 1.0, (16, 16, 16)).astype(np.float32)
    seen = np.ones(values.shape, dtype=np.bool_)
    seen[:, :, 10:] = False
    found = normalised(values, seen)
    np.testing.assert_allclose(normalised(values * 400.0 + 70.0, seen), found, atol=1e-3)
    disturbed = values.copy()
    disturbed[~seen] = 1e6
    np.testing.assert_array_equal(normalised(disturbed, seen), found)
    assert (found[~seen] == 0.0).all()
    assert 0.0 <= found.min() < found.max() <= CEILING


def test_an_image_without_contrast_is_black() -> None:
    flat = np.full((16, 16, 16), 7.0, dtype=np.float32)
    assert not normalised(flat, np.ones(flat.shape, np.bool_)).any()
    assert not normalised(flat, np.zeros(flat.shape, np.bool_)).any()


def test_otsu_parts_two_heaps_of_unequal_size() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.0, 1.0, 9000), rng.normal(20.0, 2.0, 1000)])
    assert 4.0 < otsu(values) < 15.0
    assert otsu(np.full(5, 3.0)) == 3.0
