"""Lesions against points, by hand: in voxels and in mm, missed and false ones, failed scans, scans without lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from epvs_cohort.compare.marked import (
    Lesions,
    Located,
    MarkedScan,
    Reach,
    ScanOutcome,
    lesion_estimator,
    lesion_figures,
    outcome_of,
)
from epvs_cohort.compare.matching import MatchFigures
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray
from tests.compare.cohorts import GRID_FROM_NATIVE


def scan(
    marked: Sequence[Sequence[float]],
    located: Sequence[Sequence[float]],
    *,
    key: str = "a",
    counted: bool = True,
) -> MarkedScan:
    centres = np.array(located, dtype=np.float64).reshape(-1, 3)
    found = Located(centres, np.arange(1.0, len(centres) + 1), np.linspace(1.0, 0.5, len(centres)))
    grid = GRID_FROM_NATIVE if counted else None
    return MarkedScan(key, key, np.array(marked, dtype=np.float64).reshape(-1, 3), found, grid, counted)


@pytest.mark.parametrize(
    ("offset", "in_voxels", "in_mm"),
    [
        # The grid is turned about z: native x is its j. 3 voxels are 1.47 mm there and 2.4 mm along z.
        ([1.46, 0, 0], 1, 1),
        ([1.48, 0, 0], 0, 1),
        ([0, 0, 2.39], 1, 0),
        ([0, 0, 2.41], 0, 0),
    ],
)
def test_three_voxels_are_those_of_the_prepared_grid(offset: list[float], in_voxels: int, in_mm: int) -> None:
    one = scan([[5.0, 6.0, 7.0]], [[5.0 + offset[0], 6.0 + offset[1], 7.0 + offset[2]]])
    assert outcome_of(one, Reach()).figures.matched == in_voxels
    assert outcome_of(one, Reach(2.0, "mm")).figures.matched == in_mm


def test_rows_say_who_is_whose_partner() -> None:
    one = scan([[0, 0, 0], [20, 0, 0], [40, 0, 0]], [[40.49, 0, 0], [10, 0, 0]])
    outcome = outcome_of(one, Reach())
    assert outcome.figures == MatchFigures(true=3, found=2, matched=1)
    rows = [(row.outcome, row.point, row.lesion, row.x_mm) for row in outcome.rows]
    assert rows == [
        ("true_positive", 3, 1, 40.49),
        ("false_positive", None, 2, 10.0),
        ("false_negative", 1, None, 0.0),
        ("false_negative", 2, None, 20.0),
    ]
    assert outcome.rows[0].distance == pytest.approx(1.0)


def outcomes() -> list[ScanOutcome]:
    """Scans: 2 of 3 found and one false mark; none there and one false mark; failed with 2; none there, none marked."""
    far: list[list[float]] = [[0, 0, 0], [20, 0, 0], [40, 0, 0]]
    scans = [
        scan(far, [far[0], far[1], [60, 0, 0]], key="a"),
        scan([], [[0, 0, 0]], key="b"),
        scan(far[:2], [], key="c", counted=False),
        scan([], [], key="d"),
    ]
    return [outcome_of(each, Reach()) for each in scans]


def test_figures_by_hand() -> None:
    found = {name: float(value[0]) for name, value in lesion_figures(outcomes(), np.ones((1, 4))).items()}
    assert found == pytest.approx(
        {
            "sensitivity": 2 / 5,
            "false_discovery_rate": 2 / 4,
            "false_positives_per_scan": 2 / 4,
            "f1": 2 * 2 / (5 + 4),
            # Over scans a and c; b and d have no lesion.
            "mean_sensitivity": (2 / 3 + 0) / 2,
            # Over scans a and b; c and d have no mark.
            "mean_false_discovery_rate": (1 / 3 + 1) / 2,
            # Over a, b and c.
            "mean_f1": (4 / 6 + 0 + 0) / 3,
            # Over the counted scans a, b and d: 0, 1 and 0.
            "absolute_count_difference": 1 / 3,
        }
    )


def test_the_curve_ends_at_the_lesions_of_the_table() -> None:
    lesions = Lesions(tuple(outcomes()))
    last = lesions.curve().iloc[-1]
    figures = lesion_estimator(lesions, 1.0)(np.ones((1, 4)))
    assert last["sensitivity"] == pytest.approx(figures["sensitivity"][0])
    assert last["false_positives_per_scan"] == pytest.approx(figures["false_positives_per_scan"][0])
    table = lesions.table()
    assert table["outcome"].value_counts().to_dict() == {
        "true_positive": 2, "false_positive": 2, "false_negative": 3,
    }  # fmt: skip
    assert table.loc[table["outcome"] == "false_negative", "lesion"].isna().all()


def test_figures_without_lesions_are_not_numbers() -> None:
    nothing = [outcome_of(scan([], []), Reach())]
    found = lesion_figures(nothing, np.ones((1, 1)))
    undefined = {name for name, value in found.items() if np.isnan(value[0])}
    assert undefined == {
        "sensitivity", "false_discovery_rate", "f1", "mean_sensitivity", "mean_false_discovery_rate", "mean_f1",
    }  # fmt: skip


def test_voxels_of_a_scan_without_its_grid_are_refused() -> None:
    one: FloatArray = np.zeros((1, 3))
    bare = MarkedScan("a", "a", one, Located(one, np.ones(1), np.ones(1)), None, True)
    with pytest.raises(ConfigError, match="scan 'a': has lesions and no grid_from_native"):
        outcome_of(bare, Reach())
    assert outcome_of(bare, Reach(1.0, "mm")).figures.matched == 1
