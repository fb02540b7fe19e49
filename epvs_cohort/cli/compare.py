"""``epvs-cohort compare``: every method of the paper on one cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.console import Console

from epvs_cohort.cli import options
from epvs_cohort.cli.compare_work import Comparing, TrainingWishes
from epvs_cohort.cli.train import stoppable
from epvs_cohort.cli.train_data import DataRequest, named_study, per_process
from epvs_cohort.errors import UsageError
from epvs_cohort.protocol import Method

#: Folder of the models within the output, where none is named.
MODELS = "models"

_TRAINING = "Training of what --models and --model lack"


def compare(
    scans: Annotated[
        Path,
        typer.Argument(help=options.COUNTED_SCANS),
    ],
    counts: Annotated[Path, typer.Option("--counts", metavar="FILE", help=options.COUNTS)],
    points: Annotated[
        Path, typer.Option("--points", metavar="FILE", help="Marked lesions, scan,lesion,x_mm,y_mm,z_mm.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of tables, curves and pictures.")],
    count_target: Annotated[
        Literal["roi", "ac_slice"] | None,
        typer.Option(
            "--count-target",
            help="What was counted and marked: the whole region, or the slice of the anterior commissure.",
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            metavar="FILE",
            help="Table scan,split of training, validation and test (default: by subject and --seed).",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models",
            metavar="DIR",
            help="Folder of model bundles: those in it are used, what is lacking is trained into it "
            "(default: models/ in --out).",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME|DIR", help="A ready bundle besides; repeatable."),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="LIST", help="Letters of the methods to compare.")
    ] = ",".join(get_args(Method)),
    protocol: options.ProtocolName = options.DEFAULT_PROTOCOL,
    store: Annotated[
        Path | None,
        typer.Option("--store", help=options.STORE),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="How to train on counted scans (default: paper, from a bundle on fine-tune).",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            metavar="NAME|DIR",
            help="Bundle from which the network of its kind starts; repeatable.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            "--max-minutes",
            min=0.01,
            help="Time for the training steps of each network; without it the recipe's epochs.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            help="Threads of the training (default: one a core).",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=options.MOST_SEED, help="Of split, training and bootstrap.")
    ] = 1,
    n_procs: Annotated[
        int | None,
        typer.Option(
            "--n-procs", min=1, help="Scans prepared or tried at the same time (default: one a core)."
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Compare the paper's methods on counted SCANS with marked lesions: train, tune, and measure on test scans."""
    with stoppable(out, resumes=True):
        from epvs_cohort.data.lock import exclusive
        from epvs_cohort.train.loop import RunSettings

        where = options.usable_device(device)
        chosen = _letters(methods)
        folder = models or out / MODELS
        _check_out(out, folder)
        run = RunSettings(
            out=out, seed=seed, max_minutes=max_minutes, device=where, threads=threads or per_process()
        )
        wishes = TrainingWishes(folder, recipe, tuple(init or ()), run)
        only = options.discover_options(None, None, None, None)
        request = DataRequest(scans, counts, store, "", n_procs, only, filtered=False)
        study = named_study(protocol, count_target, None)
        work = Comparing(request, study.protocol, chosen, points, split, tuple(model or ()), wishes)
        with exclusive(out):
            left_out = work.do(Console(stderr=True, soft_wrap=True))
    raise typer.Exit(4 if left_out else 0)


def _letters(text: str) -> tuple[Method, ...]:
    legal: tuple[Method, ...] = get_args(Method)
    asked = [part.strip() for part in text.split(",")]
    if strange := [part for part in asked if part not in legal]:
        raise UsageError(
            f"--methods: {strange[0]!r}; legal are letters with commas between: {','.join(legal)}"
        )
    return tuple(letter for letter in legal if letter in asked)


def _check_out(out: Path, models: Path) -> None:
    """Check that the output is new or a comparison's; what a crash left in it is swept away."""
    from epvs_cohort.data.files import TEMPORARY_SUFFIX, require_folder, sweep
    from epvs_cohort.data.lock import LOCK_FILE
    from epvs_cohort.report.comparison import WRITTEN

    require_folder(out)
    require_folder(models)
    sweep(out)
    place, within = out.resolve(), models.resolve()
    if within == place:
        raise UsageError(f"--models {models}: is --out itself; another folder is legal, it may lie in --out")
    own = within.relative_to(place).parts[:1] if within.is_relative_to(place) else ()
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    found = {name for name in names if not name.endswith(TEMPORARY_SUFFIX)}
    if others := sorted(found - WRITTEN - {MODELS, LOCK_FILE, *own}):
        raise UsageError(
            f"{out}: a new or empty folder, or that of a comparison, is needed; found {others[0]}",
            hint="name another --out",
        )
