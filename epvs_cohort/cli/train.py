"""``epvs-cohort train``: make a model bundle from a recipe and simulated scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from epvs_cohort.model.predict import best_device
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import load_recipe
from epvs_cohort.train.workflow import TrainingSettings, train_recipe


def train(
    out: Annotated[Path, typer.Option(help="Folder of the bundle and of the checkpoints.")],
    recipe: Annotated[str, typer.Option(help="Bundled recipe by name, or a TOML file.")] = "gp-unet-sim",
    anatomies: Annotated[
        Path | None,
        typer.Option(help="Folder of FreeSurfer label maps; without it the one bundled map, deformed."),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time for training steps; without it the recipe's steps.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="One seed, one model.")] = 1,
    n_procs: Annotated[int, typer.Option(min=1, help="Processes that draw scenes before training.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the training itself.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto is cuda where there is one.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
) -> None:
    """Train a model bundle on simulated scans, from counts alone."""
    chosen = best_device() if device == "auto" else device
    run = RunSettings(out=out, seed=seed, max_minutes=max_minutes, device=chosen, resume=resume)
    bundle = train_recipe(load_recipe(recipe), TrainingSettings(run, anatomies, n_procs, threads))
    figures = ", ".join(f"{name} {value:g}" for name, value in bundle.card.validation.items())
    typer.echo(f"{out}: {bundle.card.name} {bundle.model_id}; simulated validation: {figures}")
