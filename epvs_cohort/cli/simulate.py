"""``epvs-cohort simulate``: a cohort with known counts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

from epvs_cohort.errors import UsageError
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort


class CohortKind(StrEnum):
    """What the count goes with."""

    evaluation = "evaluation"
    training = "training"


def simulate(
    out: Annotated[Path, typer.Argument(help="New folder of the BIDS data set.")],
    scans: Annotated[int, typer.Option("--scans", help="Number of people, one scan each.")],
    seed: Annotated[int, typer.Option("--seed", help="One seed, one set of files.")] = 1,
    kind: Annotated[
        CohortKind,
        typer.Option("--kind", help="evaluation: count and ventricles rise with age; training: independent."),
    ] = CohortKind.evaluation,
    anatomies: Annotated[
        Path | None, typer.Option("--anatomies", help="Folder of FreeSurfer-numbered whole-head label maps.")
    ] = None,
    voxel: Annotated[str, typer.Option("--voxel", help="Voxel size I,J,K in mm.")] = "0.49,0.49,0.8",
    no_lesions: Annotated[bool, typer.Option("--no-lesions", help="The same heads without lesions.")] = False,
    n_procs: Annotated[int, typer.Option("--n-procs", help="Worker processes.")] = 1,
) -> None:
    """Simulate whole-head scans with known counts and places of perivascular spaces into OUT."""
    options = SimulateOptions(
        scans=scans,
        seed=seed,
        kind=kind.value,
        anatomies=anatomies,
        voxel_mm=parse_voxel(voxel),
        with_lesions=not no_lesions,
        n_procs=n_procs,
    )
    console = Console(stderr=True, soft_wrap=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scans", total=scans)
        simulate_cohort(out, options, lambda done, _total: progress.update(task, completed=done))
    Console(soft_wrap=True).print(Text(f"{scans} scans simulated: {out}"))


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
