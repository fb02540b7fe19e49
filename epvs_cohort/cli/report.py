"""``epvs-cohort report``: the page that a person opens after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text


def report(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS.PARQUET", help="Table of counts that run wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page, ending in .html (default: beside the table).")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Prepared volumes (default: beside the table).")
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions",
            help="What people decided: a table scan,decision (default: what the run was given).",
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Everything in one file, for 100 scans at most.")
    ] = False,
) -> None:
    """Make the page of a run: what failed, what to look at first, every scan with its pictures."""
    from epvs_cohort.data.cohort_tables import read_cohort
    from epvs_cohort.data.decisions import decisions_in, read_decisions
    from epvs_cohort.data.parts import OutputPaths
    from epvs_cohort.report.cohort_report import ReportRequest, write_report

    paths = OutputPaths.of(counts)
    cohort = read_cohort(counts)
    request = ReportRequest(
        counts=counts,
        out=out if out is not None else paths.report,
        store=store if store is not None else paths.store,
        decisions=decisions_in(cohort.scans) if decisions is None else read_decisions(decisions),
        single_file=single_file,
    )
    page = write_report(cohort, request)
    Console(soft_wrap=True).print(Text(f"report: {page}"))
