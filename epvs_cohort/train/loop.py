"""The training loop: counts of windows, AdamW, checkpoints by time, exact resume."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from epvs_cohort.errors import ConfigError
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.model.predict import Device, bfloat16_is_fast
from epvs_cohort.protocol import Settings, digest
from epvs_cohort.simulate.windows import WindowBatch
from epvs_cohort.train.checkpoint import read_checkpoint, require_none, write_checkpoint
from epvs_cohort.train.optimizers import (
    clip_gradients,
    he_weights,
    optimizer_named,
    parameter_groups,
    set_rate,
)
from epvs_cohort.train.recipe import Recipe, StageSettings

_log = logging.getLogger(__name__)

#: Steps that the log's loss and correlation are of.
RECENT_STEPS = 50

#: Batches that batch norm's statistics are averaged over before they are frozen.
NORM_BATCHES = 48

#: Batches that the first counts are scaled on.
UNIT_BATCHES = 4

#: Start of the shift of the batch norm before the last layer: it leaves 2 % of voxels active, so that the sum over a
#: million voxels starts with few of them. Without a way up there is none: in a trial all features went out within ten
#: steps, and nothing was learned any more. The shipped models were trained when it still sat on the norm of the level
#: below, so the same seed now begins elsewhere.
LAST_SHIFT = -2.0

#: Draws the batch of a stage's step; the same arguments give the same batch.
Source = Callable[[int, int], WindowBatch]

#: Says in one line how good a network and its unit are; called at each checkpoint.
Judge = Callable[[GpUnet, float], str]


@dataclass(frozen=True)
class RunSettings:
    """Where and how long a recipe is run.

    Attributes
    ----------
    out : Path
        Folder of the checkpoint.
    seed : int
    max_minutes : float or None
        Time for steps, shared out among the stages by their work; None is the recipe's steps.
    checkpoint_minutes : float
        Time between checkpoints.
    device : str
    resume : bool
        Go on from the checkpoint in ``out``; without it there must be none.
    inputs_id : str
        Hash of what batches are made of besides recipe and seed: protocol and anatomies, or counted scans.
    epochs : int or None
        Passes through counted scans, in place of the recipe's.
    threads : int
        Threads of torch in training on counted scans.
    """

    out: Path
    seed: int = 1
    max_minutes: float | None = None
    checkpoint_minutes: float = 4.0
    device: Device = "cpu"
    resume: bool = False
    inputs_id: str = ""
    epochs: int | None = None
    threads: int = 1


@dataclass
class Progress:
    """How far a run has come; what a checkpoint holds beside weights.

    Attributes
    ----------
    stage : int
        The one under way.
    steps : list of int
        Done in each stage so far.
    stage_seconds, seconds : float
        Time in steps of this stage, and of all.
    """

    stage: int = 0
    steps: list[int] = field(default_factory=lambda: [0])
    stage_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Steps done in the stage under way."""
        return self.steps[-1]

    def next_stage(self) -> None:
        """Begin the next stage."""
        self.stage, self.stage_seconds = self.stage + 1, 0.0
        self.steps.append(0)


@dataclass(frozen=True)
class Trained:
    """A network that still carries batch norm, and how it came about.

    Attributes
    ----------
    network : GpUnet
        Its counts are to be multiplied by ``unit``, see `with_unit`.
    unit : float
        What brought the first counts to the size of the true ones, so that w stays of the order of 1 / C.
    progress : Progress
    """

    network: GpUnet
    unit: float
    progress: Progress


def new_network(architecture: Architecture, seed: int, *, batch_norm: bool) -> GpUnet:
    """Network with random weights."""
    torch.manual_seed(seed)
    network = GpUnet(architecture, batch_norm=batch_norm)
    he_weights(network)
    with torch.no_grad():
        # Kernels without a mean answer to spots and edges, not to the step from background to tissue.
        first = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
        first.weight.sub_(first.weight.mean(dim=(1, 2, 3, 4), keepdim=True))
    if batch_norm and architecture.last_layer == "density" and architecture.upsampling != "none":
        full_resolution = network.up[0] if len(network.up) else network.down[0]
        norms = [module for module in full_resolution.modules() if isinstance(module, nn.BatchNorm3d)]
        nn.init.constant_(norms[-1].bias, LAST_SHIFT)
    return network


