"""From a recipe to a bundle: draw scenes, train on windows, judge on whole volumes, export."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from epvs_cohort import __version__
from epvs_cohort.data.lock import exclusive
from epvs_cohort.errors import ConfigError
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.network import GpUnet
from epvs_cohort.protocol import Protocol, digest, load_protocol
from epvs_cohort.simulate import prepared
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.simulate.noise import TURN_DEG
from epvs_cohort.simulate.settings import file_hashes, image_settings, images_id
from epvs_cohort.simulate.windows import (
    MAX_EDGES,
    PLACES_PER_LESION,
    TRUE_OUTLINE_SHARE,
    LabelledVolume,
    Scene,
    WindowBatch,
    WindowSettings,
    draw_windows,
)
from epvs_cohort.train.checkpoint import check_folder, write_record
from epvs_cohort.train.export import HeldOut, Provenance, draft_bundle, export_bundle, write_bundle
from epvs_cohort.train.loop import Judge, Progress, RunSettings, Source, check_start, train
from epvs_cohort.train.recipe import Recipe
from epvs_cohort.train.scenes import (
    CALIBRATION,
    TRAINING,
    VALIDATION,
    WINDOWS,
    AnatomySplit,
    check_apart,
    draw_scenes,
    draw_volumes,
    orders,
    split_anatomies,
)
from epvs_cohort.train.validate import compare_counts, predict_volumes

_log = logging.getLogger(__name__)

#: Whole volumes that a checkpoint is judged on; more would cost the time of training steps.
JUDGED_VOLUMES = 10


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
        The recipe and its protocol do not go together, there are too few anatomies, nothing to resume from or a
        checkpoint of other inputs, or the loss stops being finite.
    UsageError
        The folder holds something, and it is not a run to resume.
    StoppedError
        Another run is writing to the folder.
    """
    torch.set_num_threads(settings.threads)
    protocol = load_protocol(recipe.protocol)
    check_recipe(recipe, protocol)
    split = split_anatomies(settings.anatomies, recipe)
    training, validation = file_hashes(_files(split.training)), file_hashes(_files(split.validation))
    if settings.anatomies is not None:
        check_apart(settings.anatomies, training, validation)
    inputs = {
        "protocol": digest(protocol.model_dump(mode="json")),
        "simulator": digest(_simulator()),
        "training": training,
        "validation": validation,
    }
    run = replace(settings.run, inputs_id=digest(inputs))
    check_folder(run.out)
    check_start(recipe, run)
    with exclusive(run.out):
        return _train(recipe, replace(settings, run=run), split, inputs)


def _train(
    recipe: Recipe, settings: TrainingSettings, split: AnatomySplit, inputs: Mapping[str, object]
) -> Bundle:
    run, protocol = settings.run, load_protocol(recipe.protocol)
    record = {"recipe": recipe.model_dump(mode="json"), "inputs": inputs, "run": _run_facts(settings)}
    write_record(run.out, record)
    scenes = draw_scenes(
        orders(split.training, recipe.canvases, (run.seed, TRAINING), protocol), settings.n_procs
    )
    held_out = _held_out(recipe, split, protocol, settings)
    judge = _judge_of(recipe, protocol, held_out.validation[:JUDGED_VOLUMES])
    trained = train(recipe, window_source(recipe, scenes, run.seed), run, judge)
    done = {"steps": trained.progress.steps, "minutes": round(trained.progress.seconds / 60.0, 2)}
    write_record(run.out, {**record, "done": done})
    provenance = _provenance(recipe, split, settings, trained.progress)
    exported = export_bundle(trained, recipe, protocol, held_out, provenance)
    return write_bundle(run.out, exported)


def check_recipe(recipe: Recipe, protocol: Protocol) -> None:
    """Check that a recipe can be trained under its protocol.

    Raises
    ------
    ConfigError
        The protocol counts another thing than windows of the region show, or a window is larger than its grid.
    """
    if protocol.count_target != "roi":
        raise ConfigError(
            f"recipe {recipe.name!r}: protocol {protocol.name!r} has the count_target "
            f"{protocol.count_target!r}; windows show lesions of the region, so only 'roi' is legal"
        )
    for number, stage in enumerate(recipe.stages):
        if any(side > n for side, n in zip(stage.window, protocol.grid.shape, strict=True)):
            raise ConfigError(
                f"recipe {recipe.name!r}, stage {number}: the window {stage.window} is larger than the grid "
                f"{protocol.grid.shape} of protocol {protocol.name!r}"
            )


def _simulator() -> dict[str, object]:
    return {
        **image_settings(),
        "residual": [prepared.RESIDUAL_DEG, prepared.RESIDUAL_MM],
        "growth": list(prepared.GROWTH),
        "roi_error": asdict(prepared.ROI_ERROR),
        "true_outline_share": TRUE_OUTLINE_SHARE,
        "windows": [PLACES_PER_LESION, MAX_EDGES],
        "turn_deg": TURN_DEG,
    }


def _files(anatomies: Sequence[Path | None]) -> list[Path]:
    return [BUNDLED_ANATOMY if path is None else path for path in anatomies]


def _run_facts(settings: TrainingSettings) -> dict[str, object]:
    run = settings.run
    return {
        "seed": run.seed,
        "max_minutes": run.max_minutes,
        "device": run.device,
        "threads": settings.threads,
        "resumed": run.resume,
        "program_version": __version__,
    }


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


def _provenance(
    recipe: Recipe, split: AnatomySplit, settings: TrainingSettings, progress: Progress
) -> Provenance:
    run = settings.run
    windows = sum(stage.batch * steps for stage, steps in zip(recipe.stages, progress.steps, strict=False))
    people = (
        f"{len(split.training)} people's label maps" if split.training[0] else "the one bundled label map"
    )
    apart = f"{len(split.validation)} other people's" if split.validation[0] else "the same bundled"
    limit = "without a limit of time" if run.max_minutes is None else f"cut to {run.max_minutes:g} minutes"
    return Provenance(
        trained_on=(
            f"simulated scans only: {windows} windows of {recipe.canvases} lesion-free simulated heads, deformed "
            f"from {people}, with lesions drawn afresh into each window (seed {run.seed})"
        ),
        supervision="the number of lesions in each window; no position of any lesion was shown to the network",
        validated_on=(
            f"{recipe.validation_volumes} whole simulated volumes deformed from {apart} label maps, drawn like the "
            f"training scenes: {1.0 - TRUE_OUTLINE_SHARE:.0%} of them, by chance, with the errors of an atlas "
            "outline, the others with the true one; true counts are those of the whole region; "
            f"difficulty {images_id()} (hash of the simulator's settings)"
        ),
        run_words=(
            f"{progress.seconds / 60.0:.0f} minutes of training steps, {limit}; steps of each stage "
            f"{' + '.join(str(steps) for steps in progress.steps)}; {run.device}, threads {settings.threads}."
        ),
    )
