"""People, whole-head scans and canvases: truth and image agree."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.atlas import REGIONS
from epvs_cohort.geometry import apply_affine
from epvs_cohort.protocol import GridSettings, Protocol
from epvs_cohort.simulate.anatomy import bundled_anatomy, regions_of
from epvs_cohort.simulate.heads import (
    Acquisition,
    Head,
    Person,
    draw_person,
    draw_person_lesions,
    intracranial_ml,
    scan_person,
    ventricle_ml,
)
from epvs_cohort.simulate.lesions import LesionSpec
from epvs_cohort.simulate.placement import dice
from epvs_cohort.simulate.prepared import Canvas, draw_canvas
from epvs_cohort.simulate.warp import ShapeVariation, draw_warp

ACQUISITION = Acquisition(voxel_mm=(1.4, 1.4, 1.4))


@pytest.fixture(scope="module")
def person() -> Person:
    return draw_person(np.random.default_rng(1), bundled_anatomy(), 0.0)


@pytest.fixture(scope="module")
def lesions(person: Person) -> list[LesionSpec]:
    return draw_person_lesions(np.random.default_rng(2), person, 15)


@pytest.fixture(scope="module")
def head(person: Person, lesions: list[LesionSpec]) -> Head:
    return scan_person(np.random.default_rng(3), person, lesions, ACQUISITION)


@pytest.fixture(scope="module")
def empty(person: Person) -> Head:
    return scan_person(np.random.default_rng(3), person, [], ACQUISITION)


def test_lesions_lie_in_the_basal_ganglia_and_brighten_their_voxels(head: Head, empty: Head) -> None:
    assert len(head.lesions) == 15
    inverse = np.linalg.inv(head.grid.affine)
    for lesion in head.lesions:
        at = tuple(np.rint(apply_affine(inverse, lesion.center_mm)).astype(int))
        near = tuple(slice(v - 1, v + 2) for v in at)
        assert (head.region_labels[near] > 0).any(), "centre outside the basal ganglia"
        gain = head.data[near].astype(int) - empty.data[near]
        assert gain.max() > 0.02 * ACQUISITION.units, "no brighter than the same head without lesions"


def test_without_lesions_only_their_voxels_differ(head: Head, empty: Head) -> None:
    reach = np.zeros(head.grid.shape, dtype=bool)
    voxels = np.moveaxis(np.indices(head.grid.shape), 0, -1)
    for lesion in head.lesions:
        middle = apply_affine(np.linalg.inv(head.grid.affine), lesion.center_mm)
        reach |= np.linalg.norm(voxels - middle, axis=-1) * 1.4 < lesion.length_mm / 2 + 5.0
    assert (head.data != empty.data)[reach].any()
    np.testing.assert_array_equal(head.data[~reach], empty.data[~reach])


def test_truth_mask_holds_every_lesion_at_its_place(head: Head) -> None:
    for number, lesion in enumerate(head.lesions, start=1):
        voxels = np.argwhere(head.lesion_labels == number)
        assert len(voxels) > 0
        middle = apply_affine(head.grid.affine, voxels.mean(axis=0))
        assert np.linalg.norm(middle - lesion.center_mm) < 1.5


def test_slice_of_the_anterior_commissure(head: Head, person: Person) -> None:
    assert head.ac is not None
    assert head.ac.axis == 2
    expected = apply_affine(head.native_from_person, person.ac_mm)
    assert head.ac_mm == pytest.approx(expected)
    height = head.grid.affine[2, 3] + head.ac.index * head.grid.affine[2, 2]
    assert abs(height - expected[2]) <= 0.7 + 1e-6
    for lesion, crossing in zip(head.lesions, head.crossings_mm, strict=True):
        ends = [lesion.center_mm[2] + s * lesion.half_axis_mm * lesion.direction[2] for s in (-1, 1)]
        inside = min(ends) - lesion.radius_mm <= height + 0.7 and max(ends) + lesion.radius_mm >= height - 0.7
        assert (crossing is not None) == inside
        if crossing is not None:
            assert abs(crossing[2] - height) <= 0.7 + 1e-6


def test_lesions_of_the_slice_are_those_whose_mask_meets_it(head: Head) -> None:
    assert head.ac is not None
    in_image = set(np.unique(head.lesion_labels[:, :, head.ac.index])) - {0}
    in_truth = {n for n, crossing in enumerate(head.crossings_mm, start=1) if crossing is not None}
    # The mask leaves out what a lesion only grazes.
    assert in_image <= in_truth
    assert len(in_truth - in_image) <= 4
    assert in_image


def test_true_regions_lie_where_the_person_has_them(head: Head, person: Person) -> None:
    # At 1.4 mm voxels are rendered from two sub-voxels along each axis; half of one is 0.35 mm.
    there = regions_of(person.labels)
    for region in (3, 4):
        own = apply_affine(person.grid.affine, np.argwhere(there == region).mean(axis=0))
        found = apply_affine(head.grid.affine, np.argwhere(head.region_labels == region).mean(axis=0))
        np.testing.assert_allclose(found, apply_affine(head.native_from_person, own), atol=0.1)


def test_tissue_contrast_of_the_image(head: Head) -> None:
    air = head.data[:6, :6, :].mean()
    putamen = np.median(head.data[np.isin(head.region_labels, (3, 4))])
    assert air < 0.15 * ACQUISITION.units
    assert 0.6 * ACQUISITION.units < putamen < 1.6 * ACQUISITION.units
    assert set(np.unique(head.region_labels)) == {0, *REGIONS}
    left = np.argwhere(head.region_labels == 3).mean(axis=0)
    right = np.argwhere(head.region_labels == 4).mean(axis=0)
    assert apply_affine(head.grid.affine, left)[0] < apply_affine(head.grid.affine, right)[0] - 30.0


def test_pose_is_rigid(head: Head) -> None:
    rotation = head.native_from_person[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_growth_widens_the_ventricles_and_leaves_the_skull(person: Person) -> None:
    wide = draw_person(np.random.default_rng(1), bundled_anatomy(), 0.35)
    assert ventricle_ml(wide) > 1.3 * ventricle_ml(person)
    assert intracranial_ml(wide) == pytest.approx(intracranial_ml(person))
    assert 900.0 < intracranial_ml(person) < 2300.0


def test_warp_inverse() -> None:
    anatomy = bundled_anatomy()
    warp = draw_warp(np.random.default_rng(5), anatomy, ShapeVariation(), 0.2)
    points = np.random.default_rng(6).uniform(-40, 40, (50, 3))
    np.testing.assert_allclose(warp(warp.inverse(points)), points, atol=0.01)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    return draw_canvas(bundled_anatomy(), np.random.default_rng(7), Protocol())


def test_canvas_has_the_prepared_grid_and_holds_the_basal_ganglia(canvas: Canvas) -> None:
    assert canvas.image.shape == (168, 128, 84)
    assert canvas.grid.spacing_mm == pytest.approx((0.49, 0.49, 0.8))
    assert np.isfinite(canvas.image).all()
    assert canvas.image.min() >= 0.0
    assert set(np.unique(canvas.regions)) == {0, *REGIONS}
    white = canvas.image[canvas.regions == 0]
    assert 0.7 < np.median(white) < 1.6


def test_canvas_roi_errs_like_an_atlas() -> None:
    found = []
    for seed in range(4):
        drawn = draw_canvas(bundled_anatomy(), np.random.default_rng(seed), Protocol())
        found.append(dice(drawn.regions, drawn.roi))
        assert set(np.unique(drawn.roi)) <= {0, *REGIONS}
    assert 0.6 < np.mean(found) < 0.88
    assert max(found) < 0.97


def test_canvas_placement_lies_in_the_regions(canvas: Canvas) -> None:
    at = np.rint(apply_affine(np.linalg.inv(canvas.grid.affine), canvas.placement.points_mm)).astype(int)
    np.testing.assert_array_equal(canvas.regions[tuple(at.T)], canvas.placement.regions)
    assert canvas.placement.weights.sum() == pytest.approx(1.0)
    putamen = canvas.placement.weights[np.isin(canvas.placement.regions, (3, 4))].sum()
    assert putamen > 0.5
    heights = canvas.placement.points_mm[:, 2] - canvas.ac_mm[2]
    assert abs(float(heights @ canvas.placement.weights)) < 4.0


def test_canvas_follows_its_seed_and_protocol() -> None:
    small = Protocol(grid=GridSettings(shape=(84, 64, 40), spacing_mm=(0.98, 0.98, 1.6)))
    first, second = (draw_canvas(bundled_anatomy(), np.random.default_rng(8), small) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.roi.tobytes() == second.roi.tobytes()
    assert first.image.shape == (84, 64, 40)
    other = draw_canvas(bundled_anatomy(), np.random.default_rng(9), small)
    assert not np.array_equal(first.image, other.image)
