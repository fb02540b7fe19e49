"""Who is chosen, and that head n of a stream is head n, whoever draws it and wherever one begins."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.data.head_grid import HeadGrid
from epvs_cohort.errors import ConfigError
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.simulate.whole_heads import WholeHeadSettings
from epvs_cohort.train.roi_samples import Heads, batches, choose_people, draw_heads

GRID = HeadGrid(shape=(16, 24, 16), spacing_mm=10.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("c", "a", "b", "sub-07"):
        (tmp_path / f"{name}.nii.gz").write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("1-2", "a b"),
        ("2", "b"),
        ("3-4,1", "c sub-07 a"),
        ("sub-07, b", "sub-07 b"),
        ("1-3,2", "a b c"),
    ],
)
def test_people_are_named_or_numbered(folder: Path, words: str, names: str) -> None:
    assert [path.name.removesuffix(".nii.gz") for path in choose_people(folder, words)] == names.split()


@pytest.mark.parametrize("words", ["0-2", "4-5", "3-2", "d", "1;2", "-1", " , "])
def test_people_who_are_not_there_are_named(folder: Path, words: str) -> None:
    with pytest.raises(ConfigError, match="people"):
        choose_people(folder, words)


def test_a_head_depends_on_its_number_alone(tmp_path: Path) -> None:
    people = (tmp_path / "one.nii.gz", tmp_path / "two.nii.gz")
    for person in people:
        shutil.copy(BUNDLED_ANATOMY, person)
    heads = Heads(people, (5, 1), GRID, WholeHeadSettings())
    first = list(itertools.islice(batches(heads, 2, 0, 1), 2))
    resumed = next(batches(heads, 2, 1, 1))
    assert torch.equal(first[1].intensities, resumed.intensities)
    assert torch.equal(first[1].classes, resumed.classes)
    assert first[0].intensities.shape == (2, 1, *GRID.shape)
    assert first[0].classes.dtype == torch.uint8
    (third,) = draw_heads(heads, [3], 1)
    np.testing.assert_array_equal(first[1].classes[1].numpy(), third.classes)
    assert not torch.equal(first[0].intensities, first[1].intensities)
    assert [heads.order(n).person for n in range(3)] == [people[0], people[1], people[0]]


def test_a_window_is_a_part_of_the_same_head(tmp_path: Path) -> None:
    shutil.copy(BUNDLED_ANATOMY, tmp_path / "one.nii.gz")
    whole = Heads((tmp_path / "one.nii.gz",), (5, 1), GRID, WholeHeadSettings())
    numbers = range(4)
    places = set()
    for head, part in zip(
        draw_heads(whole, numbers, 1),
        draw_heads(replace(whole, window=(8, 16, 16)), numbers, 1),
        strict=True,
    ):
        assert part.intensities.shape == part.classes.shape == (8, 16, 16)
        windows = np.lib.stride_tricks.sliding_window_view(head.intensities, (8, 16, 16))
        (found,) = np.argwhere((windows == part.intensities).all(axis=(3, 4, 5)))
        i, j, k = found
        np.testing.assert_array_equal(head.classes[i : i + 8, j : j + 16, k : k + 16], part.classes)
        places.add((i, j, k))
    assert len(places) > 1
