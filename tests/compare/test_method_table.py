"""Rates, differences and curves of tiny cases that were worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest

from epvs_cohort.compare.matching import MatchFigures
from epvs_cohort.compare.method_table import MEASURES, PAPER, curve_thresholds, method_table
from epvs_cohort.compare.trial import Trial, Tried, TriedScan
from epvs_cohort.detect.threshold import Settled
from epvs_cohort.errors import ConfigError
from epvs_cohort.protocol import Method, Protocol

TRIAL = Trial(("a", "e"), {"fcn": "m"}, Protocol(), thresholds={"a": (2.0, 1.0), "e": (3.0,)})


def tried(found: int, matched: int, true: int, **changes: object) -> Tried:
    figures = MatchFigures(true, found, matched)
    curve = (figures, MatchFigures(true, 2 * found, matched))
    parts: dict[str, object] = {"curve": curve, "seconds": 1.5, **changes}
    return Tried(float(found), Settled(0.5, "exact", found), figures, **parts)  # type: ignore[arg-type]


def scan(key: str, true: int, methods: Mapping[Method, tuple[int, int]], subject: str = "") -> TriedScan:
    by_method = {letter: tried(found, matched, true) for letter, (found, matched) in methods.items()}
    return TriedScan(key, subject or key, true, by_method)


@pytest.fixture
def scans() -> list[TriedScan]:
    """Four, two and no lesions; (e) marks nothing in the last."""
    return [
        scan("x", 4, {"a": (4, 1), "e": (4, 3)}),
        scan("y", 2, {"a": (2, 1), "e": (4, 2)}),
        scan("z", 0, {"a": (2, 0), "e": (0, 0)}),
    ]


def test_rates_are_those_of_the_definitions(scans: list[TriedScan]) -> None:
    table = method_table(scans, TRIAL, seed=1)
    a, e = ({name: each.value for name, each in row.estimates.items() if each} for row in table.rows)
    assert a == pytest.approx(
        {
            "tpr": 2 / 6,
            "tpr_mean": (1 / 4 + 1 / 2) / 2,
            "fpav": 6 / 3,
            "fdr": 6 / 8,
            "fdr_mean": (3 / 4 + 1 / 2 + 1) / 3,
        }
    )
    assert e == pytest.approx(
        {
            "tpr": 5 / 6,
            "tpr_mean": (3 / 4 + 1) / 2,
            "fpav": 3 / 3,
            "fdr": 3 / 8,
            "fdr_mean": (1 / 4 + 1 / 2) / 2,
        }
    )
    assert (table.scans, table.subjects, table.lesions, table.without_lesions) == (3, 3, 6, 1)
    assert [(row.found, row.matched, row.without_marks) for row in table.rows] == [(8, 2, 0), (8, 5, 1)]
    assert table.rows[0].seconds == 1.5


def test_differences_are_paired_and_the_later_less_the_earlier(scans: list[TriedScan]) -> None:
    table = method_table(scans, TRIAL, seed=1)
    assert [(each.method, each.minus, each.measure) for each in table.differences] == [
        ("e", "a", measure) for measure in MEASURES
    ]
    found = {each.measure: each.estimate for each in table.differences}
    assert found["tpr"] is not None
    assert found["tpr"].value == pytest.approx(3 / 6)
    # (e) finds 2 of 4 and 1 of 2 more: the same part of the lesions, however scans are drawn.
    assert (found["tpr"].low, found["tpr"].high) == pytest.approx((0.5, 0.5))
    alone = table.rows[1].estimates["tpr"]
    assert alone is not None
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 0.2


def test_scans_of_one_person_are_drawn_together() -> None:
    alike = [scan(f"s{n}", 2, {"a": (2, n % 3), "e": (2, 1)}, subject=f"p{n // 4}") for n in range(12)]
    apart = [scan(each.key, 2, {"a": (2, int(each.key[1:]) % 3), "e": (2, 1)}) for each in alike]
    one = method_table(alike, TRIAL, seed=1).rows[0].estimates["tpr"]
    other = method_table(apart, TRIAL, seed=1).rows[0].estimates["tpr"]
    assert one is not None
    assert other is not None
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def test_a_rate_that_no_scan_defines_is_unknown() -> None:
    table = method_table([scan("x", 0, {"a": (0, 0), "e": (1, 0)})], TRIAL, seed=1)
    a = table.rows[0].estimates
    assert (a["tpr"], a["tpr_mean"], a["fdr"], a["fdr_mean"]) == (None, None, None, None)
    assert a["fpav"] is not None
    assert (a["fpav"].value, a["fpav"].low) == (0.0, None)


def test_curves_sum_up_each_threshold(scans: list[TriedScan]) -> None:
    curve = method_table(scans, TRIAL, seed=1).curves["a"]
    assert [(point.threshold, point.found, point.matched) for point in curve] == [(2.0, 8, 2), (1.0, 16, 2)]
    assert (curve[1].tpr, curve[1].fpav) == pytest.approx((2 / 6, 14 / 3))
    assert len(method_table(scans, TRIAL, seed=1).curves["e"]) == 1


def test_scans_with_a_fault_are_passed_over(scans: list[TriedScan]) -> None:
    broken = TriedScan("bad", "bad", 3, {}, "bad: the mask is empty")
    assert method_table([*scans, broken], TRIAL, seed=1).lesions == 6
    with pytest.raises(ConfigError, match="no test scan could be used"):
        method_table([broken], TRIAL, seed=1)


def test_thresholds_of_a_curve_span_what_is_proposed() -> None:
    proposals = [
        TriedScan(str(n), str(n), 1, {"a": tried(1, 1, 1, proposed=(4.0 + n, 2.0, 1.0 + n))})
        for n in range(3)
    ]
    thresholds = curve_thresholds(proposals, TRIAL)
    assert set(thresholds) == {"a"}
    assert thresholds["a"][0] == 6.0
    assert thresholds["a"][-1] == 1.0
    assert (np.diff(thresholds["a"]) < 0).all()


def test_a_curve_without_any_lesion_has_no_sensitivity() -> None:
    curve = method_table([scan("x", 0, {"a": (2, 0), "e": (0, 0)})], TRIAL, seed=1).curves["a"]
    assert [(point.tpr, point.fpav) for point in curve] == [(None, 2.0), (None, 4.0)]


def test_the_paper_names_its_own_methods_alone() -> None:
    assert set(PAPER) <= set(get_args(Method))