@torch.no_grad()
def with_unit(network: GpUnet, unit: float) -> GpUnet:
    """Multiply w and b by ``unit`` in place, so that Eq. 2 holds without it."""
    network.last_weight.mul_(unit)
    if network.last_bias is not None:
        network.last_bias.mul_(unit)
    return network


def train(recipe: Recipe, source: Source, run: RunSettings, judge: Judge | None = None) -> Trained:
    """Train a network by a recipe.

    Each step's batch depends on seed, stage and step alone, so a run that was cut off and resumed from its
    checkpoint goes through the same batches, and on a CPU through the same weights.

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
    return _Trainer(recipe, source, run, judge).train()


def check_start(recipe: Settings, run: RunSettings) -> None:
    """Check that a run may begin, or go on, in its folder; nothing is written or drawn.

    Raises
    ------
    ConfigError, UsageError
        As `train` does.
    """
    if run.resume:
        read_checkpoint(run.out, identity_of(recipe, run), torch.device("cpu"))
    else:
        require_none(run.out)


def identity_of(recipe: Settings, run: RunSettings) -> str:
    """Hash of what a run is made of: a checkpoint of another one is refused."""
    return digest({"recipe": recipe.model_dump(mode="json"), "seed": run.seed, "inputs": run.inputs_id})


class _Trainer:
    def __init__(self, recipe: Recipe, source: Source, run: RunSettings, judge: Judge | None) -> None:
        self._recipe, self._source, self._run, self._judge = recipe, source, run, judge
        self._device = torch.device(run.device)
        self._half = bfloat16_is_fast(run.device)
        self._network = new_network(recipe.architecture, run.seed, batch_norm=recipe.batch_norm).to(
            self._device
        )
        self._network = self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._unit = 1.0
        self._progress = Progress()
        self._optimizer = self._new_optimizer()
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=RECENT_STEPS)
        if run.resume:
            self._load()
        else:
            self._unit = self._first_unit()

    def train(self) -> Trained:
        for number in range(self._progress.stage, len(self._recipe.stages)):
            stage = self._recipe.stages[number]
            if number != self._progress.stage:
                self._progress.next_stage()
                self._optimizer = self._new_optimizer()
            if stage.frozen_norm and self._progress.step == 0:
                batches = (self._on_device(self._source(number, -1 - n))[0] for n in range(NORM_BATCHES))
                recompute_norm(self._network, map(self._network.features, batches))
            self._run_stage(number, stage)
        self._save()
        return Trained(self._network, self._unit, self._progress)

    @torch.no_grad()
    def _first_unit(self) -> float:
        self._network.train()
        batches = [self._on_device(self._source(0, -1 - n)) for n in range(UNIT_BATCHES)]
        found = torch.cat([self._network(volumes, mask) for volumes, mask, _ in batches]).mean()
        true = torch.cat([counts for _, _, counts in batches]).mean()
        return unit_of(float(found), float(true))

    def _run_stage(self, number: int, stage: StageSettings) -> None:
        self._network.train()
        if stage.frozen_norm:
            freeze_norm(self._network)
        saved = time.monotonic()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="windows") as pool:
            waiting: Future[WindowBatch] = pool.submit(self._source, number, self._progress.step)
            while (done := self._share_done(number)) < 1.0:
                started = time.monotonic()
                batch = waiting.result()
                waiting = pool.submit(self._source, number, self._progress.step + 1)
                rate = stage.learning_rate + done * (stage.final_learning_rate - stage.learning_rate)
                self._step(batch, rate)
                self._progress.steps[-1] += 1
                elapsed = time.monotonic() - started
                self._progress.seconds += elapsed
                self._progress.stage_seconds += elapsed
                if self._progress.step % RECENT_STEPS == 0:
                    self._log_line(rate)
                if time.monotonic() - saved > self._run.checkpoint_minutes * 60.0:
                    self._save()
                    self._judge_now(stage)
                    saved = time.monotonic()

    def _share_done(self, number: int) -> float:
        stage = self._recipe.stages[number]
        done = self._progress.step / stage.steps
        if self._run.max_minutes is not None:
            work = [_work(each) for each in self._recipe.stages]
            allowed = self._run.max_minutes * 60.0 * work[number] / sum(work)
            done = max(done, self._progress.stage_seconds / allowed)
        return done

    def _step(self, batch: WindowBatch, rate: float) -> None:
        set_rate(self._optimizer, rate)
        volumes, mask, counts = self._on_device(batch)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
            estimate = self._network(volumes, mask)
        # Mean squared loss on counts (paper, Sec. 2.2).
        estimate = estimate.float() * self._unit
        loss = torch.mean((estimate - counts) ** 2)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._network.parameters(), self._recipe.gradient_norm)
        where = f"recipe {self._recipe.name!r}, stage {self._progress.stage}, step {self._progress.step}"
        # Before the step: weights, and with them any later checkpoint, stay finite.
        check_finite(where, float(loss.detach()), norm)
        self._optimizer.step()
        self._recent.append((estimate.detach().cpu(), counts.cpu()))

    def _on_device(self, batch: WindowBatch) -> tuple[Tensor, Tensor, Tensor]:
        volumes = torch.from_numpy(batch.intensities)[:, None].to(self._device)
        volumes = volumes.contiguous(memory_format=torch.channels_last_3d)
        mask = torch.from_numpy(batch.mask)[:, None].to(self._device)
        return volumes, mask, torch.from_numpy(batch.counts).to(self._device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return optimizer_named("adamw", parameter_groups(self._network, self._recipe.weight_decay))

    def _log_line(self, rate: float) -> None:
        estimates = torch.cat([estimate for estimate, _ in self._recent])
        counts = torch.cat([count for _, count in self._recent])
        r = float(torch.corrcoef(torch.stack([estimates, counts]))[0, 1])
        p = self._progress
        _log.info(
            "stage %d step %d: loss %.3f, r %.3f, rate %.2g, %.1f min, %.2f s/step",
            p.stage, p.step, float(torch.mean((estimates - counts) ** 2)), r, rate,
            p.seconds / 60.0, p.stage_seconds / p.step,
        )  # fmt: skip

    def _judge_now(self, stage: StageSettings) -> None:
        if self._judge is None:
            return
        self._network.eval()
        _log.info(
            "stage %d step %d: %s",
            self._progress.stage,
            self._progress.step,
            self._judge(self._network, self._unit),
        )
        self._network.train()
        if stage.frozen_norm:
            freeze_norm(self._network)

    def _save(self) -> None:
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "unit": self._unit,
            "progress": asdict(self._progress),
        }
        write_checkpoint(self._run.out, identity_of(self._recipe, self._run), state)

    def _load(self) -> None:
        state = read_checkpoint(self._run.out, identity_of(self._recipe, self._run), self._device)
        self._progress = Progress(**state["progress"])
        self._unit = float(state["unit"])
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])


def unit_of(found: float, true: float) -> float:
    """Factor that brings first counts of the mean ``found`` to the mean of the ``true`` ones; 1 where there is none.

    >>> unit_of(0.5, 6.0), unit_of(0.0, 6.0)
    (12.0, 1.0)
    """
    unit = true / found if found > 0 else 0.0
    return unit if math.isfinite(unit) and unit > 0 else 1.0


def check_finite(where: str, loss: float, norm: float) -> None:
    """Refuse a step whose loss or gradient is not finite.

    Raises
    ------
    ConfigError
        Says where.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise ConfigError(
            f"{where}: the loss is {loss} and the norm of its gradient {norm}; both must be finite",
            hint="lower the learning rate",
        )


def _work(stage: StageSettings) -> int:
    i, j, k = stage.window
    return stage.steps * stage.batch * i * j * k


def freeze_norm(network: nn.Module) -> None:
    """Let batch norm use the statistics it has, and leave them as they are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()


@torch.no_grad()
def recompute_norm(network: nn.Module, passes: Iterable[Tensor]) -> None:
    """Replace batch norm's running statistics by plain averages over passes through the network.

    Parameters
    ----------
    network : Module
    passes : iterable of Tensor
        Features, each computed by ``network`` when it is asked for.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None asks for the cumulative average.
        norm.momentum = None
    network.train()
    for _ in passes:
        # The pass itself is what counts.
        pass
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
