"""From label maps to a bundle that segments heads: choose people, train, validate, export."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final

import torch

from epvs_cohort import __version__
from epvs_cohort.data.head_grid import CenteredOn, HeadGrid
from epvs_cohort.data.lock import exclusive
from epvs_cohort.errors import ConfigError
from epvs_cohort.model.bundle_files import CARD_FILE, NO_HASH
from epvs_cohort.model.roi_bundle import RoiBundle, RoiCard, save_roi_bundle
from epvs_cohort.model.roi_network import RoiUnet, fold_roi_network
from epvs_cohort.protocol import digest
from epvs_cohort.simulate.settings import file_hashes
from epvs_cohort.simulate.whole_heads import HeadSample, whole_head_settings
from epvs_cohort.train.allocator import keep_freed_memory
from epvs_cohort.train.checkpoint import check_folder, write_record
from epvs_cohort.train.loop import RunSettings, check_start
from epvs_cohort.train.roi_loop import Judge, RoiProgress, RoiWatch, Sources, train_roi_network
from epvs_cohort.train.roi_recipe import RoiRecipe
from epvs_cohort.train.roi_samples import (
    NORM,
    TRAINING,
    VALIDATION,
    Batch,
    Heads,
    batch_of,
    batches,
    choose_people,
    draw_heads,
)
from epvs_cohort.train.roi_start import roi_start
from epvs_cohort.train.roi_validate import validate
from epvs_cohort.train.scenes import check_apart

_log = logging.getLogger(__name__)

#: Heads that a checkpoint is judged on; more would cost the time of training steps.
JUDGED_HEADS = 8

#: What is told of a checkpoint while it trains, in words; the log tells every class.
_JUDGED = {
    "Dice of basal ganglia": "dice basal ganglia",
    "lowest": "lowest dice basal ganglia",
    "error of volume": "volume error basal ganglia",
}

_WHERE: Final[dict[CenteredOn, str]] = {
    "head": "on a whole scan, before any registration",
    "basal ganglia": "around the basal ganglia of a scan that lies straight after rigid registration",
}
_ALONG: Final[dict[CenteredOn, str]] = {
    "head": "around the middle of the head, along the axes of the scan's RAS frame",
    "basal ganglia": "around the middle of the basal ganglia, along the axes of the frame of the rigid registration",
}

LIMITS = (
    "Not for diagnosis or any decision about a person. Trained on simulated images of label maps only; no figure here "
    "is an accuracy on real scans. Look at the outlines on your own scans before using them in a study."
)


@dataclass(frozen=True)
class RoiSettings:
    """What the command adds to a recipe.

    Attributes
    ----------
    run : RunSettings
        Folder, seed, time, device and threads.
    anatomies : Path
        Folder of label maps.
    n_procs : int
        Processes that draw heads; 1 is the training's own.
    init : str or None
        Bundle to start from, by name or folder; None is random weights.
    """

    run: RunSettings
    anatomies: Path
    n_procs: int = 1
    init: str | None = None


@dataclass(frozen=True)
class _People:
    training: tuple[Path, ...]
    validation: tuple[Path, ...]


@dataclass(frozen=True)
class _Order:
    """A training, checked: recipe, people, what they are recorded as, and the network to start from."""

    recipe: RoiRecipe
    people: _People
    inputs: Mapping[str, object]
    start: RoiUnet | None


def train_roi(recipe: RoiRecipe, settings: RoiSettings, watch: RoiWatch | None = None) -> RoiBundle:
    """Train a network by a recipe and write its bundle to ``settings.run.out``.

    Parameters
    ----------
    recipe : RoiRecipe
    settings : RoiSettings
    watch : callable, optional
        Called at each step.

    Raises
    ------
    ConfigError
        People are asked for that are not there, or both to train and to validate; nothing to resume from or a
        checkpoint of other inputs; or the loss stops being finite.
    ModelError
        The bundle to start from cannot be loaded, is no start for this recipe, or knows people who are to validate.
    UsageError
        The folder holds something, and it is not a run to resume.
    StoppedError
        Another run is writing to the folder.
    """
    torch.set_num_threads(settings.run.threads)
    # A step of two heads takes 3.3 s of a core in place of 4.6 s.
    keep_freed_memory()
    people = _chosen(recipe, settings.anatomies)
    training, validation = file_hashes(people.training), file_hashes(people.validation)
    check_apart(settings.anatomies, training, validation)
    inputs: dict[str, object] = {
        "simulator": digest(whole_head_settings()),
        "training": training,
        "validation": validation,
    }
    start = None
    if settings.init is not None:
        start, inputs["init"] = roi_start(settings.init, recipe, validation)
    run = replace(settings.run, inputs_id=digest(inputs))
    check_folder(run.out)
    check_start(recipe, run)
    with exclusive(run.out):
        return _train(_Order(recipe, people, inputs, start), replace(settings, run=run), watch)


def _chosen(recipe: RoiRecipe, folder: Path) -> _People:
    training = choose_people(folder, recipe.training_people)
    validation = choose_people(folder, recipe.validation_people)
    if both := [path.name for path in training if path in validation]:
        raise ConfigError(
            f"{folder}: {', '.join(both)} is asked for both to train ({recipe.training_people!r}) and to validate "
            f"({recipe.validation_people!r}); validation needs other people"
        )
    return _People(training, validation)


def _train(order: _Order, settings: RoiSettings, watch: RoiWatch | None) -> RoiBundle:
    run, recipe, people = settings.run, order.recipe, order.people
    record = {"recipe": recipe.model_dump(mode="json"), "inputs": order.inputs, "run": _run_facts(settings)}
    write_record(run.out, record)
    shown = Heads(people.validation, (run.seed, VALIDATION), recipe.grid, recipe.draw)
    validation = draw_heads(shown, range(recipe.validation_heads), settings.n_procs)
    sources = head_sources(recipe, people.training, settings, order.start)
    judge = _judge_of(recipe, shown, settings)
    network, progress = train_roi_network(recipe, sources, run, judge, watch)
    done = {"steps": progress.step, "minutes": round(progress.seconds / 60.0, 2)}
    write_record(run.out, {**record, "done": done})
    folded = fold_roi_network(network)
    figures = validate(folded.to(run.device), validation, recipe.grid.spacing_mm)
    _log.info("%s", figures)
    card = _card(order, run, figures)
    # The card of an earlier export goes first, so that it names no other weights.
    (run.out / CARD_FILE).unlink(missing_ok=True)
    return save_roi_bundle(run.out, card, folded.cpu(), _readme(card, progress, run))


def head_sources(
    recipe: RoiRecipe, people: tuple[Path, ...], settings: RoiSettings, start: RoiUnet | None = None
) -> Sources:
    """Heads of some people for training and for batch norm; each depends on seed and number alone."""
    seed = settings.run.seed
    norm = Heads(people, (seed, NORM), recipe.grid, recipe.draw)

    def of_training(first: int) -> Iterator[Batch]:
        if coarse := recipe.coarse_steps - first > 0:
            yield from islice(of_grid(first), recipe.coarse_steps - first)
        yield from of_grid(recipe.coarse_steps if coarse else first)

    def of_grid(first: int) -> Iterator[Batch]:
        heads = Heads(people, (seed, TRAINING), recipe.grid_at(first), recipe.draw, recipe.window_at(first))
        return batches(heads, recipe.batch, first, settings.n_procs)

    def of_norm() -> Iterator[Batch]:
        # One process: those of the training go on drawing ahead meanwhile.
        for number in range(recipe.norm_heads):
            yield batch_of(draw_heads(norm, [number], 1))

    return Sources(of_training, of_norm, start)


def _judge_of(recipe: RoiRecipe, shown: Heads, settings: RoiSettings) -> Judge:
    @cache
    def heads_on(grid: HeadGrid) -> list[HeadSample]:
        number = min(JUDGED_HEADS, recipe.validation_heads)
        return draw_heads(replace(shown, grid=grid), range(number), settings.n_procs)

    def judge(network: RoiUnet, step: int) -> str:
        grid = recipe.grid_at(step)
        folded = fold_roi_network(network).to(settings.run.device)
        figures = validate(folded, heads_on(grid), grid.spacing_mm)
        _log.info("step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        told = {words: figures[name] for words, name in _JUDGED.items() if name in figures}
        return ", ".join(f"{words} {value:.3f}" for words, value in told.items())

    return judge


def _run_facts(settings: RoiSettings) -> dict[str, object]:
    run = settings.run
    return {
        "seed": run.seed,
        "max_minutes": run.max_minutes,
        "device": run.device,
        "threads": run.threads,
        "n_procs": settings.n_procs,
        "resumed": run.resume,
        "program_version": __version__,
    }


def _card(order: _Order, run: RunSettings, figures: dict[str, float]) -> RoiCard:
    recipe, people, init = order.recipe, order.people, order.inputs.get("init")
    begun = f"; begun from {init['name']} {init['model_id']}" if isinstance(init, Mapping) else ""
    return RoiCard(
        name=recipe.name,
        architecture=recipe.architecture,
        grid=recipe.grid,
        centered_on=recipe.draw.centered_on,
        trained_on=(
            f"simulated images only: heads of random shape, pose, contrast, resolution and quality, drawn from the "
            f"label maps of {len(people.training)} people (seed {run.seed}){begun}; no real scan"
        ),
        validated_on=(
            f"{recipe.validation_heads} heads drawn alike from the label maps of {len(people.validation)} other "
            "people; Dice of a class over the heads that show it"
        ),
        validation=figures,
        limits=LIMITS,
        weights_sha256=NO_HASH,
    )


def _readme(card: RoiCard, progress: RoiProgress, run: RunSettings) -> str:
    widths = "/".join(str(width) for width in card.architecture.widths)
    shape = " × ".join(str(n) for n in card.grid.shape)
    rows = "\n".join(f"| {name} | {value:g} |" for name, value in card.validation.items())
    return f"""# {card.name}

Tells the basal ganglia and the other parts of a head apart {_WHERE[card.centered_on]}, in any
contrast. **Trained on simulated images; no figure below is an accuracy on real scans.**

* **Network:** 3D U-Net, feature maps {widths}, {card.architecture.convs_per_level} convolutions a level; batch norm
  folded into the convolutions.
* **Classes:** {", ".join(card.classes)}.
* **Grid:** {shape} voxels of {card.grid.spacing_mm:g} mm {_ALONG[card.centered_on]}; intensities scaled as
  `{card.normalisation}`.
* **Trained on:** {card.trained_on}
* **Run:** {progress.step} steps in {progress.seconds / 60.0:.0f} minutes; {run.device}, threads {run.threads}.

## Figures on simulated validation data

{card.validated_on}

| | |
|---|---|
{rows}

## What it must not be used for

{card.limits}
"""
