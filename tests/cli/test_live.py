"""The live line: changes in place on a terminal, told at each validation elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from epvs_cohort.cli.live import LiveLine, RoiLine, line_of
from epvs_cohort.train.roi_loop import RoiState
from epvs_cohort.train.scan_state import TrainState

BEGUN = TrainState(
    epoch=1, epochs=20, step=1, seconds=65.0, seconds_left=3600.0, loss=1.23456, validation_mse=None, icc=None
)


def _shown(states: list[TrainState], *, terminal: bool, width: int = 200) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None)
    with LiveLine(console) as line:
        for state in states:
            line.show(state)
    return file.getvalue()


def test_line_says_all_and_leaves_open_what_is_not_known() -> None:
    assert line_of(replace(BEGUN, validation_mse=2.5, icc=0.91)) == (
        "epoch 1/20, step 1, loss 1.23, validation MSE 2.5, ICC 0.91, 0:01:05 so far, 1:00:00 left"
    )
    assert line_of(replace(BEGUN, seconds_left=None)) == (
        "epoch 1/20, step 1, loss 1.23, validation MSE –, ICC –, 0:01:05 so far, unknown left"
    )


def test_without_a_terminal_there_is_a_line_at_each_validation() -> None:
    begun = [replace(BEGUN, step=n) for n in range(1, 50)]
    once = [replace(BEGUN, epoch=2, step=n, validation_mse=4.0, icc=0.5) for n in range(50, 100)]
    again = [replace(state, epoch=3, validation_mse=3.0) for state in once]
    lines = _shown([*begun, *once, *again], terminal=False).splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch 1/20", "epoch 2/20", "epoch 3/20"]
    assert "MSE 4," in lines[1]
    assert "MSE 3," in lines[2]
    assert not any("\x1b" in line for line in lines)


def test_a_figure_that_is_not_a_number_is_told_once() -> None:
    states = [replace(BEGUN, step=n, validation_mse=1.0, icc=float("nan")) for n in range(5)]
    assert len(_shown(states, terminal=False, width=20).splitlines()) == 1


def test_on_a_terminal_one_line_changes_in_place() -> None:
    states = [replace(BEGUN, step=n, validation_mse=n / 2, icc=0.5) for n in range(1, 200)]
    text = _shown(states, terminal=True)
    assert "step 199" in text
    assert text.count("\n") == 1
    assert _shown(states, terminal=True, width=30).count("\n") == 1


def test_a_training_of_the_region_is_told_at_its_start_and_at_each_checkpoint() -> None:
    begun = RoiState(step=1, steps=90, seconds=2.0, seconds_left=178.0, loss=3.14159, judged=None)
    states = [replace(begun, step=n, judged="dice 0.7" if n > 5 else None) for n in range(1, 10)]
    file = io.StringIO()
    with RoiLine(Console(file=file, width=20)) as line:
        for state in states:
            line.show(state)
    assert file.getvalue().splitlines() == [
        "step 1/90, loss 3.14, 0:00:02 so far, 0:02:58 left",
        "step 6/90, loss 3.14, 0:00:02 so far, 0:02:58 left; validation: dice 0.7",
    ]
