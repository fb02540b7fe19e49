"""Free-response curves by hand, against brute force, and their area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvs_cohort.compare.froc import Marks, curve_of, entering_hits, froc_figures, marks_of
from epvs_cohort.compare.matching import match_points
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

_POINT = st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(0, 2))
_POINTS = st.lists(_POINT, max_size=6).map(lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 3))


def by_hand() -> Marks:
    """Two scans, four lesions; marks 0.9 hit, 0.8 miss, 0.7 hit and 0.7 miss together, 0.5 hit."""
    return marks_of([0, 1, 0, 1, 1], [0.9, 0.8, 0.7, 0.7, 0.5], [1, 0, 1, 0, 1], [2, 2])


def test_curve_by_hand() -> None:
    curve = curve_of(by_hand(), np.ones((1, 2)))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.5]
    assert curve.sensitivity[0].tolist() == [0.25, 0.25, 0.5, 0.75]
    assert curve.false_marks[0].tolist() == [0.0, 0.5, 1.0, 1.0]


def test_area_is_that_of_the_staircase() -> None:
    found = froc_figures(by_hand(), np.ones((1, 2)), 2.0)
    # 0.25 from 0 to 1 false marks a scan, 0.75 from 1 on, level beyond the last mark.
    assert found["froc_area"][0] == pytest.approx((0.25 * 1 + 0.75 * 1) / 2)
    assert froc_figures(by_hand(), np.ones((1, 2)), 0.5)["froc_area"][0] == pytest.approx(0.25)
    at = [found[f"sensitivity_at_{rate}"][0] for rate in ("0.25", "0.5", "1", "2")]
    assert at == [0.25, 0.25, 0.75, 0.75]


def test_weights_are_repetitions_of_scans() -> None:
    weighted = froc_figures(by_hand(), np.array([[2.0, 1.0]]), 1.0)
    marks = marks_of(
        [0, 1, 2, 0, 1, 2, 2], [0.9, 0.9, 0.8, 0.7, 0.7, 0.7, 0.5], [1, 1, 0, 1, 1, 0, 1], [2, 2, 2]
    )
    repeated = froc_figures(marks, np.ones((1, 3)), 1.0)
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(
        {name: value[0] for name, value in repeated.items()}
    )


def test_without_lesions_nothing_is_defined_and_without_marks_nothing_is_found() -> None:
    assert np.isnan(froc_figures(marks_of([0], [0.5], [0], [0]), np.ones((1, 1)), 1.0)["froc_area"][0])
    assert froc_figures(marks_of([], [], [], [3]), np.ones((1, 1)), 1.0)["froc_area"][0] == 0.0


def test_a_nearer_mark_that_comes_later_is_no_second_hit() -> None:
    truth = np.zeros((1, 3))
    marks = np.array([[2.0, 0, 0], [0.1, 0, 0]])
    assert entering_hits(truth, marks, np.array([0.9, 0.5]), 3.0).tolist() == [1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(truth=_POINTS, found=_POINTS, data=st.data())
def test_hits_above_any_score_are_the_pairs_there(
    truth: FloatArray, found: FloatArray, data: st.DataObject
) -> None:
    size = len(found)
    score = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.4, 0.8]), min_size=size, max_size=size)))
    hits = entering_hits(truth, found, score, 2.0)
    assert set(hits.tolist()) <= {0.0, 1.0}
    for threshold in (0.1, 0.4, 0.8):
        above = score >= threshold if size else np.zeros(0, dtype=bool)
        assert hits[above].sum() == match_points(truth, found[above], 2.0)


def test_unknown_scores_are_refused() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        marks_of([0], [np.nan], [0], [1])
