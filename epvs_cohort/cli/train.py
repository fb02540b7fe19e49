"""``epvs-cohort train``: make a model bundle from counted scans, or from a recipe of simulated windows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from epvs_cohort.cli import options
from epvs_cohort.cli.live import LiveLine
from epvs_cohort.cli.train_data import DataRequest, Study, gather, is_first, named_study, per_process
from epvs_cohort.errors import OutputError, StoppedError, UsageError

# Loaded when the command is called: torch takes seconds, and its help needs none of it.
if TYPE_CHECKING:
    from epvs_cohort.model.bundle import Bundle
    from epvs_cohort.train.loop import RunSettings
    from epvs_cohort.train.recipe import AnyRecipe

_COUNTED = "Counted scans (with SCANS)"
_WINDOWS = "Simulated windows (without SCANS)"
_USE = "epvs-cohort train SCANS --counts counts.csv --out MODEL"

#: Recipes where none is named: of simulated windows, of counted scans, and of these from a bundle on.
WINDOW_RECIPE, SCAN_RECIPE, TUNE_RECIPE = "gp-unet-sim", "paper", "fine-tune"

#: Part of the subjects put aside where nothing is said.
DEFAULT_VALIDATION = "0.2"


def train(
    out: options.BundleOut,
    scans: Annotated[
        Path | None,
        typer.Argument(help=options.COUNTED_SCANS),
    ] = None,
    counts: Annotated[
        Path | None,
        typer.Option("--counts", metavar="FILE", help=options.COUNTS, rich_help_panel=_COUNTED),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="How to train (default: paper, with --init fine-tune, without SCANS gp-unet-sim).",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="NAME|DIR", help="Bundle to start from.", rich_help_panel=_COUNTED),
    ] = None,
    count_target: Annotated[
        Literal["roi", "ac_slice"] | None,
        typer.Option(
            "--count-target",
            help="What was counted: the whole region, or the slice of the anterior commissure.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME|FILE",
            help=f"Study settings (default: {options.DEFAULT_PROTOCOL}).",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            metavar="FRACTION|FILE",
            help="Part of the subjects put aside (default: 0.2), or a table scan,split or list of the scans.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    validation_points: Annotated[
        Path | None,
        typer.Option(
            "--validation-points",
            metavar="FILE",
            help="Lesions of validation scans, scan,lesion,x_mm,y_mm,z_mm: to tune the weight of method f alone.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            help=options.STORE,
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Times that every scan is seen, in place of the recipe's.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label",
            help="Only this subject, with or without sub-; repeatable.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    include: Annotated[
        str | None,
        typer.Option(
            "--include",
            metavar="GLOB",
            help="Only relative paths that match.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    suffix: Annotated[
        list[str] | None,
        typer.Option(
            "--suffix",
            help="Only these BIDS suffixes (PDw, T2w ...); repeatable.",
            rich_help_panel=_COUNTED,
        ),
    ] = None,
    anatomies: Annotated[
        Path | None,
        typer.Option(
            "--anatomies",
            help="Folder of FreeSurfer label maps; without it the one bundled map, deformed.",
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    max_minutes: options.MaxMinutes = None,
    seed: options.ModelSeed = 1,
    n_procs: Annotated[
        int | None,
        typer.Option(
            "--n-procs", min=1, help="Scans prepared, or scenes drawn, at the same time before training."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads of the training itself (default: one a core; windows: 1)."
        ),
    ] = None,
    device: options.Device = "auto",
    resume: options.Resume = False,
) -> None:
    """Train a model bundle from counts alone: of your counted SCANS, or, without SCANS, of simulated windows."""
    _check_mixture(
        with_scans=scans is not None,
        of_scans={
            "--counts": counts, "--init": init, "--count-target": count_target, "--protocol": protocol,
            "--validation": validation, "--validation-points": validation_points, "--store": store,
            "--epochs": epochs, "--participant-label": participant_label, "--include": include, "--suffix": suffix,
        },
        of_windows={"--anatomies": anatomies},
    )  # fmt: skip
    with stoppable(out):
        from epvs_cohort.model.device import gpu_count
        from epvs_cohort.model.predict import best_device
        from epvs_cohort.train.loop import RunSettings

        if device == "cuda" and gpu_count() == 0:
            raise UsageError(
                "--device cuda: no usable GPU was found on this machine", hint="use --device auto"
            )
        run = RunSettings(
            out=out,
            seed=seed,
            max_minutes=max_minutes,
            device=best_device() if device == "auto" else device,
            resume=resume,
        )
        if scans is None or counts is None:
            _windows(run, recipe or WINDOW_RECIPE, anatomies, n_procs or 1, threads or 1)
            return
        request = DataRequest(
            scans=scans,
            counts=counts,
            store=store,
            validation=validation or DEFAULT_VALIDATION,
            n_procs=n_procs,
            only=options.discover_options(participant_label, include, suffix, None),
            filtered=bool(participant_label or include or suffix),
        )
        study = named_study(protocol, count_target, init)
        run = replace(run, epochs=epochs, threads=threads or per_process())
        chosen = recipe or (SCAN_RECIPE if init is None else TUNE_RECIPE)
        unusable = _counted(request, study, run, chosen, validation_points)
    raise typer.Exit(4 if unusable else 0)


def _check_mixture(
    *, with_scans: bool, of_scans: Mapping[str, object], of_windows: Mapping[str, object]
) -> None:
    """Refuse options of one way of training beside the other."""
    stray = of_windows if with_scans else of_scans
    found = ", ".join(name for name, value in stray.items() if value not in (None, [], ()))
    if found and with_scans:
        raise UsageError(
            f"{found}: of training on simulated windows, which takes no SCANS",
            hint="leave out one or the other",
        )
    if found:
        raise UsageError(f"{found}: of training on counted scans, which needs SCANS", hint=_USE)
    if with_scans and of_scans["--counts"] is None:
        raise UsageError("--counts is needed with SCANS: a table scan,count[,reader]", hint=_USE)


@contextlib.contextmanager
def stoppable(out: Path, *, resumes: bool = False) -> Iterator[None]:
    """Turn an interrupt, and a fault of the disk, into a stop that says how to go on: by --resume, or by itself."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError(
            "interrupted; what is prepared is kept, and so is the latest checkpoint, where there is one",
            hint="the same command goes on" + ("" if resumes else ", with --resume from the checkpoint"),
        ) from error
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot be read or written: {error.strerror or error}",
            hint="mend that and start again"
            + ("" if resumes else ", with --resume where there is a checkpoint"),
        ) from error


