"""Weighted agreement: the worked example, another library, hand-made cases, and weights that mean repetitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pingouin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from epvs_cohort.compare.agreement import count_figures
from epvs_cohort.compare.weighted import icc_figures, pair_figures
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: Shrout and Fleiss (1979), Table 2: six targets, four judges.
JUDGED = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=np.float64
)
FORMS = {"icc_a1": "ICC(A,1)", "icc_c1": "ICC(C,1)", "icc_ak": "ICC(A,k)", "icc_ck": "ICC(C,k)"}


def once(figures: object, n: int) -> dict[str, float]:
    assert callable(figures)
    return {name: float(value[0]) for name, value in figures(np.ones((1, n))).items()}


def test_the_worked_example_of_shrout_and_fleiss() -> None:
    found = once(icc_figures(JUDGED), 6)
    # Their Table 4: ICC(2,1) 0.29, ICC(3,1) 0.71, ICC(2,4) 0.62, ICC(3,4) 0.91.
    assert {name: round(value, 2) for name, value in found.items()} == {
        "icc_a1": 0.29, "icc_c1": 0.71, "icc_ak": 0.62, "icc_ck": 0.91,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_all_four_iccs_are_those_of_pingouin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(5, 40)), int(rng.integers(2, 5))
    ratings = 10 + rng.normal(0, 3, (n, 1)) + rng.normal(0, 1.5, (1, k)) + rng.normal(0, 2, (n, k))
    scans, readers = np.meshgrid(range(n), range(k), indexing="ij")
    long = pd.DataFrame({"scan": scans.ravel(), "reader": readers.ravel(), "count": ratings.ravel()})
    table = pingouin.intraclass_corr(long, targets="scan", raters="reader", ratings="count")
    known = dict(zip(table["Type"], table["ICC"], strict=True))
    found = once(icc_figures(ratings), n)
    for name, form in FORMS.items():
        assert found[name] == pytest.approx(known[form], abs=1e-9)


def test_differences_and_limits_by_hand() -> None:
    found = once(pair_figures(np.array([1.0, 1, 4, 9]), np.array([0.0, 2, 4, 6]), second_is_truth=True), 4)
    # Differences 1, -1, 0, 3: mean 3/4, sum of squares about it 11 - 9/4.
    sd = np.sqrt((11 - 9 / 4) / 3)
    assert found["bias"] == pytest.approx(3 / 4)
    assert found["mse"] == pytest.approx(11 / 4)
    assert found["mae"] == pytest.approx(5 / 4)
    assert found["sd_difference"] == pytest.approx(sd)
    assert found["loa_low"] == pytest.approx(3 / 4 - 1.96 * sd)
    assert found["loa_high"] == pytest.approx(3 / 4 + 1.96 * sd)
    assert found["r2"] == pytest.approx(1 - (11 / 4) / 5)
    assert found["slope"] == pytest.approx(27 / 20)
    # Means 1/2, 3/2, 4, 15/2 about 27/8.
    means = np.array([0.5, 1.5, 4, 7.5])
    assert found["slope_difference"] == pytest.approx(np.polyfit(means, [1, -1, 0, 3], 1)[0])


COUNTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=12)


@settings(max_examples=40, deadline=None)
@given(pairs=COUNTS, data=st.data())
def test_a_weight_is_a_repetition(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    first, second = np.array(pairs, dtype=np.float64).T
    drawn = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=2, max_size=15))
    weights = np.bincount(drawn, minlength=len(pairs)).astype(np.float64)[None]
    figures = pair_figures(first, second, second_is_truth=True)(weights)
    found = {name: float(value[0]) for name, value in figures.items()}
    a, b = first[drawn], second[drawn]
    known = count_figures(b, a)
    same = {
        "icc_a1": known.icc, "icc_c1": known.icc_consistency, "pearson": known.r, "spearman": known.rho,
        "r2": known.r2, "slope": known.slope,
    }  # fmt: skip
    for name, value in same.items():
        # Where the counts do not define it, the one is not a number and the other 0.
        assert found[name] == pytest.approx(value, abs=1e-7) or (np.isnan(found[name]) and value == 0.0)
    assert found["mse"] == pytest.approx(known.mse)
    assert found["mae"] == pytest.approx(known.mae)
    assert found["bias"] == pytest.approx(known.bias)
    assert found["sd_difference"] == pytest.approx(np.std(a - b, ddof=1), abs=1e-7)


def test_spearman_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 50).astype(float)
    found = once(pair_figures(first, second, second_is_truth=False), 50)
    assert found["spearman"] == pytest.approx(float(stats.spearmanr(first, second).statistic))


@pytest.mark.parametrize(
    "name", ["icc_a1", "icc_c1", "icc_ak", "icc_ck", "pearson", "spearman", "r2", "slope"]
)
def test_what_constant_counts_do_not_define_is_not_a_number(name: str) -> None:
    same = np.full(5, 3.1)
    assert np.isnan(once(pair_figures(same, same, second_is_truth=True), 5)[name])


def test_one_scan_has_errors_and_no_agreement() -> None:
    found = once(pair_figures(np.array([3.0]), np.array([1.0]), second_is_truth=True), 1)
    assert (found["bias"], found["mae"], found["mse"]) == (2.0, 2.0, 4.0)
    assert np.isnan([found["icc_a1"], found["sd_difference"], found["loa_low"], found["r2"]]).all()


def test_perfect_agreement_and_a_constant_shift() -> None:
    counts: FloatArray = np.arange(6.0)
    perfect = once(pair_figures(counts, counts, second_is_truth=True), 6)
    assert perfect["icc_a1"] == pytest.approx(1.0)
    assert perfect["sd_difference"] == 0.0
    shifted = once(pair_figures(counts + 2, counts, second_is_truth=True), 6)
    assert shifted["icc_c1"] == pytest.approx(1.0)
    # By hand: MSR 7, MSC 12, MSE 0: 7 / (7 + 2 * 12 / 6).
    assert shifted["icc_a1"] == pytest.approx(7 / 11)
    assert shifted["icc_ak"] == pytest.approx(7 / 9)


def test_other_shapes_and_unknown_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(3, 1\)"):
        icc_figures(np.ones((3, 1)))
    with pytest.raises(ConfigError, match="not finite"):
        pair_figures(np.array([1.0, np.nan]), np.ones(2), second_is_truth=True)
