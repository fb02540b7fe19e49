"""``epvs-cohort status``: how a run stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from epvs_cohort.data.cohort_tables import Cohort, read_cohort
from epvs_cohort.data.decisions import VERDICTS, decisions_in
from epvs_cohort.data.parts import OutputPaths

#: Rows of each list that are printed; the tables hold all.
MOST_ROWS = 15


def status(
    counts: Annotated[Path, typer.Argument(help="The table of counts, as given to --out.")],
) -> None:
    """Say how a finished or unfinished run stands."""
    print_summary(Console(soft_wrap=True), OutputPaths.of(counts), read_cohort(counts))


def print_summary(console: Console, paths: OutputPaths, cohort: Cohort) -> None:
    """Print numbers of scans, the head of the counts, reasons of failures and flags, and where the tables lie."""
    scans = cohort.scans
    numbers = scans["status"].value_counts()
    said = ", ".join(f"{int(numbers.get(name, 0))} {name}" for name in ("ok", "flagged", "failed"))
    console.print(Text(f"{len(scans)} of {cohort.n_asked} scans: {said}"))
    counted = scans[scans["status"] != "failed"]
    if len(counted):
        console.print(_head(cohort))
        console.print(
            Text(
                f"count: mean {counted['count'].mean():.1f}, median {counted['count'].median():.1f}, "
                f"range {counted['count'].min():.1f} to {counted['count'].max():.1f}; "
                f"{int(counted['n_lesions'].sum())} lesions located"
            )
        )
    decided = [decision.verdict for decision in decisions_in(scans).values()]
    if decided:
        numbers_of = ", ".join(f"{decided.count(verdict)} {verdict}" for verdict in VERDICTS)
        console.print(Text(f"decided by people: {numbers_of}; rejected scans stay in the tables"))
    for title, lines in (("failed", _failures(cohort)), ("flagged", _flags(cohort))):
        for line in lines[:MOST_ROWS]:
            console.print(Text(f"{title}: {line}"))
        if len(lines) > MOST_ROWS:
            console.print(Text(f"{title}: {len(lines) - MOST_ROWS} more"))
    about = cohort.about
    console.print(Text(f"model {about['model']['name']} ({about['model_id']}): {about['trained_on']}"))
    for path in (paths.counts, paths.lesions, paths.qc):
        if path.exists():
            console.print(Text(f"table: {path}"))
    if not cohort.finished:
        console.print(Text("unfinished: the same run command goes on from here"))


def _head(cohort: Cohort) -> Table:
    table = Table(title=f"first scans (count target: {cohort.about['count_target']})")
    for name in ("scan", "status", "count", "rounded", "left", "right", "AC slice"):
        table.add_column(name, justify="left" if name in ("scan", "status") else "right", overflow="fold")
    for row in cohort.scans.head(MOST_ROWS).to_dict("records"):
        cells = [row[name] for name in ("count_rounded", "n_left", "n_right", "n_lesions_ac")]
        count = "" if pd.isna(row["count"]) else f"{row['count']:.2f}"
        numbers = ("" if pd.isna(cell) else f"{cell:.0f}" for cell in cells)
        table.add_row(Text(row["scan"]), row["status"], count, *numbers)
    return table


def _failures(cohort: Cohort) -> list[str]:
    failed = cohort.scans[cohort.scans["status"] == "failed"]
    return [
        f"{row['scan']} ({row['stage']}, {row['error_kind']}): {row['error_message']}"
        + (f" [{row['hint']}]" if isinstance(row["hint"], str) else "")
        for row in failed.to_dict("records")
    ]


def _flags(cohort: Cohort) -> list[str]:
    flagged = cohort.scans[cohort.scans["status"] == "flagged"]
    return [f"{row['scan']}: {'; '.join(row['flags'])}" for row in flagged.to_dict("records")]
