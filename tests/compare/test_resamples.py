"""Many figures at once: the same intervals as one at a time, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.compare.bootstrap import bootstrap
from epvs_cohort.compare.resamples import Drawing, estimates, weights_of
from epvs_cohort.errors import ConfigError


@pytest.mark.parametrize(("people", "scans"), [(40, 60), (900, 4000)])
def test_intervals_are_those_of_the_plain_bootstrap(people: int, scans: int) -> None:
    rng = np.random.default_rng(0)
    subjects = [f"s{n % people}" for n in range(scans)]
    values = rng.normal(size=scans)
    found = estimates(subjects, lambda w: {"mean": w @ values / w.sum(axis=1)}, Drawing(7, 600))["mean"]
    plain = bootstrap(subjects, lambda rows: float(values[rows].mean()), seed=7, n_resamples=600)
    assert found.value == pytest.approx(plain.value)
    assert found.low == pytest.approx(plain.low)
    assert found.high == pytest.approx(plain.high)


def test_scans_of_one_person_come_and_go_together() -> None:
    (weights,) = weights_of(["a", "b", "a", "c"], Drawing(1, 50))
    assert weights.shape == (50, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    # Three people are drawn each time.
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(50, 3.0))


def test_resamples_without_a_figure_are_left_out_and_an_undefined_figure_has_no_interval() -> None:
    lesions, found = np.array([0.0, 0.0, 4.0]), np.array([0.0, 0.0, 2.0])

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        below = weights @ lesions
        share = np.where(below > 0, weights @ found / np.where(below > 0, below, 1), np.nan)
        return {"share": share, "never": np.full(len(weights), np.nan)}

    result = estimates(["a", "b", "c"], figures, Drawing(1, 200))
    assert (result["share"].value, result["share"].low, result["share"].high) == (0.5, 0.5, 0.5)
    assert np.isnan(result["never"].value)
    assert result["never"].low is None


def test_one_person_has_no_interval_and_no_scan_is_refused() -> None:
    one = estimates(["a", "a"], lambda w: {"n": w.sum(axis=1)}, Drawing())["n"]
    assert (one.value, one.low, one.high) == (2.0, None, None)
    with pytest.raises(ConfigError, match="0 scans"):
        estimates([], lambda w: {}, Drawing())
