"""Soft mask: true millimetres, smooth border, labels, field of view, the border of the box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from epvs_cohort.prepare.mask import dilate_mm, soft_mask
from epvs_cohort.protocol import RoiSettings
from epvs_cohort.records import LABEL_NO_REGION

SPACING = (0.49, 0.49, 0.8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.0, 5.0))
def test_dilation_equals_the_distance_transform(seed: int, radius: float) -> None:
    roi = np.random.default_rng(seed).random((14, 12, 10)) > 0.995
    roi[7, 6, 5] = True
    expected = ndimage.distance_transform_edt(~roi, sampling=SPACING) <= radius + 1e-5
    np.testing.assert_array_equal(dilate_mm(roi, SPACING, radius), expected)


def _ball() -> np.ndarray:
    at = np.stack(np.meshgrid(*[np.arange(n) for n in (60, 60, 40)], indexing="ij"), axis=-1)
    distance = np.linalg.norm((at - np.array([30, 30, 20])) * SPACING, axis=-1)
    return np.where(distance < 6.0, np.where(at[..., 0] < 30, 3, 4), 0).astype(np.uint8)


def test_mask_is_the_ball_grown_by_the_radius() -> None:
    labels = _ball()
    mask = soft_mask(
        labels, SPACING, RoiSettings(dilate_mm=2.0, smooth_sigma_voxels=0.5), np.ones(labels.shape, bool)
    )
    volume = float((mask.labels > 0).sum()) * np.prod(SPACING)
    assert volume == pytest.approx(4.0 / 3.0 * np.pi * 8.0**3, rel=0.06)
    assert mask.weight.dtype == np.float32
    assert mask.weight[30, 30, 20] == pytest.approx(1.0, abs=1e-3)
    assert mask.weight[0, 0, 0] == 0.0


def test_labels_hold_the_region_inside_and_255_in_the_rim() -> None:
    labels = _ball()
    mask = soft_mask(labels, SPACING, RoiSettings(), np.ones(labels.shape, bool))
    np.testing.assert_array_equal(mask.labels[labels > 0], labels[labels > 0])
    rim = (mask.labels > 0) & (labels == 0)
    assert rim.any()
    assert np.all(mask.labels[rim] == LABEL_NO_REGION)
    np.testing.assert_array_equal(mask.labels > 0, mask.weight > 0.5)


def test_what_may_belong_to_the_region_widens_the_mask_and_is_in_no_region() -> None:
    labels, everywhere = _ball(), np.ones((60, 60, 40), bool)
    reach = labels > 0
    reach[30, 28:53, 18:23] = True
    plain = soft_mask(labels, SPACING, RoiSettings(), everywhere)
    wide = soft_mask(labels, SPACING, RoiSettings(), everywhere, reach)
    assert plain.labels[30, 51, 20] == 0
    assert wide.labels[30, 51, 20] == LABEL_NO_REGION
    np.testing.assert_array_equal(wide.region, plain.region)
    assert not (wide.weight < plain.weight - 1e-6).any()


def test_outside_the_field_of_view_is_never_mask() -> None:
    labels = _ball()
    inside = np.ones(labels.shape, bool)
    inside[:, :, :20] = False
    mask = soft_mask(labels, SPACING, RoiSettings(), inside)
    assert not mask.weight[~inside].any()
    assert not mask.labels[~inside].any()
    assert mask.labels[30, 30, 20] == 4


def test_region_that_runs_out_of_the_box_keeps_its_weight_at_the_border() -> None:
    labels = np.zeros((40, 40, 30), dtype=np.uint8)
    labels[:, 10:30, 8:22] = 1
    mask = soft_mask(labels, SPACING, RoiSettings(), np.ones(labels.shape, bool))
    assert mask.weight[0, 20, 15] == pytest.approx(1.0, abs=1e-3)


def test_nothing_outlined_gives_an_empty_mask() -> None:
    labels = np.zeros((8, 8, 8), dtype=np.uint8)
    mask = soft_mask(labels, SPACING, RoiSettings(), np.ones(labels.shape, bool))
    assert not mask.weight.any()
    assert not mask.labels.any()


def test_no_dilation_and_no_smoothing_leave_the_outline() -> None:
    labels = _ball()
    plain = RoiSettings(dilate_mm=0.0, smooth_sigma_voxels=0.0)
    mask = soft_mask(labels, SPACING, plain, np.ones(labels.shape, bool))
    np.testing.assert_array_equal(mask.labels, labels)
