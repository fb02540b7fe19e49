"""The training loop of the segmenting network: AdamW, a moving average of the weights, exact resume."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from epvs_cohort.model.predict import bfloat16_is_fast
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet
from epvs_cohort.train.checkpoint import read_checkpoint, write_checkpoint
from epvs_cohort.train.loop import (
    RunSettings,
    check_finite,
    check_start,
    freeze_norm,
    identity_of,
    recompute_norm,
)
from epvs_cohort.train.optimizers import (
    clip_gradients,
    he_weights,
    optimizer_named,
    parameter_groups,
    rate_at,
    set_rate,
)
from epvs_cohort.train.roi_loss import segmentation_loss
from epvs_cohort.train.roi_recipe import RoiRecipe
from epvs_cohort.train.roi_samples import Batch

_log = logging.getLogger(__name__)

#: Steps that the log's loss is the mean of.
RECENT_STEPS = 50

#: Batches from a step on, without end.
Source = Callable[[int], Iterator[Batch]]

#: Says in one line how good a network is after some steps; called at each checkpoint.
Judge = Callable[[RoiUnet, int], str]


@dataclass
class RoiProgress:
    """How far a run has come; what a checkpoint holds beside weights.

    Attributes
    ----------
    step : int
        Steps done.
    seconds : float
        Time in them.
    frozen : bool
        Whether batch norm keeps its statistics.
    """

    step: int = 0
    seconds: float = 0.0
    frozen: bool = False


@dataclass(frozen=True)
class RoiState:
    """How far a run is, told at each step.

    Attributes
    ----------
    step, steps : int
        Steps done, and of the recipe.
    seconds, seconds_left : float
        Time in steps, and what is left of it: of the time given, or of the recipe's steps, each as long as its voxels
        are many.
    loss : float
        Mean of the latest steps.
    judged : str or None
        What was said of the network at the latest checkpoint.
    """

    step: int
    steps: int
    seconds: float
    seconds_left: float
    loss: float
    judged: str | None


RoiWatch = Callable[[RoiState], None]


@dataclass(frozen=True)
class Sources:
    """Where heads come from.

    Attributes
    ----------
    training : callable
        Batches from a step on; each depends on its step alone.
    norm : callable
        One pass of batches for batch norm's statistics.
    start : RoiUnet or None
        Network without batch norm to go on from; None is random weights.
    """

    training: Source
    norm: Callable[[], Iterator[Batch]]
    start: RoiUnet | None = None


def new_roi_network(architecture: RoiArchitecture, seed: int) -> RoiUnet:
    """Network with batch norm and random weights."""
    torch.manual_seed(seed)
    network = RoiUnet(architecture, batch_norm=True)
    he_weights(network)
    return network


def train_roi_network(
    recipe: RoiRecipe,
    sources: Sources,
    run: RunSettings,
    judge: Judge | None = None,
    watch: RoiWatch | None = None,
) -> tuple[RoiUnet, RoiProgress]:
    """Train a network by a recipe.

    Each step's heads depend on seed and step alone, so a run that was cut off and resumed from its checkpoint goes
    through the same heads, and on a CPU through the same weights.

    Parameters
    ----------
    recipe : RoiRecipe
    sources : Sources
    run : RunSettings
    judge : callable, optional
        Called at each checkpoint.
    watch : callable, optional
        Called at each step.

    Returns
    -------
    tuple
        The network, averaged where the recipe says so, with batch norm; and how it came about.

    Raises
    ------
    ConfigError
        ``resume`` finds no checkpoint, or one of another recipe, seed or inputs; or loss or gradients stop being
        finite.
    UsageError
        There is a checkpoint, and ``resume`` is not asked for.
    """
    check_start(recipe, run)
    run.out.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(recipe, sources, run)
    return trainer.train(judge or _no_words, watch or _no_watch)


class _Trainer:
    def __init__(self, recipe: RoiRecipe, sources: Sources, run: RunSettings) -> None:
        self._recipe, self._sources, self._run = recipe, sources, run
        self._device = torch.device(run.device)
        self._half = bfloat16_is_fast(run.device)
        network = sources.start or new_roi_network(recipe.architecture, run.seed)
        network = copy.deepcopy(network).to(self._device)
        self._network: RoiUnet = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._average = AveragedModel(self._network, avg_fn=_averaging(recipe.average_decay))
        self._optimizer = optimizer_named("adamw", parameter_groups(self._network, recipe.weight_decay))
        self._progress = RoiProgress()
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._judged: str | None = None
        if run.resume:
            self._load()

    def train(self, judge: Judge, watch: RoiWatch) -> tuple[RoiUnet, RoiProgress]:
        self._network.train()
        if self._progress.frozen:
            freeze_norm(self._network)
        saved = time.monotonic()
        batches = self._sources.training(self._progress.step)
        while (done := self._share_done()) < 1.0:
            if done >= self._recipe.frozen_norm_from and self._is_fine() and not self._progress.frozen:
                self._freeze()
            started = time.monotonic()
            self._step(next(batches), self._rate(done))
            self._progress.step += 1
            self._progress.seconds += time.monotonic() - started
            watch(self._state())
            if self._progress.step % RECENT_STEPS == 0:
                self._log_line(done)
            if time.monotonic() - saved > self._run.checkpoint_minutes * 60.0:
                self._save()
                self._judged = judge(self._shown(), self._progress.step) or None
                saved = time.monotonic()
        self._save()
        return self._shown(), self._progress

    def _share_done(self) -> float:
        done = self._progress.step / self._recipe.steps
        if self._run.max_minutes is not None:
            done = max(done, self._progress.seconds / (self._run.max_minutes * 60.0))
        return done

    def _is_fine(self) -> bool:
        """Whether heads lie on the grid that the network will run on, to which the statistics of batch norm belong."""
        return self._progress.step >= self._recipe.coarse_steps

    def _rate(self, done: float) -> float:
        recipe = self._recipe
        rate = rate_at("cosine", done, recipe.learning_rate, recipe.final_learning_rate)
        return rate * min(1.0, (self._progress.step + 1) / (recipe.warm_up + 1))

    def _step(self, batch: Batch, rate: float) -> None:
        set_rate(self._optimizer, rate)
        classes = batch.classes.to(self._device).long()
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            scores = self._network(self._volumes(batch))
        loss = segmentation_loss(scores, classes, self._recipe.cross_entropy)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._network.parameters(), self._recipe.gradient_norm)
        found = float(loss.detach())
        # Before the step: weights, and with them any later checkpoint, stay finite.
        check_finite(f"recipe {self._recipe.name!r}, step {self._progress.step}", found, norm)
        self._optimizer.step()
        self._average.update_parameters(self._network)
        self._recent.append(found)

    def _volumes(self, batch: Batch) -> Tensor:
        return batch.intensities.to(self._device).contiguous(memory_format=torch.channels_last_3d)

    @torch.no_grad()
    def _freeze(self) -> None:
        """Batch norm gets the statistics of all heads that it is to be folded with, and keeps them."""
        recompute_norm(
            self._network, (self._network.features(self._volumes(batch)) for batch in self._sources.norm())
        )
        freeze_norm(self._network)
        self._progress.frozen = True

    def _shown(self) -> RoiUnet:
        """What is judged and exported."""
        averaged = self._average.module
        assert isinstance(averaged, RoiUnet)
        return averaged if self._recipe.average_decay else self._network

    def _log_line(self, done: float) -> None:
        _log.info(
            "step %d: loss %.4f, rate %.2g, %.1f min, %.2f s/step",
            self._progress.step,
            sum(self._recent) / len(self._recent),
            self._rate(done),
            self._progress.seconds / 60.0,
            self._progress.seconds / self._progress.step,
        )

    def _state(self) -> RoiState:
        progress, recipe = self._progress, self._recipe
        if self._run.max_minutes is not None and self._share_done() > progress.step / recipe.steps:
            left = self._run.max_minutes * 60.0 - progress.seconds
        else:
            done, total = _work(recipe, progress.step), _work(recipe, recipe.steps)
            left = progress.seconds * (total - done) / done
        loss = sum(self._recent) / len(self._recent)
        return RoiState(progress.step, recipe.steps, progress.seconds, max(left, 0.0), loss, self._judged)

    def _save(self) -> None:
        state = {
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "progress": asdict(self._progress),
        }
        write_checkpoint(self._run.out, identity_of(self._recipe, self._run), state)

    def _load(self) -> None:
        state = read_checkpoint(self._run.out, identity_of(self._recipe, self._run), self._device)
        self._progress = RoiProgress(**state["progress"])
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])


def _work(recipe: RoiRecipe, steps: int) -> int:
    """Voxels that go through the network in so many steps, of one head a step."""
    coarse = min(steps, recipe.coarse_steps)
    shown = recipe.window or recipe.grid.shape
    return coarse * math.prod(recipe.grid_at(0).shape) + (steps - coarse) * math.prod(shown)


def _no_words(network: RoiUnet, step: int) -> str:
    return ""


def _no_watch(state: RoiState) -> None:
    pass


def _averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average that forgets faster while there is little to remember."""

    def average(held: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
        # (1 + n) / (10 + n) as in TensorFlow's ExponentialMovingAverage: random first weights are soon forgotten.
        n = float(n_averaged)
        return held + (1.0 - min(decay, (1.0 + n) / (10.0 + n))) * (current - held)

    return average
