"""Training on counted scans: epochs over whole prepared volumes, validation, early stopping, exact resume."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import closing
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from epvs_cohort.model.network import GpUnet
from epvs_cohort.model.predict import bfloat16_is_fast
from epvs_cohort.train.augment import augment
from epvs_cohort.train.checkpoint import read_checkpoint, write_checkpoint
from epvs_cohort.train.journal import Journal
from epvs_cohort.train.loop import check_finite, freeze_norm, recompute_norm, unit_of
from epvs_cohort.train.objective import loss_named
from epvs_cohort.train.optimizers import (
    clip_gradients,
    optimizer_named,
    parameter_groups,
    rate_at,
    set_rate,
)
from epvs_cohort.train.scan_state import ScanProgress, ScanTask, TrainedScans, TrainState, Watch
from epvs_cohort.train.scan_steps import (
    AUGMENTATION,
    STATISTICS,
    Shown,
    Step,
    chunks,
    cut,
    estimates,
    loaded_ahead,
    one_by_one,
    shown,
    steps_an_epoch,
    steps_from,
)
from epvs_cohort.train.scan_validation import judge
from epvs_cohort.train.volumes import CountedVolume

_log = logging.getLogger(__name__)

#: Training volumes that the first counts are scaled on.
UNIT_VOLUMES = 12

#: Share of the smallest error that a validation must be below it for patience to begin anew.
LEAST_GAIN = 1e-3

Weights = dict[str, Tensor]


def train_scans(task: ScanTask, network: GpUnet, watch: Watch, *, fresh: bool) -> TrainedScans:
    """Train a network on counted scans.

    What a step does depends on seed, epoch and number of the step alone, and on the state that a checkpoint holds,
    so that on a CPU a run that was cut off and resumed ends with the bits of one that was not, time limits apart.

    Parameters
    ----------
    task : ScanTask
    network : GpUnet
        Trained in place.
    watch : callable
        Called by the first process at each step.
    fresh : bool
        Weights are random, or those of a network that counts something else: its counts are first brought to the
        size of the true ones.

    Raises
    ------
    ConfigError
        ``resume`` finds no checkpoint or that of another run; loss or gradients stop being finite.
    StoreError
        A volume can no longer be read.
    """
    trainer = _Trainer(task, network)
    if task.run.resume:
        trainer.load()
    elif fresh:
        trainer.scale()
    if not task.group.is_first:
        return trainer.train(None, watch)
    resumed = trainer.progress.step if task.run.resume else None
    with Journal(task.run.out, resumed) as journal:
        return trainer.train(journal, watch)


class _Trainer:
    def __init__(self, task: ScanTask, network: GpUnet) -> None:
        self._task, self._recipe, self._group = task, task.recipe, task.group
        self._device = task.group.device
        self._half = bfloat16_is_fast(task.run.device)
        network = network.to(self._device).requires_grad_(True)
        self._network: GpUnet = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._has_norm = any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
        self._loss = loss_named(task.recipe.loss, task.recipe.dispersion)
        groups = parameter_groups(self._network, task.recipe.weight_decay, task.recipe.last_layer_rate)
        self._optimizer = optimizer_named(task.recipe.optimizer, groups)
        all_at_once = 1 if self._device.type == "cpu" else task.recipe.batch * task.recipe.set_size
        self._together = task.recipe.micro_batch or all_at_once
        self._unit = 1.0
        self._best: Weights = {}
        self.progress = ScanProgress()

    @torch.no_grad()
    def scale(self) -> None:
        """Bring the first counts to the size of the true ones, as training on windows does."""
        self._network.train()
        chosen = [self._task.training.load(n) for n in self._some(UNIT_VOLUMES)]
        found = [
            float(estimates(self._network, [shown(each, self._device)], half=self._half)) for each in chosen
        ]
        unit = unit_of(float(np.mean(found)), float(np.mean([each.count for each in chosen])))
        (self._unit,) = self._group.from_first(unit)

    def train(self, journal: Journal | None, watch: Watch) -> TrainedScans:
        """Go on until epochs, minutes or patience are used up."""
        task, progress = self._task, self.progress
        plan = steps_from(len(task.training), self._recipe, task.run.seed, (progress.epoch, progress.number))
        part = slice(task.group.rank, None, task.group.size)
        started, saved = time.monotonic() - progress.seconds, time.monotonic()
        self._set_mode()
        done, ended = self._decide()
        with closing(loaded_ahead(plan, task.training, part)) as steps:
            while not ended:
                step, loaded = next(steps)
                rate = self._rate(done)
                loss = self._step(step, loaded, rate)
                self._count(step)
                if journal is not None:
                    journal.step(progress.step, step.epoch + 1, loss, rate, time.monotonic() - started)
                if progress.step % self._recipe.validate_every == 0:
                    self._validate(journal)
                progress.seconds = time.monotonic() - started
                done, ended = self._decide()
                if self._group.is_first:
                    watch(self._state(step, loss, done))
                if time.monotonic() - saved > task.run.checkpoint_minutes * 60.0:
                    self._save(journal)
                    saved = time.monotonic()
        return self._finish(journal, ended)

    def load(self) -> None:
        """Take up what a checkpoint holds."""
        state = read_checkpoint(self._task.run.out, self._task.identity, self._device)
        self.progress = ScanProgress(**state["progress"])
        self._unit = float(state["unit"])
        self._best = state["best"]
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _save(self, journal: Journal | None) -> None:
        if journal is None:
            return
        journal.flush()
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "unit": self._unit,
            "progress": asdict(self.progress),
        }
        write_checkpoint(self._task.run.out, self._task.identity, state)

    def _finish(self, journal: Journal | None, ended: str) -> TrainedScans:
        if self.progress.judged != self.progress.step:
            self._validate(journal)
        self._save(journal)
        if self._best:
            self._network.load_state_dict(self._best)
        self._group.copy_from_first(self._network)
        return TrainedScans(self._network, self._unit, self.progress, ended)

    def _step(self, step: Step, loaded: list[list[CountedVolume]], rate: float) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._device)
        for chunk in chunks(loaded, self._together):
            counts = self._counts([volume for each in chunk for volume in each], step)
            sums = torch.stack([part.sum() for part in torch.split(counts, [len(each) for each in chunk])])
            truth = torch.tensor(
                [sum(volume.count for volume in each) for each in chunk], device=self._device
            )
            # A part of the mean over the sets of the whole step, so that parts may come one by one.
            loss = self._loss(sums, truth).sum() / len(step.sets)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._group.add_gradients(self._network.parameters())
        found = float(self._group.total(total))
        norm = clip_gradients(
            (p for p in self._network.parameters() if p.grad is not None), self._recipe.gradient_norm
        )
        where = f"recipe {self._recipe.name!r}, epoch {step.epoch + 1}, step {self.progress.step + 1}"
        # Before the step: weights, and with them any later checkpoint, stay finite.
        check_finite(where, found, norm)
        set_rate(self._optimizer, rate)
        self._optimizer.step()
        return found

    def _counts(self, volumes: list[CountedVolume], step: Step) -> Tensor:
        parts = [
            estimates(self._network, [self._augmented(each, step) for each in piece], half=self._half)
            for piece in cut(volumes, self._together)
        ]
        return torch.cat(parts) * self._unit

    def _augmented(self, volume: CountedVolume, step: Step) -> Shown:
        given = shown(volume, self._device)
        name = int.from_bytes(hashlib.sha256(volume.key.encode()).digest()[:8], "little")
        words = np.random.SeedSequence((self._task.run.seed, AUGMENTATION, step.epoch, name))
        generator = torch.Generator(self._device).manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
        return Shown(*augment(given.intensities, given.mask, self._recipe.augment, generator))

    def _count(self, step: Step) -> None:
        self.progress.step += 1
        self.progress.epoch, self.progress.number = step.epoch, step.number + 1
        if self.progress.number == steps_an_epoch(len(self._task.training), self._recipe):
            self.progress.epoch, self.progress.number = step.epoch + 1, 0

    def _rate(self, done: float) -> float:
        recipe = self._recipe
        rate = rate_at(recipe.schedule, done, recipe.learning_rate, recipe.final_learning_rate)
        return rate * min(1.0, (self.progress.step + 1) / max(1, recipe.warm_up))

    def _decide(self) -> tuple[float, str]:
        """Share of the run that is done, and why it ends, if it does; batch norm is frozen where its time has come."""
        total = self._task.epochs * steps_an_epoch(len(self._task.training), self._recipe)
        steps = self.progress.step / total
        minutes = self._task.run.max_minutes
        # Clocks differ from process to process: the first one's holds.
        time_share, stale = self._group.from_first(
            0.0 if minutes is None else self.progress.seconds / (60.0 * minutes), float(self.progress.stale)
        )
        done, tired = max(steps, time_share), stale >= self._recipe.patience
        start = self._recipe.frozen_norm_from
        if self._has_norm and not self.progress.frozen and start < 1.0 and (done >= start or tired):
            self._freeze(to_best=tired)
            tired = False
        if steps >= 1.0:
            return 1.0, f"after {self._task.epochs} epochs"
        if time_share >= 1.0:
            return 1.0, f"after {minutes:g} minutes"
        if tired:
            return done, f"early, after {self._recipe.patience} validations without a smaller error"
        return done, ""

    def _freeze(self, *, to_best: bool) -> None:
        if self._group.is_first:
            if to_best and self._best:
                self._network.load_state_dict(self._best)
            else:
                self._refresh_norm()
        self._group.copy_from_first(self._network)
        self.progress.frozen, self.progress.stale = True, 0
        self._set_mode()

    def _set_mode(self) -> None:
        self._network.train()
        if self.progress.frozen:
            freeze_norm(self._network)

    def _refresh_norm(self) -> None:
        volumes = (self._task.training.load(n) for n in self._some(self._recipe.norm_volumes))
        given = (shown(each, self._device) for each in volumes)
        recompute_norm(self._network, (estimates(self._network, [each], half=self._half) for each in given))

    def _some(self, most: int) -> list[int]:
        """Numbers of a few training volumes, the same ones each time."""
        rng = np.random.default_rng((self._task.run.seed, STATISTICS))
        return [int(n) for n in rng.permutation(len(self._task.training))[:most]]

    def _validate(self, journal: Journal | None) -> None:
        """Count the validation scans and keep the best weights; the first process's work."""
        progress = self.progress
        progress.judged = progress.step
        if journal is None:
            return
        if self._has_norm and not progress.frozen:
            self._refresh_norm()
        found = judge(self._network, self._unit, one_by_one(self._task.validation), half=self._half)
        self._set_mode()
        figures = found.figures
        progress.mse, progress.icc, progress.stale = figures.mse, figures.icc, progress.stale + 1
        if progress.best_mse is None or figures.mse < (1.0 - LEAST_GAIN) * progress.best_mse:
            progress.stale = 0
        if progress.best_mse is None or figures.mse < progress.best_mse:
            progress.best_mse, progress.best_step = figures.mse, progress.step
            self._best = {name: t.detach().cpu().clone() for name, t in self._network.state_dict().items()}
        _log.info(
            "step %d: validation mse %.3f, icc %.3f, r %.3f, bias %+.2f; best mse %.3f at step %d",
            progress.step, figures.mse, figures.icc, figures.r, figures.bias, progress.best_mse, progress.best_step,
        )  # fmt: skip
        # Of the last step: between two epochs progress is at the next one already.
        epoch = progress.epoch + (1 if progress.number else 0)
        journal.validation(
            progress.step, epoch, found.keys, found.truth, found.estimate, figures.mse, figures.icc
        )
        for picture in found.pictures:
            journal.picture(progress.step, picture.key, picture.intensities, picture.heat)

    def _state(self, step: Step, loss: float, done: float) -> TrainState:
        p = self.progress
        left = p.seconds * (1.0 - done) / done if done > 0 else None
        return TrainState(step.epoch + 1, self._task.epochs, p.step, p.seconds, left, loss, p.mse, p.icc)
