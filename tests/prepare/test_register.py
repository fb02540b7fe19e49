"""Rigid registration: the bundled template, posed, comes back to where it was."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.data.atlas import Atlas, load_atlas
from epvs_cohort.errors import RegistrationError
from epvs_cohort.geometry import FloatArray, apply_affine, centered_grid, rigid_about
from epvs_cohort.prepare.elastix import linear_ras
from epvs_cohort.prepare.register import SURE_SIMILARITY, best_pose, pair_of, register_rigid, rigid_part
from epvs_cohort.prepare.similarity import similarity
from epvs_cohort.prepare.starts import find_starts
from epvs_cohort.protocol import RegistrationSettings
from epvs_cohort.records import Image


def roi_points(atlas: Atlas) -> FloatArray:
    return apply_affine(atlas.grid.affine, np.argwhere(atlas.labels > 0)[::37])


def posed_template(pose: FloatArray, spacing_mm: tuple[float, float, float]) -> Image:
    """Brain of the template moved by ``pose`` (MNI mm to native mm), with noise, on its own lattice."""
    atlas = load_atlas()
    extent = 230.0
    shape = tuple(round(extent / s) for s in spacing_mm)
    grid = centered_grid((shape[0], shape[1], shape[2]), spacing_mm, apply_affine(pose, [0.0, -18.0, 8.0]))
    back = np.linalg.inv(atlas.grid.affine) @ np.linalg.inv(pose) @ grid.affine
    data = ndimage.affine_transform(atlas.template, back[:3, :3], back[:3, 3], output_shape=shape, order=1)
    noise = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    return Image(np.abs(300 * data + 15 * noise).astype(np.float32), grid.affine)


@pytest.mark.parametrize(
    ("angles_deg", "shift_mm", "spacing_mm"),
    [
        ((25.0, 10.0, -12.0), (30.0, -20.0, 15.0), (1.5, 1.5, 1.5)),
        ((-20.0, 0.0, 22.0), (-5.0, 35.0, -15.0), (1.0, 1.0, 4.0)),
    ],
)
def test_pose_is_found_within_a_millimetre(
    angles_deg: tuple[float, float, float],
    shift_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
) -> None:
    atlas = load_atlas()
    pose = rigid_about((0.0, -18.0, 8.0), np.radians(angles_deg), shift_mm)
    rigid = register_rigid(posed_template(pose, spacing_mm), RegistrationSettings(), atlas)
    points = roi_points(atlas)
    error = np.linalg.norm(apply_affine(rigid.rigid_from_native @ pose, points) - points, axis=1)
    assert error.max() < 1.0
    turned = rigid.rigid_from_native[:3, :3]
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-9)
    measures = {q.measure: q.value for q in rigid.quality}
    assert measures["similarity_rigid"] is not None
    assert measures["similarity_rigid"] > 0.5


def test_a_pose_that_is_nearly_known_is_settled() -> None:
    atlas = load_atlas()
    pose = rigid_about((0.0, -18.0, 8.0), np.radians((32.0, 5.0, -15.0)), (40.0, -30.0, 25.0))
    near = pose @ rigid_about((0.0, 2.0, 2.0), np.radians((3.0, -2.0, 2.0)), (2.5, -2.0, 2.0))
    image = posed_template(pose, (1.5, 1.5, 1.5))
    rigid = register_rigid(image, RegistrationSettings(), atlas, near)
    points = roi_points(atlas)
    error = np.linalg.norm(apply_affine(rigid.rigid_from_native @ pose, points) - points, axis=1)
    assert error.max() < 0.5
    before, after = rigid.quality[0].value, rigid.quality[1].value
    assert before is not None
    assert after is not None
    assert after > before


def test_same_scan_gives_the_same_pose_whatever_ran_between() -> None:
    atlas = load_atlas()
    first = posed_template(rigid_about((0, 0, 0), (0.1, 0.0, 0.1), (5, 0, 0)), (2.0, 2.0, 2.0))
    other = posed_template(rigid_about((0, 0, 0), (-0.2, 0.1, 0.0), (0, 9, 0)), (2.0, 2.0, 2.0))
    settings = RegistrationSettings()
    before = register_rigid(first, settings, atlas).rigid_from_native
    register_rigid(other, settings, atlas)
    assert np.array_equal(before, register_rigid(first, settings, atlas).rigid_from_native)


def test_start_of_a_turned_head_lies_near() -> None:
    atlas = load_atlas()
    pose = rigid_about((0.0, -18.0, 8.0), np.radians((40.0, 0.0, 20.0)), (0.0, 0.0, 60.0))
    start = find_starts(posed_template(pose, (2.0, 2.0, 2.0)), atlas)[0]
    points = roi_points(atlas)
    found = apply_affine(start.native_from_mni, points)
    assert np.linalg.norm(found - apply_affine(pose, points), axis=1).max() < 12.0


def test_a_start_that_leads_nowhere_gives_way_to_the_next() -> None:
    atlas, settings = load_atlas(), RegistrationSettings()
    pose = rigid_about((0.0, -18.0, 8.0), np.radians((10.0, 0.0, 5.0)), (6.0, 0.0, -4.0))
    image = posed_template(pose, (2.0, 2.0, 2.0))
    right = find_starts(image, atlas)[0]
    turn = rigid_about((0.0, -18.0, 8.0), np.radians((0.0, 0.0, 75.0)), (0.0, 0.0, 0.0))
    wrong = replace(
        right,
        native_from_mni=right.native_from_mni @ turn,
        native_from_sized=right.native_from_sized @ turn,
    )
    pair = pair_of(image, settings, atlas)
    lost = best_pose((wrong,), pair, image, atlas)[1]
    assert similarity(image, atlas, partial(apply_affine, lost)) < SURE_SIMILARITY
    start, found = best_pose((wrong, right), pair, image, atlas)
    assert start is right
    points = roi_points(atlas)
    assert np.linalg.norm(apply_affine(found, points) - apply_affine(pose, points), axis=1).max() < 2.0
    assert best_pose((right, wrong), pair, image, atlas)[0] is right


def test_scan_without_contrast_is_refused() -> None:
    flat = Image(np.full((40, 40, 40), 7.0, dtype=np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    with pytest.raises(RegistrationError, match="no contrast"):
        register_rigid(flat, RegistrationSettings(), load_atlas())


def test_rigid_part_keeps_rotation_and_the_middle() -> None:
    pose = rigid_about((0, 0, 0), (0.3, -0.2, 0.1), (4.0, 5.0, 6.0))
    sized = pose.copy()
    sized[:3, :3] *= 0.9
    rigid = rigid_part(sized)
    np.testing.assert_allclose(rigid[:3, :3], pose[:3, :3], atol=1e-12)
    np.testing.assert_allclose(
        apply_affine(rigid, [0.0, 2.0, 2.0]), apply_affine(sized, [0.0, 2.0, 2.0]), atol=1e-9
    )


def test_elastix_similarity_is_read_in_ras() -> None:
    half = np.radians(90.0) / 2
    turn = {
        "Transform": ["SimilarityTransform"],
        "TransformParameters": ["0", "0", str(np.sin(half)), "1", "2", "3", "0.5"],
        "CenterOfRotationPoint": ["0", "0", "0"],
    }
    # LPS (x, y, z) -> 0.5 (-y, x, z) + (1, 2, 3); the same quarter turn about z in RAS, shift (-1, -2, 3).
    np.testing.assert_allclose(apply_affine(linear_ras(turn), [2.0, 0.0, 4.0]), [-1.0, -1.0, 5.0], atol=1e-12)
