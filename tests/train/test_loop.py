"""Training lowers the loss, resumes to the bit, and freezes what it says it freezes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.simulate.windows import WindowBatch
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE
from epvs_cohort.train.loop import (
    NORM_BATCHES,
    UNIT_BATCHES,
    RunSettings,
    Trained,
    new_network,
    recompute_norm,
    train,
)
from epvs_cohort.train.recipe import Recipe, StageSettings


def _recipe(*stages: StageSettings, **changes: Any) -> Recipe:
    return Recipe(
        name="tiny", architecture=Architecture(widths=(4, 6), convs_per_level=1), stages=stages, **changes
    )


def _stage(steps: int, **changes: Any) -> StageSettings:
    return StageSettings(window=(12, 12, 12), batch=8, steps=steps, **changes)


def _dots(stage: int, step: int) -> WindowBatch:
    """Up to three bright dots on a noisy background; the label is their number."""
    rng = np.random.default_rng((stage, step + 100))
    intensities = rng.normal(0.3, 0.03, (8, 12, 12, 12)).astype(np.float32)
    counts = rng.integers(0, 4, 8)
    for window, count in zip(intensities, counts, strict=True):
        for at in rng.choice(27, count, replace=False):
            i, j, k = (2 + 3 * int(n) for n in np.unravel_index(at, (3, 3, 3)))
            window[i : i + 2, j : j + 2, k : k + 2] = 0.9
    return WindowBatch(intensities, np.ones(intensities.shape, np.bool_), counts.astype(np.float32))


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_few_voxels_are_active_before_the_last_layer_at_the_start(widths: tuple[int, ...]) -> None:
    """However deep the network is: a sum over all voxels must not start with half of them."""
    network = new_network(Architecture(widths=widths), 5, batch_norm=True)
    volumes = torch.rand((2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        active = (network.features(volumes) > 0).float().mean()
    assert 0 < float(active) < 0.06


def _trained(folder: Path, recipe: Recipe, *, resume: bool = False) -> GpUnet:
    return train(recipe, _dots, RunSettings(folder, seed=3, resume=resume)).network


def _error(trained: Trained) -> float:
    network = trained.network.eval()
    batch = _dots(9, 9)
    with torch.no_grad():
        counts = network(torch.from_numpy(batch.intensities)[:, None], torch.from_numpy(batch.mask)[:, None])
    return float(((counts * trained.unit - torch.from_numpy(batch.counts)) ** 2).mean())


def test_counts_of_dots_are_learned(tmp_path: Path) -> None:
    recipe = _recipe(_stage(250, learning_rate=1e-2), _stage(30, frozen_norm=True))
    trained = train(recipe, _dots, RunSettings(tmp_path, seed=3))
    assert trained.progress.steps == [250, 30]
    # The variance of the counts is 1.25: what the best constant would leave.
    assert _error(trained) < 0.3
    assert (
        _error(Trained(new_network(recipe.architecture, 3, batch_norm=True), trained.unit, trained.progress))
        > 1.0
    )


#: Batches that are drawn before the cut: in the first stage, and in the second, whose statistics are frozen.
IN_FIRST = UNIT_BATCHES + 3
IN_FROZEN = UNIT_BATCHES + 7 + NORM_BATCHES + 3


@pytest.mark.parametrize(("drawn", "stage"), [(IN_FIRST, 0), (IN_FROZEN, 1)])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, drawn: int, stage: int) -> None:
    torch.set_num_threads(1)
    whole = _trained(tmp_path / "whole", _recipe(_stage(6), _stage(4, frozen_norm=True)))

    calls = 0

    def cut_off(stage: int, step: int) -> WindowBatch:
        nonlocal calls
        calls += 1
        if calls > drawn:
            raise KeyboardInterrupt
        return _dots(stage, step)

    # Saved at each step.
    recipe = _recipe(_stage(6), _stage(4, frozen_norm=True))
    run = RunSettings(tmp_path / "cut", seed=3, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, cut_off, run)
    saved = torch.load(tmp_path / "cut" / CHECKPOINT_FILE, weights_only=True)["progress"]
    assert saved["stage"] == stage
    assert 0 < saved["steps"][-1] < recipe.stages[stage].steps
    resumed = _trained(tmp_path / "cut", recipe, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_resuming_needs_a_checkpoint_of_the_same_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        _trained(tmp_path, _recipe(_stage(1)), resume=True)
    _trained(tmp_path, _recipe(_stage(1)))
    with pytest.raises(ConfigError, match="another recipe or seed"):
        _trained(tmp_path, _recipe(_stage(2)), resume=True)


def test_resuming_needs_the_same_inputs(tmp_path: Path) -> None:
    run = RunSettings(tmp_path, seed=3, inputs_id="one")
    train(_recipe(_stage(1)), _dots, run)
    with pytest.raises(ConfigError, match="another protocol or simulator, or other label maps"):
        train(_recipe(_stage(1)), _dots, replace(run, inputs_id="other", resume=True))
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        train(_recipe(_stage(1)), _dots, replace(run, resume=True))


def test_a_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    _trained(tmp_path, _recipe(_stage(1)))
    with pytest.raises(UsageError, match="checkpoint is there already") as caught:
        _trained(tmp_path, _recipe(_stage(1)))
    assert "--resume" in caught.value.hint


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    def broken(stage: int, step: int) -> WindowBatch:
        batch = _dots(stage, step)
        return replace(batch, counts=np.full_like(batch.counts, np.inf)) if step == 2 else batch

    run = RunSettings(tmp_path, seed=3, checkpoint_minutes=0.0)
    with pytest.raises(ConfigError, match=r"stage 0, step 2: the loss is (inf|nan)"):
        train(_recipe(_stage(6)), broken, run)
    weights = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)["network"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def test_time_ends_a_run(tmp_path: Path) -> None:
    recipe = _recipe(_stage(10**6), _stage(10**6))
    trained = train(recipe, _dots, RunSettings(tmp_path, max_minutes=0.02))
    assert all(0 < steps < 10**5 for steps in trained.progress.steps)
    assert trained.progress.seconds < 10.0


def test_frozen_statistics_stay(tmp_path: Path) -> None:
    network = _trained(tmp_path, _recipe(_stage(1), _stage(5, frozen_norm=True, learning_rate=1e-9)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d) and module.num_batches_tracked is not None:
            assert int(module.num_batches_tracked) == 48


def test_recomputed_statistics_are_plain_averages() -> None:
    network = GpUnet(Architecture(widths=(2,), convs_per_level=1), batch_norm=True)
    batches = [torch.rand(2, 1, 8, 8, 8) for _ in range(5)]
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d))
    recompute_norm(network, map(network.features, batches))
    conv = next(module for module in network.modules() if isinstance(module, torch.nn.Conv3d))
    with torch.no_grad():
        means = torch.stack([conv(batch).mean(dim=(0, 2, 3, 4)) for batch in batches])
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, means.mean(dim=0))
    assert norm.momentum == 0.1


def test_checkpoints_are_judged_on_the_counts_that_are_trained(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def judge(network: GpUnet, unit: float) -> str:
        assert not network.training
        seen.append((len(seen), unit))
        return "judged"

    run = RunSettings(tmp_path, seed=3, checkpoint_minutes=0.0)
    trained = train(_recipe(_stage(3)), _dots, run, judge)
    assert seen == [(n, trained.unit) for n in range(3)]
    assert (tmp_path / CHECKPOINT_FILE).is_file()
