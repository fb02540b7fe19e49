"""The loop of the segmenting network: it learns, and a run that was cut off goes on as if it had not been."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from epvs_cohort.data.head_grid import HeadGrid
from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet, fold_roi_network
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.roi_loop import RoiProgress, RoiState, Sources, train_roi_network
from epvs_cohort.train.roi_recipe import RoiRecipe
from epvs_cohort.train.roi_samples import Batch

SHAPE = (16, 16, 16)
RECIPE = RoiRecipe(
    supervision="labels",
    name="tiny",
    architecture=RoiArchitecture(widths=(4, 4), convs_per_level=1),
    grid=HeadGrid(shape=SHAPE, spacing_mm=8.0),
    batch=2,
    steps=8,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warm_up=2,
    norm_heads=2,
    average_decay=0.9,
)


def batch(number: int) -> Batch:
    """Bright blocks of class 3 on dark noise of class 0."""
    generator = torch.Generator().manual_seed(number)
    classes = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    for each in classes:
        low = torch.randint(0, 8, (3,), generator=generator).tolist()
        each[low[0] : low[0] + 8, low[1] : low[1] + 8, low[2] : low[2] + 8] = 3
    noise = 0.2 * torch.rand(2, 1, *SHAPE, generator=generator)
    return Batch(noise + 0.7 * (classes[:, None] == 3), classes)


def stream(first: int) -> Iterator[Batch]:
    return (batch(number) for number in itertools.count(first))


SOURCES = Sources(stream, lambda: (batch(-1 - n) for n in range(2)))


def trained(
    out: Path, recipe: RoiRecipe = RECIPE, *, max_minutes: float | None = None, resume: bool = False
) -> tuple[RoiUnet, RoiProgress]:
    run = RunSettings(out, seed=3, max_minutes=max_minutes, resume=resume)
    return train_roi_network(recipe, SOURCES, run)


def test_a_run_that_was_cut_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    for steps in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            _cut(tmp_path / "cut", steps)
    resumed, progress = trained(tmp_path / "cut", resume=True)
    assert (progress.step, progress.frozen) == (8, True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def _cut(out: Path, steps: int) -> None:
    """Run until a step, with a checkpoint after each, then be interrupted as by a person."""

    def source(first: int) -> Iterator[Batch]:
        for number in itertools.count(first):
            if number == steps:
                raise KeyboardInterrupt
            yield batch(number)

    run = RunSettings(out, seed=3, checkpoint_minutes=0.0, resume=(out / "checkpoint.pt").exists())
    train_roi_network(RECIPE, Sources(source, SOURCES.norm), run)


def test_it_learns(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"steps": 60})
    network, progress = trained(tmp_path, recipe)
    folded = fold_roi_network(network)
    held = batch(10_000)
    right = folded(held.intensities).argmax(dim=1) == held.classes
    assert float(right.float().mean()) > 0.95
    assert progress.step == 60


def test_time_ends_a_run(tmp_path: Path) -> None:
    _, progress = trained(tmp_path, RECIPE.model_copy(update={"steps": 10**6}), max_minutes=1e-3)
    assert 0 < progress.step < 1000


def test_a_finished_run_is_not_begun_anew(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(UsageError, match="checkpoint is there already"):
        trained(tmp_path)
    with pytest.raises(ConfigError, match="another recipe"):
        trained(tmp_path, RECIPE.model_copy(update={"weight_decay": 0.5}), resume=True)
    _, progress = trained(tmp_path, resume=True)
    assert progress.step == 8


def test_a_loss_that_is_not_finite_says_where(tmp_path: Path) -> None:
    def broken(first: int) -> Iterator[Batch]:
        yield batch(first)
        yield Batch(torch.full((2, 1, *SHAPE), float("nan")), batch(0).classes)

    with pytest.raises(ConfigError, match="recipe 'tiny', step 1"):
        train_roi_network(RECIPE, Sources(broken, SOURCES.norm), RunSettings(tmp_path))


def test_a_watch_is_told_of_each_step_and_the_time_left(tmp_path: Path) -> None:
    states: list[RoiState] = []
    train_roi_network(RECIPE, SOURCES, RunSettings(tmp_path), watch=states.append)
    assert [state.step for state in states] == list(range(1, RECIPE.steps + 1))
    assert {state.steps for state in states} == {RECIPE.steps}
    assert states[0].seconds_left > 0
    assert states[-1].seconds_left == 0
