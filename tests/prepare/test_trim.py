"""Trim: the quantile over each sample, headroom, saturation, what cannot be scaled."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.errors import UnsuitableImageError
from epvs_cohort.prepare.mask import SoftMask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import TrimSettings
from epvs_cohort.records import LABEL_NO_REGION


@pytest.fixture
def crop() -> tuple[np.ndarray, SoftMask]:
    """A column of 1000 voxels with values 1..1000: the first 200 are region, the next 100 rim, the rest nothing."""
    values = np.arange(1, 1001, dtype=np.float32).reshape(10, 10, 10)
    flat = np.zeros(1000, dtype=np.uint8)
    flat[:200], flat[200:300] = 1, LABEL_NO_REGION
    labels = flat.reshape(10, 10, 10)
    return values, SoftMask((labels > 0).astype(np.float32), labels)


@pytest.mark.parametrize(("over", "expected"), [("crop", 290.0), ("mask", 297.0), ("roi", 198.0)])
def test_clip_value_is_the_quantile_over_the_sample(
    crop: tuple[np.ndarray, SoftMask], over: str, expected: float
) -> None:
    settings = TrimSettings.model_validate({"over": over, "fraction": 0.01, "headroom": 1.0})
    assert trim(*crop, settings).clip_value == expected


def test_headroom_multiplies(crop: tuple[np.ndarray, SoftMask]) -> None:
    done = trim(*crop, TrimSettings(over="roi", fraction=0.01, headroom=1.25))
    assert done.clip_value == pytest.approx(247.5)
    assert done.saturated_share == pytest.approx(53 / 300)


def test_intensities_lie_between_zero_and_one(crop: tuple[np.ndarray, SoftMask]) -> None:
    values, mask = crop
    done = trim(values - np.float32(50.0), mask, TrimSettings(over="roi", fraction=0.01, headroom=1.0))
    flat = done.intensities.ravel()
    assert done.intensities.dtype == np.float32
    assert flat.min() == 0.0
    assert flat.max() == 1.0
    assert flat[100] == pytest.approx(51.0 / 148.0)
    assert np.all(flat[300:] == 0.0)


def test_scaling_the_scan_changes_nothing(crop: tuple[np.ndarray, SoftMask]) -> None:
    values, mask = crop
    a = trim(values, mask, TrimSettings())
    b = trim(values * np.float32(37.5), mask, TrimSettings())
    np.testing.assert_allclose(a.intensities, b.intensities, atol=1e-6)


def test_mask_without_named_regions_is_its_own_sample(crop: tuple[np.ndarray, SoftMask]) -> None:
    values, mask = crop
    nameless = SoftMask(mask.weight, np.where(mask.labels > 0, LABEL_NO_REGION, 0).astype(np.uint8))
    assert trim(values, nameless, TrimSettings(over="roi", fraction=0.01, headroom=1.0)).clip_value == 297.0


def test_no_positive_signal_is_an_error(crop: tuple[np.ndarray, SoftMask]) -> None:
    values, mask = crop
    with pytest.raises(UnsuitableImageError, match="must be above 0"):
        trim(-values, mask, TrimSettings())
