"""One-to-one matching by hand and against brute force, and the rates made of it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvs_cohort.compare.matching import (
    MatchFigures,
    match_lesions,
    match_points,
    pool_matches,
    summarize_matches,
)
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

_COORDINATE = st.integers(0, 16).map(lambda n: n / 2)
_POINTS = st.lists(st.tuples(_COORDINATE, _COORDINATE, _COORDINATE), max_size=5).map(
    lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 3)
)


def test_each_lesion_is_matched_once() -> None:
    truth = np.array([[0.0, 0, 0], [4, 0, 0]])
    found = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0]])
    # The greedy choice of the nearest would leave the second true lesion alone.
    assert match_points(truth, found) == 2
    assert match_points(truth, found[:0]) == 0


def test_of_equally_many_pairs_the_nearest_are_taken() -> None:
    truth = np.array([[0.0, 0, 0]])
    found = np.array([[2.5, 0, 0], [0, 0, 1]])
    pairs = match_lesions(truth, found)
    assert (pairs.true.tolist(), pairs.found.tolist(), pairs.distance.tolist()) == ([0], [1], [1.0])


def test_more_pairs_come_before_nearer_pairs() -> None:
    truth = np.array([[0.0, 0, 0], [3, 0, 0]])
    found = np.array([[0.1, 0, 0], [-2.9, 0, 0]])
    # 0.1 is the nearest pair, but then -2.9 is out of reach of the other: two pairs of 2.9 are more.
    assert match_lesions(truth, found).distance == pytest.approx([2.9, 2.9])


def test_three_voxels_are_within_three_voxels() -> None:
    assert match_points(np.zeros((1, 3)), np.array([[3.0, 0, 0]])) == 1
    assert match_points(np.zeros((1, 3)), np.array([[2.0, 2.0, 1.1]])) == 0


def test_unknown_coordinates_are_refused() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        match_lesions(np.array([[np.nan, 0, 0]]), np.zeros((1, 3)))


@given(truth=_POINTS, found=_POINTS, radius=st.sampled_from([0.0, 1.0, 2.5, 3.0, 20.0]))
def test_matching_is_that_of_brute_force(truth: FloatArray, found: FloatArray, radius: float) -> None:
    pairs = match_lesions(truth, found, radius)
    most, least = _brute_force(truth, found, radius)
    assert len(pairs.true) == len(set(pairs.true.tolist())) == len(set(pairs.found.tolist())) == most
    assert pairs.distance.sum() == pytest.approx(least)
    assert (pairs.distance <= radius).all()


def _brute_force(truth: FloatArray, found: FloatArray, radius: float) -> tuple[int, float]:
    """Most pairs and their least total distance over every one-to-one assignment."""
    few, many = (truth, found) if len(truth) <= len(found) else (found, truth)
    best = (0, 0.0)
    for chosen in permutations(range(len(many)), len(few)):
        distance = np.linalg.norm(few - many[list(chosen)], axis=1)
        near = distance[distance <= radius]
        if (-len(near), float(near.sum())) < (-best[0], best[1]):
            best = (len(near), float(near.sum()))
    return best


def test_rates() -> None:
    figures = MatchFigures(true=10, found=8, matched=6)
    assert figures.sensitivity == pytest.approx(0.6)
    assert figures.false_discovery_rate == pytest.approx(0.25)
    assert figures.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert MatchFigures(0, 0, 0).f1 == 0.0


def test_scans_without_lesions_are_left_out_of_mean_sensitivity_and_counted() -> None:
    scans = [MatchFigures(10, 10, 5), MatchFigures(2, 0, 0), MatchFigures(0, 3, 0), MatchFigures(0, 0, 0)]
    summary = summarize_matches(scans)
    assert summary.pooled == pool_matches(scans) == MatchFigures(12, 13, 5)
    assert (summary.scans, summary.without_lesions, summary.without_marks) == (4, 2, 2)
    assert summary.mean_sensitivity == pytest.approx((0.5 + 0.0) / 2)
    assert summary.mean_false_discovery_rate == pytest.approx((0.5 + 1.0) / 2)
    assert summary.false_positives_per_scan == pytest.approx(8 / 4)


def test_no_lesion_anywhere_has_no_mean_sensitivity() -> None:
    assert summarize_matches([MatchFigures(0, 1, 0)]).mean_sensitivity is None
    with pytest.raises(ConfigError, match="no scan"):
        summarize_matches([])
