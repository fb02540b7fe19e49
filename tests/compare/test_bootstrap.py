"""Intervals on cases whose width is known."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.compare.bootstrap import Estimate, IndexArray, bootstrap
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray


def _mean(values: FloatArray, rows: IndexArray) -> float:
    return float(values[rows].mean())


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 100)
    estimate = bootstrap([str(n) for n in range(100)], lambda rows: _mean(values, rows), seed=3)
    error = values.std() / 10
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.12)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.12)


def test_one_seed_one_interval() -> None:
    values = np.arange(30.0)
    people = [str(n) for n in range(30)]
    first, again, other = (bootstrap(people, lambda rows: _mean(values, rows), seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_scans_of_one_person_come_and_go_together() -> None:
    people = ["a"] * 20 + ["b"] * 20
    values = np.repeat([0.0, 1.0], 20)
    seen: set[float] = set()

    def mean(rows: IndexArray) -> float:
        seen.add(_mean(values, rows))
        return _mean(values, rows)

    estimate = bootstrap(people, mean, seed=1)
    # Two people can be drawn in three ways only; scans on their own would give every mean between.
    assert seen == {0.0, 0.5, 1.0}
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_resamples_without_a_figure_are_left_out() -> None:
    lesions = np.array([0.0, 0.0, 4.0])
    found = np.array([0.0, 0.0, 2.0])

    def sensitivity(rows: IndexArray) -> float:
        total = lesions[rows].sum()
        return float(found[rows].sum() / total) if total else float("nan")

    assert bootstrap(["a", "b", "c"], sensitivity, seed=1) == Estimate(0.5, 0.5, 0.5)


def test_one_person_has_no_interval() -> None:
    estimate = bootstrap(["a", "a"], lambda rows: _mean(np.array([1.0, 2.0]), rows), seed=1)
    assert estimate == Estimate(1.5, None, None)
    assert str(estimate) == "1.500"


def test_no_scan_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 scans"):
        bootstrap([], lambda _: 0.0, seed=1)
