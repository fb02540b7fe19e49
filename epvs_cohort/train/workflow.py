"""From a recipe to a bundle: draw scenes, train on windows, judge on whole volumes, export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.network import GpUnet
from epvs_cohort.protocol import Protocol, load_protocol
from epvs_cohort.simulate.windows import LabelledVolume, Scene, WindowBatch, WindowSettings, draw_windows
from epvs_cohort.train.export import HeldOut, Provenance, draft_bundle, export_bundle, write_bundle
from epvs_cohort.train.loop import Judge, Progress, RunSettings, Source, train
from epvs_cohort.train.recipe import Recipe
from epvs_cohort.train.scenes import (
    CALIBRATION,
    TRAINING,
    VALIDATION,
    WINDOWS,
    AnatomySplit,
    draw_scenes,
    draw_volumes,
    orders,
    split_anatomies,
)
from epvs_cohort.train.validate import compare_counts, predict_volumes

_log = logging.getLogger(__name__)

#: Whole volumes that a checkpoint is judged on; more would cost the time of training steps.
JUDGED_VOLUMES = 10

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class TrainingSettings:
    """What the command adds to a recipe.

    Attributes
    ----------
    run : RunSettings
        Folder, seed, time and device.
    anatomies : Path or None
        Folder of label maps; None is the bundled one.
    n_procs : int
        Processes that draw scenes.
    threads : int
        Threads of torch.
    """

    run: RunSettings
    anatomies: Path | None = None
    n_procs: int = 1
    threads: int = 1


def train_recipe(recipe: Recipe, settings: TrainingSettings) -> Bundle:
    """Train a model by a recipe and write its bundle to ``settings.run.out``.

    Raises
    ------
    ConfigError
        Too few anatomies, or nothing to resume from.
    """
    run = settings.run
    torch.set_num_threads(settings.threads)
    protocol = load_protocol(recipe.protocol)
    split = split_anatomies(settings.anatomies, recipe)
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    scenes = draw_scenes(
        orders(split.training, recipe.canvases, (run.seed, TRAINING), protocol), settings.n_procs
    )
    held_out = _held_out(recipe, split, protocol, settings)
    judge = _judge_of(recipe, protocol, held_out.validation[:JUDGED_VOLUMES])
    trained = train(recipe, window_source(recipe, scenes, run.seed), run, judge)
    provenance = _provenance(recipe, split, run.seed, trained.progress)
    exported = export_bundle(trained, recipe, protocol, held_out, provenance)
    return write_bundle(run.out, exported)


def window_source(recipe: Recipe, scenes: tuple[Scene, ...], seed: int) -> Source:
    """Batches of windows; each depends on seed, stage and step alone."""

    def draw(stage: int, step: int) -> WindowBatch:
        # Steps below zero are batches for statistics; seeds are not negative.
        rng = np.random.default_rng((seed, WINDOWS, stage, step + 10_000))
        chosen = recipe.stages[stage]
        settings = WindowSettings(
            chosen.window,
            max_count=chosen.max_count,
            contrast_floor=chosen.contrast_floor,
            **recipe.draw.model_dump(),
        )
        return draw_windows(scenes, chosen.batch, settings, rng)

    return draw


def _held_out(recipe: Recipe, split: AnatomySplit, protocol: Protocol, settings: TrainingSettings) -> HeldOut:
    seed, n_procs = settings.run.seed, settings.n_procs
    calibration = orders(split.training, recipe.calibration_volumes, (seed, CALIBRATION), protocol)
    validation = orders(split.validation, recipe.validation_volumes, (seed, VALIDATION), protocol)
    return HeldOut(draw_volumes(calibration, n_procs), _shuffled(draw_volumes(validation, n_procs), seed))


def _shuffled(volumes: list[LabelledVolume], seed: int) -> list[LabelledVolume]:
    order = np.random.default_rng(seed).permutation(len(volumes))
    return [volumes[n] for n in order]


def _judge_of(recipe: Recipe, protocol: Protocol, volumes: Sequence[LabelledVolume]) -> Judge:
    def judge(network: GpUnet, unit: float) -> str:
        predictions = predict_volumes(draft_bundle(network, unit, recipe, protocol), volumes)
        pairs = ", ".join(
            f"{each.count}:{prediction.count:.1f}"
            for each, prediction in zip(volumes, predictions, strict=True)
        )
        figures = compare_counts(volumes, predictions)
        return (
            f"whole volumes, icc {figures.icc:.3f}, r {figures.r:.3f}, mae {figures.mae:.2f}, "
            f"bias {figures.bias:+.2f}, slope {figures.slope:.2f}; true:estimated {pairs}"
        )

    return judge


def _provenance(recipe: Recipe, split: AnatomySplit, seed: int, progress: Progress) -> Provenance:
    windows = sum(stage.batch * steps for stage, steps in zip(recipe.stages, progress.steps, strict=False))
    people = (
        f"{len(split.training)} people's label maps" if split.training[0] else "the one bundled label map"
    )
    apart = f"{len(split.validation)} other people's" if split.validation[0] else "the same bundled"
    return Provenance(
        trained_on=(
            f"simulated scans only: {windows} windows of {recipe.canvases} lesion-free simulated heads, deformed "
            f"from {people}, with lesions drawn afresh into each window (seed {seed})"
        ),
        supervision="the number of lesions in each window; no position of any lesion was shown to the network",
        validated_on=(
            f"{recipe.validation_volumes} whole simulated volumes deformed from {apart} label maps, drawn like the "
            "training scenes, with the errors of an atlas outline; true counts are those of the whole region"
        ),
        minutes=progress.seconds / 60.0,
    )
