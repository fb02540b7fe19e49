"""Counts of whole volumes are learned, runs resume to the bit and stop in time, and nothing leaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epvs_cohort.errors import ConfigError
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE
from epvs_cohort.train.distributed import Group
from epvs_cohort.train.journal import read_journal
from epvs_cohort.train.loop import RunSettings, new_network
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.scan_loop import train_scans
from epvs_cohort.train.scan_state import ScanTask, TrainedScans, TrainState, Watch
from epvs_cohort.train.scan_steps import Shown, chunks, steps_an_epoch, steps_from, steps_of, together
from epvs_cohort.train.scan_validation import judge
from epvs_cohort.train.volumes import CountedVolume
from tests.train.blobs import SHAPE, TINY, blobs, recipe

ALONE = Group(0, 1, torch.device("cpu"))


@dataclass(frozen=True)
class InMemory:
    """Volumes that were never stored."""

    volumes: tuple[CountedVolume, ...]

    def __len__(self) -> int:
        return len(self.volumes)

    def load(self, n: int) -> CountedVolume:
        return self.volumes[n]


def drawn(n: int, first: int, *, even: bool = False, shuffled: bool = False) -> InMemory:
    rng = np.random.default_rng(first)
    numbers = rng.integers(0, 10, n)
    labels = numbers
    # Of so few scans a random order may happen to go along with the counts.
    while shuffled and abs(np.corrcoef(labels, numbers)[0, 1]) > 0.02:
        labels = rng.permutation(numbers)
    # A network of random weights tells bright volumes from dark ones: here all are equally bright.
    volumes = [
        blobs(f"sub-{first + k}", int(count), first + k, 9 - int(count) if even else 0).volume
        for k, count in enumerate(numbers)
    ]
    return InMemory(
        tuple(
            CountedVolume(each.key, each.intensities, each.mask, float(label))
            for each, label in zip(volumes, labels, strict=True)
        )
    )


TRAINING, VALIDATION = drawn(24, 100), drawn(16, 900)


def task(out: Path, chosen: ScanRecipe, *, training: InMemory = TRAINING, **changes: Any) -> ScanTask:
    return ScanTask(chosen, training, VALIDATION, RunSettings(out, seed=3, **changes), ALONE)


def nobody(_state: TrainState) -> None:
    """Does not look."""


def trained(job: ScanTask, watch: Watch = nobody, network: GpUnet | None = None) -> TrainedScans:
    torch.set_num_threads(1)
    job.run.out.mkdir(exist_ok=True)
    fresh = new_network(job.recipe.architecture or TINY, job.run.seed, batch_norm=job.recipe.batch_norm)
    return train_scans(job, fresh if network is None else network, watch, fresh=network is None)


def correlation(found: TrainedScans) -> float:
    counts = judge(found.network, found.unit, VALIDATION.volumes, half=False)
    return counts.figures.r


def test_counts_are_learned_and_each_step_is_told(tmp_path: Path) -> None:
    states: list[TrainState] = []
    found = trained(task(tmp_path, recipe(epochs=12)), states.append)
    assert [state.step for state in states] == list(range(1, 73))
    assert (states[0].epoch, states[-1].epoch, states[-1].epochs) == (1, 12, 12)
    assert np.mean([s.loss for s in states[-12:]]) < 0.7 * np.mean([s.loss for s in states[:6]])
    left = [state.seconds_left for state in (states[0], states[-1])]
    assert left[0] is not None
    assert left[0] > 0.0
    assert left[1] == 0.0
    assert correlation(found) > 0.95
    assert found.progress.frozen
    assert found.ended == "after 12 epochs"
    journal = read_journal(tmp_path)
    assert [line.step for line in journal.validations] == [10, 20, 30, 40, 50, 60, 70, 72]
    assert [line.epoch for line in journal.validations] == [2, 4, 5, 7, 9, 10, 12, 12]
    assert min(line.mse for line in journal.validations if line.mse is not None) == found.progress.best_mse
    assert len({picture.key for picture in journal.pictures}) == 4
    assert journal.steps[-1].step == 72


def test_counts_of_other_scans_teach_nothing(tmp_path: Path) -> None:
    chosen = recipe(epochs=20, patience=50, validate_every=40)
    icc: dict[bool, float] = {}
    for shuffled in (False, True):
        job = task(tmp_path / str(shuffled), chosen, training=drawn(24, 100, even=True, shuffled=shuffled))
        found = trained(replace(job, validation=drawn(16, 900, even=True))).progress.icc
        assert found is not None
        icc[shuffled] = found
    assert icc[False] > 0.7
    assert abs(icc[True]) < 0.25


#: Before and after batch norm is frozen, and in the middle of an epoch.
@pytest.mark.parametrize("cut", [4, 13, 18])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, cut: int) -> None:
    chosen = recipe(epochs=4, validate_every=5, augment={}, set_size=1)
    whole = trained(task(tmp_path / "whole", chosen))

    def cut_off(state: TrainState) -> None:
        if state.step == cut + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(task(tmp_path / "cut", chosen, checkpoint_minutes=0.0), cut_off)
    state = torch.load(tmp_path / "cut" / CHECKPOINT_FILE, weights_only=True)
    assert state["progress"]["step"] == cut
    assert state["progress"]["frozen"] == (cut > 14)
    resumed = trained(task(tmp_path / "cut", chosen, resume=True))
    assert resumed.unit == whole.unit
    assert resumed.progress.best_step == whole.progress.best_step
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    ends = [torch.load(tmp_path / name / CHECKPOINT_FILE, weights_only=True) for name in ("whole", "cut")]
    for name, tensor in ends[0]["network"].items():
        assert torch.equal(tensor, ends[1]["network"][name]), name
    told = [read_journal(tmp_path / name).validations for name in ("whole", "cut")]
    assert told[0] == told[1]


def test_a_checkpoint_of_another_recipe_is_refused_and_a_longer_run_goes_on(tmp_path: Path) -> None:
    trained(task(tmp_path, recipe(epochs=1)))
    with pytest.raises(ConfigError, match="another recipe or seed"):
        trained(task(tmp_path, recipe(epochs=1, batch=2), resume=True))
    longer = trained(task(tmp_path, recipe(epochs=1), resume=True, epochs=2))
    assert longer.progress.step == 12


def test_it_stops_where_nothing_gets_better(tmp_path: Path) -> None:
    still = recipe(
        learning_rate=1e-12, final_learning_rate=1e-13, epochs=50, validate_every=2, patience=3,
        batch_norm=False,
    )  # fmt: skip
    found = trained(task(tmp_path, still))
    assert found.progress.step <= 12
    assert "early, after 3 validations" in found.ended


def test_patience_freezes_batch_norm_before_it_ends_the_run(tmp_path: Path) -> None:
    still = recipe(learning_rate=1e-12, final_learning_rate=1e-13, epochs=50, validate_every=2, patience=2)
    seen: list[int] = []
    found = trained(task(tmp_path, still), lambda state: seen.append(state.step))
    assert found.progress.frozen
    assert 8 <= found.progress.step <= 16


def test_time_ends_a_run(tmp_path: Path) -> None:
    found = trained(task(tmp_path, recipe(epochs=10**5), max_minutes=0.03))
    assert found.ended == "after 0.03 minutes"
    assert 0 < found.progress.step < 10**4
    assert found.progress.judged == found.progress.step


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    broken = InMemory(tuple(replace(each, count=math.inf) for each in TRAINING.volumes))
    with pytest.raises(ConfigError, match=r"recipe 'quick', epoch 1, step 1: the loss is (inf|nan)"):
        trained(task(tmp_path, recipe(), training=broken))


@pytest.mark.parametrize("loss", ["poisson", "negative_binomial"])
def test_each_loss_learns(tmp_path: Path, loss: str) -> None:
    found = trained(task(tmp_path, recipe(loss=loss, epochs=8)))
    assert correlation(found) > 0.9


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_each_pooling_runs(tmp_path: Path, pooling: str) -> None:
    losses: list[float] = []
    shape = TINY.model_copy(update={"pooling": pooling, "last_layer": "free"})
    trained(task(tmp_path, recipe(architecture=shape, epochs=8)), lambda state: losses.append(state.loss))
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_adadelta_learns(tmp_path: Path) -> None:
    settings = {"optimizer": "adadelta", "learning_rate": 1.0, "final_learning_rate": 1.0}
    found = trained(task(tmp_path, recipe(**settings, schedule="constant", gradient_norm=None, epochs=12)))
    assert correlation(found) > 0.9


def test_sums_over_sets_are_learned_from(tmp_path: Path) -> None:
    found = trained(task(tmp_path, recipe(set_size=3, batch=2, epochs=20)))
    assert correlation(found) > 0.9


def test_sets_hold_each_volume_once_and_change_from_epoch_to_epoch() -> None:
    chosen = recipe(set_size=3, batch=2)
    first, second = (steps_of(11, chosen, 5, epoch) for epoch in (0, 1))
    assert len(first) == steps_an_epoch(11, chosen) == 2
    assert [len(step.sets) for step in first] == [2, 2]
    assert [len(each) for step in first for each in step.sets] == [3, 3, 3, 2]
    assert sorted(n for step in first for each in step.sets for n in each) == list(range(11))
    assert {frozenset(each) for step in first for each in step.sets} != {
        frozenset(each) for step in second for each in step.sets
    }
    later = steps_from(11, chosen, 5, (0, 1))
    assert [next(later), next(later)] == [first[1], second[0]]


def test_the_loss_of_a_set_is_that_of_its_sum(tmp_path: Path) -> None:
    """Two volumes as one set give the loss of their sum, as two sets the mean of both."""
    pair = InMemory(TRAINING.volumes[:2])
    plain = {"interpolate": 0.0, "mirror": 0.0, "shift_voxels": 0, "gamma": 0, "brightness": 0, "noise": 0}
    losses: dict[int, float] = {}
    for size in (1, 2):
        chosen = recipe(set_size=size, batch=2, epochs=1, augment=plain, batch_norm=False)
        trained(task(tmp_path / str(size), chosen, training=pair), lambda s: losses.update({s.step: s.loss}))
        losses[-size] = losses[1]
    network = new_network(TINY, 3, batch_norm=False)
    counts = judge(network, 1.0, pair.volumes, half=False)
    truth, found = np.array(counts.truth), np.array(counts.estimate)
    found = found * truth.mean() / found.mean()
    assert losses[-1] == pytest.approx(float(((found - truth) ** 2).mean()), rel=1e-3)
    assert losses[-2] == pytest.approx(float((found.sum() - truth.sum()) ** 2), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_gradients_are_the_same_however_a_step_is_cut(tmp_path: Path, micro: int) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for each in (8, micro):
        chosen = recipe(batch=8, micro_batch=each, epochs=1, batch_norm=False, validate_every=99)
        weights.append(trained(task(tmp_path / f"{each}-{len(weights)}", chosen)).network.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_sets_stay_whole_where_gradients_are_cut() -> None:
    sets = [TRAINING.volumes[k : k + 3] for k in range(0, 9, 3)]
    assert [len(chunk) for chunk in chunks(sets, 1)] == [1, 1, 1]
    assert [len(chunk) for chunk in chunks(sets, 6)] == [2, 1]


def test_volumes_of_different_boxes_go_together() -> None:
    torch.manual_seed(0)
    network = GpUnet(Architecture(widths=(2, 3), convs_per_level=1))
    given = []
    for shape in ((8, 12, 8), (12, 8, 4)):
        mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
        mask[:, :, 3:5, 3:5, 1:3] = True
        given.append(Shown(torch.rand(1, 1, *shape) * mask, mask))
    with torch.no_grad():
        batch = together(given)
        assert batch.mask.shape == (2, 1, 12, 12, 8)
        counts = network(batch.intensities, batch.mask)
    assert int(batch.mask.sum()) == sum(int(each.mask.sum()) for each in given)
    assert counts.shape == (2,)


def test_validation_counts_as_prediction_does() -> None:
    assert VALIDATION.volumes[0].intensities.shape == SHAPE
    torch.manual_seed(1)
    network = GpUnet(TINY)
    found = judge(network, 2.0, VALIDATION.volumes[:3], half=False)
    with torch.inference_mode():
        for volume, estimate in zip(VALIDATION.volumes, found.estimate, strict=False):
            plain = network(
                torch.from_numpy(volume.intensities)[None, None], torch.from_numpy(volume.mask)[None, None]
            )
            assert estimate == pytest.approx(2.0 * float(plain), rel=1e-4)