def _windows(run: RunSettings, name: str, anatomies: Path | None, n_procs: int, threads: int) -> None:
    from epvs_cohort.train.recipe import Recipe, load_recipe
    from epvs_cohort.train.workflow import TrainingSettings, train_recipe

    recipe = load_recipe(name)
    _refuse_roi(name, recipe)
    if not isinstance(recipe, Recipe):
        raise UsageError(f"--recipe {name}: trains on counted scans, which needs SCANS", hint=_USE)
    _tell(
        run, train_recipe(recipe, TrainingSettings(run, anatomies, n_procs, threads)), "simulated validation"
    )


def _counted(request: DataRequest, study: Study, run: RunSettings, name: str, points: Path | None) -> int:
    """Train on counted scans; how many of them cannot be used."""
    from epvs_cohort.report.training import training_page
    from epvs_cohort.train.counted import CountedOrder, check_order, train_counted
    from epvs_cohort.train.recipe import ScanRecipe, load_recipe
    from epvs_cohort.train.samples import Split

    recipe = load_recipe(name)
    _refuse_roi(name, recipe)
    if not isinstance(recipe, ScanRecipe):
        raise UsageError(
            f"--recipe {name}: trains on simulated windows, which takes no SCANS and no --counts",
            hint="leave out --recipe, or the scans",
        )
    console = Console(stderr=True, soft_wrap=True, quiet=not is_first())
    order = CountedOrder(Split((), ()), recipe, study.protocol, run, study.init, points)
    check_order(order)
    data = gather(request, study.protocol, run, console)
    order = replace(order, split=data.split, notes=data.notes)
    with LiveLine(console) as line:
        bundle = train_counted(order, line.show)
    if is_first():
        console.print(Text(f"page of the training: {training_page(run.out)}"))
    _tell(run, bundle, "validation")
    return len(data.unusable)


def _refuse_roi(name: str, recipe: AnyRecipe) -> None:
    from epvs_cohort.train.roi_recipe import RoiRecipe

    if isinstance(recipe, RoiRecipe):
        raise UsageError(
            f"--recipe {name}: trains a network that outlines the basal ganglia",
            hint="epvs-cohort train-roi takes it",
        )


def _tell(run: RunSettings, bundle: Bundle, what: str) -> None:
    if is_first():
        figures = ", ".join(f"{name} {value:g}" for name, value in bundle.card.validation.items())
        line = f"{run.out}: {bundle.card.name} {bundle.model_id}; {what}: {figures}"
        Console(soft_wrap=True).print(Text(line))
