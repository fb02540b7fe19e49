"""The journal: what is told is read again, a resumed run tells each step once, a long run stays small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from epvs_cohort.errors import OutputError
from epvs_cohort.train.journal import KEPT_PICTURES, MEAN_STEPS, Journal, read_journal


def _steps(journal: Journal, first: int, last: int) -> None:
    for step in range(first, last + 1):
        journal.step(step, epoch=step // 100, loss=float(step), rate=0.5, seconds=2.0 * step)


def _curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(tag)]


def test_what_is_told_is_read_again(tmp_path: Path) -> None:
    plane = np.full((6, 4), 0.5)
    with Journal(tmp_path / "run") as journal:
        _steps(journal, 1, 2 * MEAN_STEPS)
        journal.validation(40, 1, ["a", "b/ä"], np.array([2, 5]), np.array([2.5, 4.5]), 0.25, 0.9)
        journal.picture(40, "b/ä", plane, plane)
    data = read_journal(tmp_path / "run")
    assert [(line.step, line.steps, line.loss) for line in data.steps] == [(20, 20, 10.5), (40, 20, 30.5)]
    assert (data.steps[1].rate, data.steps[1].seconds, data.steps[1].epoch) == (0.5, 80.0, 0)
    (line,) = data.validations
    assert (line.keys, line.truth, line.estimate) == (("a", "b/ä"), (2.0, 5.0), (2.5, 4.5))
    assert (line.step, line.epoch, line.mse, line.icc) == (40, 1, 0.25, 0.9)
    (picture,) = data.pictures
    assert (picture.key, picture.step, picture.top_heat) == ("b/ä", 40, 0.5)
    assert _curve(tmp_path / "run", "training/loss") == [(20, 10.5), (40, 30.5)]
    assert _curve(tmp_path / "run", "validation/mse") == [(40, 0.25)]


def test_lines_are_there_while_the_run_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    _steps(journal, 1, 25)
    assert [line.step for line in read_journal(tmp_path).steps] == [20]
    journal.close()
    journal.close()
    assert [(line.step, line.steps) for line in read_journal(tmp_path).steps] == [(20, 20), (25, 5)]


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        _steps(journal, 1, 4000)
    assert len(read_journal(tmp_path).steps) == 200
    assert (tmp_path / "journal.jsonl").stat().st_size < 8 * 4000


def test_a_resumed_run_tells_each_step_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        _steps(journal, 1, 30)
        journal.flush()
        journal.validation(30, 0, ["a"], [1], [1.5], 0.25, 0.0)
        _steps(journal, 31, 60)
        journal.validation(60, 0, ["a"], [1], [9.0], 64.0, 0.0)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 61, "lo')
    with Journal(tmp_path, resume_step=30) as journal:
        _steps(journal, 31, 45)
    data = read_journal(tmp_path)
    assert [(line.step, line.steps) for line in data.steps] == [(20, 20), (30, 10), (40, 10), (45, 5)]
    assert sum(line.steps * line.loss for line in data.steps if line.loss) == sum(range(1, 46))
    assert [line.step for line in data.validations] == [30]
    assert [step for step, _ in _curve(tmp_path, "training/loss")] == [20, 30, 40, 45]
    assert _curve(tmp_path, "validation/mse") == [(30, 0.25)]


def test_a_run_that_begins_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    mine = tmp_path / "pictures" / "my own.png"
    for value in (1.0, 2.0):
        with Journal(tmp_path) as journal:
            journal.validation(7, 0, ["a"], [1], [value], value, 0.0)
            if value == 1.0:
                journal.picture(7, "a", np.zeros((3, 3)), np.zeros((3, 3)))
                mine.write_bytes(b"")
    data = read_journal(tmp_path)
    assert [line.mse for line in data.validations] == [2.0]
    assert _curve(tmp_path, "validation/mse") == [(7, 2.0)]
    assert list((tmp_path / "pictures").iterdir()) == [mine]


def test_only_the_latest_pictures_are_kept_of_each_scan(tmp_path: Path) -> None:
    plane = np.linspace(0, 1, 12).reshape(4, 3)
    with Journal(tmp_path) as journal:
        for step in range(1, KEPT_PICTURES + 4):
            journal.picture(step, "../a", plane, plane)
        journal.picture(2, "b", plane, plane)
    kept = {(line.key, line.step) for line in read_journal(tmp_path).pictures}
    assert kept == {("../a", 4), ("../a", 5), ("../a", 6), ("b", 2)}
    assert len(list((tmp_path / "pictures").iterdir())) == KEPT_PICTURES + 1
    with Journal(tmp_path, resume_step=5):
        pass
    assert {(line.key, line.step) for line in read_journal(tmp_path).pictures} == kept - {("../a", 6)}
    assert len(list((tmp_path / "pictures").iterdir())) == KEPT_PICTURES


def test_the_picture_of_the_smallest_error_is_kept_beside_the_latest(tmp_path: Path) -> None:
    plane = np.ones((3, 3))
    with Journal(tmp_path) as journal:
        for step, mse in enumerate([4.0, 1.0, 9.0, 9.0, 9.0, 9.0, math.nan], start=1):
            journal.validation(step, 0, ["a"], [1], [2], mse, 0.0)
            journal.picture(step, "a", plane, plane)
    assert [line.step for line in read_journal(tmp_path).pictures] == [2, 5, 6, 7]
    with Journal(tmp_path, resume_step=7) as journal:
        for step, mse in ((8, 0.5), (9, 2.0)):
            journal.validation(step, 0, ["a"], [1], [2], mse, 0.0)
            journal.picture(step, "a", plane, plane)
    assert [line.step for line in read_journal(tmp_path).pictures] == [7, 8, 9]


def test_a_picture_shows_the_persons_right_on_the_left_and_heat_beside_it(tmp_path: Path) -> None:
    intensities, heat = np.zeros((20, 10)), np.zeros((20, 10))
    intensities[15:, 7:] = 0.85
    heat[15:, 7:] = 3.0
    with Journal(tmp_path) as journal:
        journal.picture(1, "a", intensities, heat)
        journal.picture(2, "a", intensities, np.full((20, 10), np.nan))
    first, second = read_journal(tmp_path).pictures
    with Pillow.open(first.file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (10, 42, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[-1, 19].tolist() == [0, 0, 0]
    assert np.ptp(pixels[0, 22]) > 20
    assert np.ptp(pixels[-1, 41]) == 0
    assert (first.top_heat, second.top_heat) == (3.0, 0.0)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.step(1, 0, math.inf, 0.1, 1.0)
        journal.validation(1, 0, ["a"], [1], [math.nan], math.nan, math.nan)
    for text in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    data = read_journal(tmp_path)
    assert data.steps[0].loss is None
    assert (data.validations[0].icc, data.validations[0].estimate) == (None, (None,))


@pytest.mark.parametrize(
    "damage",
    ["nonsense", "[1]", '{"kind": "step", "step": 2}', '{"kind": "step", "step": "2"}',
     '{"kind": "validation", "step": 2, "epoch": 0, "keys": ["a"], "truth": [], "estimate": [], "mse": 1, "icc": 0}'],
)  # fmt: skip
def test_a_damaged_line_is_named(damage: str, tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        _steps(journal, 1, 20)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(OutputError, match=r"journal\.jsonl: line 2"):
        read_journal(tmp_path)


def test_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no journal"):
        read_journal(tmp_path)
