"""Fused resampling: analytic values, field of view, orientation, equality with the prefilter of the whole."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.geometry import apply_affine, centered_grid, rigid_about
from epvs_cohort.prepare.resample import field_of_view, resample_cubic, sample_linear


@pytest.fixture
def head() -> tuple[np.ndarray, np.ndarray]:
    """Three smooth blobs in an oblique native frame, and its affine."""
    shape = (60, 56, 40)
    affine = rigid_about((0, 0, 0), (0.1, -0.2, 0.15), (3.0, -4.0, 2.0)) @ np.diag([0.9, 0.8, 1.2, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ (np.array(shape) / 2.0)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    data = np.zeros(shape)
    for center in ((0, 0, 0), (8, 5, -3), (-6, 4, 6)):
        distance = np.linalg.norm(apply_affine(affine, at) - np.array(center), axis=-1)
        data += 100.0 * np.exp(-0.5 * (distance / 2.0) ** 2)
    return data.astype(np.float32), affine


def test_blobs_land_where_they_are(head: tuple[np.ndarray, np.ndarray]) -> None:
    data, affine = head
    grid = centered_grid((49, 49, 33), (0.5, 0.5, 0.75), (0, 0, 0))
    out = resample_cubic(data, np.linalg.inv(affine) @ grid.affine, grid.shape)
    assert out.dtype == np.float32
    for center in ((0, 0, 0), (8, 5, -3), (-6, 4, 6)):
        voxel = np.rint(apply_affine(np.linalg.inv(grid.affine), center)).astype(int)
        around = tuple(slice(v - 3, v + 4) for v in voxel)
        top = np.array(np.unravel_index(np.argmax(out[around]), (7, 7, 7))) - 3
        assert np.all(top == 0)
        assert out[tuple(voxel)] == pytest.approx(100.0, rel=0.03)


def test_sub_box_equals_the_whole(head: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(3)
    data = rng.uniform(0.0, 1.0, (70, 70, 70)).astype(np.float32)
    grid = centered_grid((9, 9, 9), (0.7, 0.7, 0.7), (35.2, 34.9, 35.4))
    out = resample_cubic(data, grid.affine, grid.shape)
    points = apply_affine(grid.affine, np.argwhere(np.ones(grid.shape)))
    whole = ndimage.map_coordinates(data.astype(np.float64), points.T, order=3, mode="mirror")
    assert np.abs(out.ravel() - whole).max() < 1e-4


def test_outside_the_field_of_view_is_zero_and_known() -> None:
    data = np.full((10, 12, 14), 7.0, dtype=np.float32)
    grid = centered_grid((30, 12, 14), (1.0, 1.0, 1.0), (4.5, 5.5, 6.5))
    inside = field_of_view((10, 12, 14), grid.affine, grid.shape)
    out = resample_cubic(data, grid.affine, grid.shape)
    assert inside.sum() == 10 * 12 * 14
    assert np.all(out[~inside] == 0.0)
    np.testing.assert_allclose(out[inside], 7.0, rtol=1e-5)


def test_grid_beside_the_scan_is_empty() -> None:
    data = np.ones((8, 8, 8), dtype=np.int16)
    grid = centered_grid((8, 8, 8), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0))
    assert not resample_cubic(data, grid.affine, grid.shape).any()


def test_only_wanted_voxels_are_computed(head: tuple[np.ndarray, np.ndarray]) -> None:
    data, affine = head
    grid = centered_grid((24, 24, 16), (0.5, 0.5, 0.75), (0, 0, 0))
    voxel_from_grid = np.linalg.inv(affine) @ grid.affine
    where = np.zeros(grid.shape, dtype=bool)
    where[8:14, 9:15, 4:9] = True
    part = resample_cubic(data, voxel_from_grid, grid.shape, where)
    whole = resample_cubic(data, voxel_from_grid, grid.shape)
    assert np.all(part[~where] == 0.0)
    np.testing.assert_allclose(part[where], whole[where], atol=2e-3)


@pytest.mark.parametrize("codes", ["LPS", "SAR", "ILA", "PRI"])
def test_reoriented_array_gives_the_same_voxels(head: tuple[np.ndarray, np.ndarray], codes: str) -> None:
    data, affine = head
    image = nib.Nifti1Image(data, affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    grid = centered_grid((40, 40, 30), (0.5, 0.5, 0.8), (1.0, 1.0, 1.0))
    a = resample_cubic(data, np.linalg.inv(affine) @ grid.affine, grid.shape)
    b = resample_cubic(np.asarray(turned.dataobj), np.linalg.inv(turned.affine) @ grid.affine, grid.shape)
    assert a.max() > 90.0
    np.testing.assert_allclose(a, b, atol=1e-2)


def test_linear_sampling_reproduces_a_ramp() -> None:
    data = np.arange(20, dtype=np.int16)[:, None, None] * np.ones((1, 10, 10), dtype=np.int16)
    grid = centered_grid((8, 4, 4), (1.0, 1.0, 1.0), (9.25, 4.5, 4.5))
    out = sample_linear(data, grid.affine, grid.shape)
    np.testing.assert_allclose(out[:, 0, 0], 5.75 + np.arange(8), rtol=1e-6)
