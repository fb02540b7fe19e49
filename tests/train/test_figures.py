"""Agreement and matching on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.errors import ConfigError
from epvs_cohort.train.figures import MatchFigures, count_figures, icc_agreement, match_points


def test_a_shift_lowers_agreement_but_not_correlation() -> None:
    truth = np.arange(20.0)
    figures = count_figures(truth, truth + 5.0)
    assert figures.r == pytest.approx(1.0)
    assert figures.bias == pytest.approx(5.0)
    assert figures.slope == pytest.approx(1.0)
    assert figures.icc < 0.8


def test_unrelated_counts_do_not_agree() -> None:
    rng = np.random.default_rng(0)
    assert abs(icc_agreement(rng.normal(size=(2000, 2)))) < 0.05


def test_constant_counts_give_zeros_not_nan() -> None:
    figures = count_figures([3, 3, 3], [3, 3, 3])
    assert (figures.icc, figures.r, figures.slope, figures.mae) == (0.0, 0.0, 0.0, 0.0)


def test_one_scan_has_no_figures() -> None:
    with pytest.raises(ConfigError, match="1 scans found, at least 2"):
        count_figures([3], [3])


def test_each_lesion_is_matched_once() -> None:
    truth = np.array([[0.0, 0, 0], [4, 0, 0]])
    found = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0]])
    # The greedy choice of the nearest would leave the second true lesion alone.
    assert match_points(truth, found) == 2
    assert match_points(truth, found[:0]) == 0


def test_three_voxels_are_within_three_voxels() -> None:
    assert match_points(np.zeros((1, 3)), np.array([[3.0, 0, 0]])) == 1
    assert match_points(np.zeros((1, 3)), np.array([[2.0, 2.0, 1.1]])) == 0


def test_rates() -> None:
    figures = MatchFigures(true=10, found=8, matched=6)
    assert figures.sensitivity == pytest.approx(0.6)
    assert figures.false_discovery_rate == pytest.approx(0.25)
    assert figures.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert MatchFigures(0, 0, 0).f1 == 0.0
