"""Scans made coarser: each voxel is the mean of its block, whatever the order of the voxels in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from epvs_cohort.data.blocks import shrink
from epvs_cohort.geometry import apply_affine

SHAPE, SPACING = (13, 12, 9), (0.5, 0.7, 1.0)


def _scan() -> npt.NDArray[np.int16]:
    return np.random.default_rng(4).integers(-300, 4000, SHAPE).astype(np.int16)


def _stored(data: npt.NDArray[np.generic], way: str) -> npt.NDArray[np.generic]:
    if way == "flipped":
        return np.array(data[::-1, :, ::-1])[::-1, :, ::-1]
    return np.asfortranarray(data) if way == "first axis first" else np.ascontiguousarray(data)


@pytest.mark.parametrize("way", ["last axis first", "first axis first", "flipped"])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_voxels_are_means_of_blocks(way: str, dtype: str) -> None:
    data = np.abs(_scan()).astype(dtype)
    stored = _stored(data, way)
    coarse, affine = shrink(stored, np.diag([*SPACING, 1.0]), 2.0)
    whole = data[:12, :12, :8].astype(np.float64)
    expected = whole.reshape(3, 4, 4, 3, 4, 2).mean(axis=(1, 3, 5))
    assert coarse.dtype == np.float32
    np.testing.assert_allclose(coarse, expected, rtol=1e-6)
    np.testing.assert_allclose(apply_affine(affine, [0, 0, 0]), [0.75, 0.7, 0.5])


def test_no_axis_is_made_finer_and_nothing_happens_at_zero() -> None:
    data = _scan()
    coarse, affine = shrink(data, np.diag([*SPACING, 1.0]), 0.0)
    np.testing.assert_array_equal(coarse, data)
    np.testing.assert_array_equal(affine, np.diag([*SPACING, 1.0]))
    assert not np.shares_memory(shrink(data, np.eye(4), 2.0)[0], data)


def test_a_voxel_that_is_not_finite_stays_seen() -> None:
    data = _scan().astype(np.float32)
    data[5, 5, 5] = np.nan
    coarse, _ = shrink(data, np.eye(4), 2.0)
    assert np.argwhere(np.isnan(coarse)).tolist() == [[2, 2, 2]]
