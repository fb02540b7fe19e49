"""``epvs-cohort simulate``: a cohort with known counts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

from epvs_cohort.cli.options import DEFAULT_PROTOCOL
from epvs_cohort.errors import StoppedError, UsageError
from epvs_cohort.protocol import load_protocol
from epvs_cohort.report.simulated import write_simulated_page
from epvs_cohort.simulate.cohort import (
    DEFAULT_VOXEL_MM,
    SimulateOptions,
    rescan_folder,
    simulate_cohort,
)


class CohortKind(StrEnum):
    """What the count goes with."""

    evaluation = "evaluation"
    training = "training"


class RescanScanner(StrEnum):
    """Scanner of the second visit."""

    same = "same"
    new = "new"


def simulate(
    out: Annotated[Path, typer.Argument(help="New folder of the data set.")],
    scans: Annotated[int, typer.Option("--scans", help="Number of people, one scan each.")],
    seed: Annotated[int, typer.Option("--seed", help="One seed, one set of files.")] = 1,
    kind: Annotated[
        CohortKind,
        typer.Option("--kind", help="evaluation: count and ventricles rise with age; training: independent."),
    ] = CohortKind.evaluation,
    anatomies: Annotated[
        Path | None, typer.Option("--anatomies", help="Folder of FreeSurfer-numbered whole-head label maps.")
    ] = None,
    voxel: Annotated[
        str | None, typer.Option("--voxel", help="Voxel size I,J,K of whole heads in mm (0.49,0.49,0.8).")
    ] = None,
    no_lesions: Annotated[bool, typer.Option("--no-lesions", help="The same heads without lesions.")] = False,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="Prepared volumes in OUT/prepared in place of whole heads.")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME|FILE", help="Grid, mask and trim of prepared volumes."),
    ] = None,
    true_slice: Annotated[
        bool,
        typer.Option(
            "--true-slice",
            help="With --prepared: the slice of the commissure is the true one, as a manifest names it.",
        ),
    ] = False,
    rescan: Annotated[
        bool, typer.Option("--rescan", help="Also a second visit of each person, in OUT-rescan.")
    ] = False,
    rescan_scanner: Annotated[
        RescanScanner | None, typer.Option("--rescan-scanner", help="Scanner of the second visit (same).")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Pictures of each scan, and a page of them, figures.html.")
    ] = False,
    n_procs: Annotated[int, typer.Option("--n-procs", help="Worker processes.")] = 1,
) -> None:
    """Simulate scans with known counts and places of perivascular spaces into OUT."""
    if protocol is not None and not prepared:
        raise UsageError("--protocol is of prepared volumes: legal with --prepared only")
    if true_slice and not prepared:
        raise UsageError("--true-slice is of prepared volumes: legal with --prepared only")
    if voxel is not None and prepared:
        raise UsageError("--voxel is of whole heads: with --prepared the protocol's grid.spacing_mm counts")
    if rescan_scanner is not None and not rescan:
        raise UsageError("--rescan-scanner is of the second visit: legal with --rescan only")
    options = SimulateOptions(
        scans=scans,
        seed=seed,
        kind=kind.value,
        anatomies=anatomies,
        voxel_mm=DEFAULT_VOXEL_MM if voxel is None else parse_voxel(voxel),
        with_lesions=not no_lesions,
        n_procs=n_procs,
        prepared=prepared,
        protocol=load_protocol(protocol or DEFAULT_PROTOCOL),
        true_slice=true_slice,
        rescan=(rescan_scanner or RescanScanner.same).value if rescan else None,
    )
    console = Console(stderr=True, soft_wrap=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scans", total=scans)
        try:
            simulate_cohort(out, options, lambda done, _total: progress.update(task, completed=done))
        except KeyboardInterrupt as error:
            raise StoppedError(
                f"{out}: interrupted; nothing is kept", hint="the same command begins again"
            ) from error
    for folder in (out, rescan_folder(out)) if rescan else (out,):
        if figures:
            write_simulated_page(folder)
        Console(soft_wrap=True).print(Text(f"{scans} scans simulated: {folder}"))


def parse_voxel(text: str) -> tuple[float, float, float]:
    """Voxel edges in mm of ``I,J,K``.

    Raises
    ------
    UsageError
        Not three numbers.

    >>> parse_voxel("0.49,0.49,0.8")
    (0.49, 0.49, 0.8)
    """
    try:
        i, j, k = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--voxel {text!r}: three numbers I,J,K in mm are legal") from None
    return (i, j, k)
