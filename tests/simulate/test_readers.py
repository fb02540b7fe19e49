"""Simulated readers: one reader's two readings agree as real ones do, and what is missed is faint."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from epvs_cohort.compare.agreement import icc_agreement
from epvs_cohort.simulate.lesions import LesionSpec, Placement, draw_lesions
from epvs_cohort.simulate.people import Kind, draw_facts
from epvs_cohort.simulate.readers import ReaderModel, Reading, draw_readings, visibility

MODEL = ReaderModel()
CLEAR = LesionSpec((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 5.0, 1.5, 1.0)
#: Lists of lesions of each kind of cohort.
EACH = 400


@pytest.fixture(scope="module")
def people() -> list[list[LesionSpec]]:
    """Lesions of people of both kinds of cohort, in boxes as large as the putamina; no image is drawn."""
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(32), np.arange(16), indexing="ij"), axis=-1)
    points = np.concatenate([grid.reshape(-1, 3) + np.array([side, 0.0, 0.0]) for side in (-35.0, 23.0)])
    weights = np.full(len(points), 1.0 / len(points))
    regions = np.full(len(points), 3, dtype=np.uint8)
    placement = Placement(points, weights, regions, up=(0.0, 0.0, 1.0), focus_mm=(0.0, 0.0, -25.0))
    drawn = []
    for kind in get_args(Kind):
        for n in range(EACH):
            rng = np.random.default_rng([11, n])
            drawn.append(draw_lesions(rng, draw_facts(rng, kind, (0.0, 1.0)).count, placement))
    return drawn


def test_two_readings_of_one_reader_agree_as_published(people: list[list[LesionSpec]]) -> None:
    rng = np.random.default_rng(4)
    readings = [draw_readings(rng, lesions, MODEL) for lesions in people]
    first, again, other = ([reading[r.name] for reading in readings] for r in MODEL.readings)
    true = [len(lesions) for lesions in people]
    assert 0.72 < icc_agreement(np.column_stack([first, again]).astype(np.float64)) < 0.88
    assert np.mean(first) < 0.97 * np.mean(true), "readers miss some"
    assert np.corrcoef(other, true)[0, 1] > 0.7


def test_visible_ones_are_noticed_and_faint_ones_are_not() -> None:
    model = replace(MODEL, mood_sd=0.0, false_marks=0.0, readings=(Reading("one", 0.0),))
    faint = replace(CLEAR, radius_mm=0.3, contrast=0.4)
    assert visibility(faint, model) < model.threshold < visibility(CLEAR, model)
    counts = [draw_readings(np.random.default_rng(n), [CLEAR] * 20 + [faint] * 20, model) for n in range(20)]
    assert 19.5 < np.mean([list(count.values()) for count in counts]) < 20.5


def test_visibility_halves_where_the_blur_is_as_wide_as_the_lesion() -> None:
    assert visibility(replace(CLEAR, radius_mm=0.5, contrast=0.8), MODEL) == pytest.approx(0.4)


def test_a_lenient_reader_counts_more_and_false_marks_come_without_lesions() -> None:
    lesions = [replace(CLEAR, radius_mm=0.6, contrast=0.7)] * 30
    model = replace(MODEL, readings=(Reading("mild", 0.2), Reading("strict", -0.2)))
    counts = [draw_readings(np.random.default_rng(n), lesions, model) for n in range(100)]
    assert np.mean([c["mild"] for c in counts]) > 2 * np.mean([c["strict"] for c in counts])
    none = [draw_readings(np.random.default_rng(n), [], MODEL)["A"] for n in range(1000)]
    assert np.mean(none) == pytest.approx(MODEL.false_marks, abs=0.15)
