"""The Python side of the commands: the same work, the same checks, pandas at the end."""

from __future__ import annotations

from pathlib import Path

from epvs_cohort.cohort.run import RunRequest, Watcher, execute, make_ready, output_errors
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import decisions_in
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.report.cohort_figures import write_cohort_figures
from epvs_cohort.report.cohort_report import ReportRequest, write_report
from epvs_cohort.report.figures import write_figures


def run_cohort(
    request: RunRequest, *, figures: bool = False, report: bool = False, watch: Watcher | None = None
) -> Cohort:
    """Count a cohort, as ``epvs-cohort run`` does.

    Starts local processes unless ``request.cluster`` names a scheduler, so a script must call it under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    request : RunRequest
        Scans, output, protocol and the rest.
    figures : bool
        Write the report's pictures beside the output, one PNG a scan and those of the cohort.
    report : bool
        Write the report beside the output.
    watch : callable, optional
        Called with the progress and lines of text.

    Returns
    -------
    Cohort
        The three tables as DataFrames.

    Raises
    ------
    UsageError, ConfigError
        SCANS, output, protocol or model cannot be used.
    StoppedError
        The run stopped early; the same call goes on.
    """
    ready = make_ready(request)
    cohort = execute(ready, watch) if watch is not None else execute(ready)
    if figures:
        draw_figures(cohort, ready.paths, ready.order.prepare.store)
    if report:
        make_report(cohort, ready.paths, ready.order.prepare.store)
    return cohort


def make_report(cohort: Cohort, paths: OutputPaths, store: Path) -> Path:
    """Write the report of a run beside its tables, with the decisions that they carry; return its path."""
    request = ReportRequest(paths.counts, paths.report, store, decisions_in(cohort.scans))
    with output_errors(paths):
        return write_report(cohort, request)


def draw_figures(cohort: Cohort, paths: OutputPaths, store: Path) -> list[Path]:
    """Write the pictures of the report, of every counted scan and of the cohort, as PNG files; return their paths."""
    prepared = PreparedStore(store)
    counted = cohort.scans[cohort.scans["status"] != "failed"]
    with output_errors(paths):
        drawn = [
            path
            for key in counted["scan"]
            for path in write_figures(paths.figures, key, prepared.pictures(key))
        ]
        return drawn + write_cohort_figures(paths.figures, cohort, store)
