"""Agreement on cases worked out by hand, and against another library."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest

from epvs_cohort.compare.agreement import count_figures, icc_agreement, icc_consistency
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray


def test_a_shift_lowers_agreement_but_not_correlation() -> None:
    truth = np.arange(20.0)
    figures = count_figures(truth, truth + 5.0)
    assert figures.r == pytest.approx(1.0)
    assert figures.rho == pytest.approx(1.0)
    assert figures.bias == pytest.approx(5.0)
    assert figures.slope == pytest.approx(1.0)
    assert figures.icc_consistency == pytest.approx(1.0)
    assert figures.icc < 0.8


def test_errors_by_hand() -> None:
    figures = count_figures([0, 2, 4, 6], [1, 1, 4, 9])
    assert figures.mse == pytest.approx(11 / 4)
    assert figures.mae == pytest.approx(5 / 4)
    assert figures.bias == pytest.approx(3 / 4)
    assert figures.r2 == pytest.approx(1 - (11 / 4) / 5)
    assert figures.slope == pytest.approx(27 / 20)


def test_spearman_ignores_scale_and_shares_ranks_among_ties() -> None:
    truth = np.array([0.0, 1, 2, 3, 4])
    assert count_figures(truth, np.exp(truth)).rho == pytest.approx(1.0)
    tied = count_figures([1, 2, 3, 4], [1, 1, 2, 3])
    # Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4.
    assert tied.rho == pytest.approx(4.5 / np.sqrt(5 * 4.5))


def test_unrelated_counts_do_not_agree() -> None:
    rng = np.random.default_rng(0)
    assert abs(icc_agreement(rng.normal(size=(2000, 2)))) < 0.05


def test_constant_counts_give_zeros_not_nan() -> None:
    figures = count_figures([3, 3, 3], [3, 3, 3])
    assert (figures.icc, figures.r, figures.rho, figures.slope, figures.mae) == (0.0, 0.0, 0.0, 0.0, 0.0)


def test_one_scan_has_no_figures() -> None:
    with pytest.raises(ConfigError, match="1 scans found, at least 2"):
        count_figures([3], [3])


def test_counts_of_other_scans_or_unknown_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3,\) and \(2,\)"):
        count_figures([1, 2, 3], [1, 2])
    with pytest.raises(ConfigError, match="not finite"):
        count_figures([1, 2, 3], [1, 2, np.nan])


@pytest.mark.parametrize("seed", range(6))
def test_iccs_are_those_of_pingouin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(5, 40)), int(rng.integers(2, 5))
    people, raters = rng.normal(0, 3, (n, 1)), rng.normal(0, 1.5, (1, k))
    ratings = 10 + people + raters + rng.normal(0, rng.uniform(0.2, 4), (n, k))
    known = _pingouin(ratings)
    assert icc_agreement(ratings) == pytest.approx(known["ICC(A,1)"], abs=1e-9)
    assert icc_consistency(ratings) == pytest.approx(known["ICC(C,1)"], abs=1e-9)


def _pingouin(ratings: FloatArray) -> dict[str, float]:
    n, k = ratings.shape
    scans, readers = np.meshgrid(range(n), range(k), indexing="ij")
    long = pd.DataFrame({"scan": scans.ravel(), "reader": readers.ravel(), "count": ratings.ravel()})
    table = pingouin.intraclass_corr(long, targets="scan", raters="reader", ratings="count")
    return dict(zip(table["Type"], table["ICC"], strict=True))
