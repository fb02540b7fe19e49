"""Mimics lie where each kind occurs, and apart from one another."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.geometry import Grid, apply_affine, centered_grid
from epvs_cohort.simulate.anatomy import Int16Array
from epvs_cohort.simulate.mimics import SHAPES, MimicRates, Mimics, draw_mimics

GRID = centered_grid((60, 60, 40), (0.8, 0.8, 0.8), (0.0, 0.0, 0.0))
MANY = MimicRates(lacunes=20.0, white_lesions=40.0, dark_spots=20.0, vessels=20.0, specks=60.0)


def _labels() -> Int16Array:
    """White matter around putamen and pallidum."""
    labels = np.full(GRID.shape, 2, dtype=np.int16)
    labels[20:30, 20:40, 10:30] = 12
    labels[30:36, 20:40, 10:30] = 13
    return labels


def _label_at(grid: Grid, labels: Int16Array, center_mm: tuple[float, float, float]) -> int:
    i, j, k = np.rint(apply_affine(np.linalg.inv(grid.affine), center_mm)).astype(int)
    return int(labels[i, j, k])


@pytest.fixture(scope="module")
def mimics() -> Mimics:
    return draw_mimics(np.random.default_rng(1), _labels(), GRID, MANY)


def test_specks_lie_in_deep_grey_and_in_white_matter(mimics: Mimics) -> None:
    largest = SHAPES.specks.radius_mm[2]
    found = [_label_at(GRID, _labels(), m.center_mm) for m in mimics.bright if m.radius_mm <= largest]
    assert found.count(2) > 15
    assert len(found) - found.count(2) > 15


def test_the_other_kinds_lie_where_they_occur(mimics: Mimics) -> None:
    largest = SHAPES.specks.radius_mm[2]
    lacunes = [m for m in mimics.bright if m.radius_mm > largest]
    assert {_label_at(GRID, _labels(), m.center_mm) for m in lacunes} <= {12, 13}
    assert {_label_at(GRID, _labels(), m.center_mm) for m in mimics.soft} == {2}
    assert {_label_at(GRID, _labels(), m.center_mm) for m in mimics.dark} == {12, 13}


def test_no_kind_lies_on_another(mimics: Mimics) -> None:
    centers = [m.center_mm for m in (*mimics.bright, *mimics.soft, *mimics.dark)]
    assert len(centers) > 120
    assert len(set(centers)) > 0.95 * len(centers)


def test_where_a_tissue_is_missing_nothing_is_drawn() -> None:
    white = np.full(GRID.shape, 2, dtype=np.int16)
    mimics = draw_mimics(np.random.default_rng(2), white, GRID, MANY)
    assert not mimics.dark
    assert {_label_at(GRID, white, m.center_mm) for m in mimics.bright} == {2}
