"""``epvs-cohort train-roi``: make the bundle that outlines the basal ganglia, from label maps alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from epvs_cohort.cli import options
from epvs_cohort.cli.live import RoiLine
from epvs_cohort.cli.train import stoppable
from epvs_cohort.errors import UsageError

#: Recipe where none is named.
ROI_RECIPE = "roi-near"

#: Figures of the bundle that are told at the end.
_TOLD = ("dice basal ganglia", "lowest dice basal ganglia", "volume error basal ganglia")


def train_roi(
    anatomies: Annotated[
        Path,
        typer.Option(
            "--anatomies", help="Folder of whole-head label maps with FreeSurfer numbers, one a person."
        ),
    ],
    out: options.BundleOut,
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME|FILE", help="How to train.")] = ROI_RECIPE,
    people: Annotated[
        str | None,
        typer.Option(
            "--people",
            metavar="LIST",
            help="Who trains, in place of the recipe's: numbers in order of name (1-9,12) or names of label maps.",
        ),
    ] = None,
    validation_people: Annotated[
        str | None,
        typer.Option(
            "--validation-people",
            metavar="LIST",
            help="Who validates, in place of the recipe's; others than --people.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="NAME|DIR", help="Bundle to start from; without it random weights."),
    ] = None,
    max_minutes: options.MaxMinutes = None,
    seed: options.ModelSeed = 1,
    n_procs: Annotated[
        int,
        typer.Option(
            "--n-procs", min=1, help="Processes that draw heads beside the training; 1 is the training's own."
        ),
    ] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the training itself.")] = 1,
    device: options.Device = "auto",
    resume: options.Resume = False,
) -> None:
    """Train a network that outlines the basal ganglia in any contrast, from label maps of heads alone."""
    with stoppable(out):
        from epvs_cohort.train.loop import RunSettings
        from epvs_cohort.train.recipe import load_recipe
        from epvs_cohort.train.roi_recipe import RoiRecipe
        from epvs_cohort.train.roi_workflow import RoiSettings
        from epvs_cohort.train.roi_workflow import train_roi as run_recipe

        chosen = load_recipe(recipe)
        if not isinstance(chosen, RoiRecipe):
            raise UsageError(
                f"--recipe {recipe}: trains a network that counts", hint="epvs-cohort train takes it"
            )
        split = {"training_people": people, "validation_people": validation_people}
        chosen = chosen.model_copy(update={name: words for name, words in split.items() if words})
        run = RunSettings(
            out=out,
            seed=seed,
            max_minutes=max_minutes,
            device=options.usable_device(device),
            resume=resume,
            threads=threads,
        )
        with RoiLine(Console(stderr=True)) as live:
            bundle = run_recipe(chosen, RoiSettings(run, anatomies, n_procs, init), live.show)
    figures = bundle.card.validation
    told = ", ".join(f"{name} {figures[name]:g}" for name in _TOLD if name in figures)
    line = (
        f"{out}: {bundle.card.name} {bundle.model_id}; simulated validation: {told or 'no head shows them'}"
    )
    Console(soft_wrap=True).print(Text(line))
