from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from epvs_cohort.detect.forest import ComponentCounts
from epvs_cohort.detect.threshold import Settled, choose_threshold, rounded_count, settle_threshold
from epvs_cohort.errors import PredictionError


def by_definition(heat: np.ndarray, mask: np.ndarray, n_lesions: int, touching: np.ndarray) -> Settled:
    """Walk down until n is reached or passed: the first with n components, else the first of the nearest number."""
    if n_lesions == 0:
        return Settled(None, "none", 0)
    best: tuple[float, int] | None = None
    for threshold in sorted(set(heat[mask].tolist()), reverse=True):
        labels, _ = ndimage.label(mask & (heat >= threshold), np.ones((3, 3, 3)))
        count = int(np.count_nonzero(np.unique(labels[touching])))
        if best is None or abs(count - n_lesions) < abs(best[1] - n_lesions):
            best = (threshold, count)
        if count >= n_lesions:
            break
    assert best is not None
    return Settled(best[0], "exact" if best[1] == n_lesions else "nearest", best[1])


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float32, (4, 5, 6), elements=st.integers(0, 30).map(float), fill=st.nothing()),
    hnp.arrays(np.bool_, (4, 5, 6), elements=st.booleans(), fill=st.nothing()),
    st.integers(0, 12),
    st.integers(-1, 5),
)
def test_threshold_is_the_one_of_the_definition(
    heat: np.ndarray, holes: np.ndarray, n_lesions: int, plane: int
) -> None:
    mask = holes | (heat > 20)
    if not mask.any():
        return
    touching = np.ones(mask.shape, dtype=bool)
    if plane >= 0:
        touching[:, :, np.arange(6) != plane] = False
    found = settle_threshold(heat[mask], mask, n_lesions, touching=touching if plane >= 0 else None)
    assert found == by_definition(heat, mask, n_lesions, touching)


def test_ties_of_the_nearest_number_go_to_the_higher_threshold() -> None:
    counts = ComponentCounts(np.array([5, 4, 3, 2], dtype=np.float32), np.array([2, 4, 2, 4]))
    assert choose_threshold(counts, 3) == Settled(5.0, "nearest", 2)
    assert choose_threshold(counts, 4) == Settled(4.0, "exact", 4)
    assert choose_threshold(counts, 2) == Settled(5.0, "exact", 2)
    assert choose_threshold(counts, 9) == Settled(4.0, "nearest", 4)


def test_a_number_met_again_far_below_a_jump_is_not_taken() -> None:
    # Two bright peaks, then three equal ones at once, then tissue that runs together into three pieces.
    counts = ComponentCounts(np.array([9, 8, 5, 2, 1], dtype=np.float32), np.array([1, 2, 5, 3, 1]))
    assert choose_threshold(counts, 3) == Settled(8.0, "nearest", 2)
    assert choose_threshold(counts, 4) == Settled(5.0, "nearest", 5)


def test_many_lesions_are_found_below_the_first_part_of_the_mask() -> None:
    # 27 peaks of very different height: the last of them are far from the hottest eighth.
    heat = np.zeros((9, 9, 9), dtype=np.float32)
    heat[:4] = 50.0
    peaks = 100.0 - 3.0 * np.arange(27).reshape(3, 3, 3)
    heat[1::3, 1::3, 1::3] = peaks
    mask = np.ones(heat.shape, dtype=bool)
    found = settle_threshold(heat[mask], mask, 12)
    assert found == by_definition(heat, mask, 12, mask)
    assert found.how == "exact"


@pytest.mark.parametrize(("count", "n"), [(-2.0, 0), (0.4999, 0), (0.5, 1), (1.5, 2), (2.5, 3), (7.2, 7)])
def test_counts_are_rounded_half_up_and_never_negative(count: float, n: int) -> None:
    assert rounded_count(count) == n


@pytest.mark.parametrize("count", [float("nan"), float("inf")])
def test_a_count_that_is_no_number_is_an_error(count: float) -> None:
    with pytest.raises(PredictionError, match="not a finite number"):
        rounded_count(count)


def test_no_lesion_needs_no_threshold() -> None:
    assert settle_threshold(np.ones(8, np.float32), np.ones((2, 2, 2), bool), 0) == Settled(None, "none", 0)


def test_an_empty_mask_cannot_hold_lesions() -> None:
    with pytest.raises(PredictionError, match="no voxel in the mask"):
        settle_threshold(np.empty(0, np.float32), np.zeros((2, 2, 2), bool), 3)
