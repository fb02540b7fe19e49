"""``epvs-cohort run``: count a cohort."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from epvs_cohort.api import draw_figures, make_report
from epvs_cohort.cli import options
from epvs_cohort.cli.progress import Live
from epvs_cohort.cli.status import print_summary
from epvs_cohort.cohort.run import Prepared, RunRequest, execute, make_ready, stoppable, summary_error
from epvs_cohort.data.decisions import read_decisions
from epvs_cohort.data.pseudonyms import read_secret
from epvs_cohort.data.walk import SIDE_FILE
from epvs_cohort.protocol import Method, Protocol, load_protocol

#: Passed-over files that are named one by one; of the rest the number is given.
MOST_NAMED = 20


def run(
    scans: options.Scans,
    out: Annotated[Path, typer.Option("--out", help="Table of counts; the other two lie beside it.")],
    protocol: options.ProtocolName = options.DEFAULT_PROTOCOL,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME|DIR", help="Instead of the protocol's model.")
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method",
            help="e: heatmap alone; f: heatmap plus intensities (default where the model can); a: intensities; "
            "c: saliency; with a model without upsampling path b: saliency, d: class map.",
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Prepared volumes (default: beside the output).")
    ] = None,
    n_procs: options.NProcs = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to predict.")
    ] = "auto",
    participant_label: options.Labels = None,
    include: options.Include = None,
    suffix: options.Suffixes = None,
    limit: options.Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, what is done, and the disk it needs.")
    ] = False,
    overwrite: options.Overwrite = False,
    verify: options.Verify = False,
    save_maps: Annotated[
        bool,
        typer.Option("--save-maps", help="Heatmap and lesion labels as NIfTI in each scan's native space."),
    ] = False,
    figures: Annotated[bool, typer.Option("--figures", help="The report's pictures as PNG files.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="The page of the run, beside the table: open it in a browser.")
    ] = False,
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions", help="What people decided: a table scan,decision; columns of the counts."
        ),
    ] = None,
    pseudonymise: Annotated[
        Path | None,
        typer.Option(
            "--pseudonymise",
            metavar="KEYFILE",
            help="Keyed hashes of its secret stand for the names of scans, subjects and sessions.",
        ),
    ] = None,
    scheduler: options.Scheduler = None,
    cluster: options.ClusterFile = None,
    tls: options.Tls = None,
) -> None:
    """Count enlarged perivascular spaces on every scan of SCANS and write three Parquet tables."""
    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    request = RunRequest(
        scans=scans,
        out=out,
        protocol=_chosen(load_protocol(protocol), model, method),
        store=store,
        discover=options.discover_options(participant_label, include, suffix, limit),
        cluster=options.cluster_choice(n_procs, device, scheduler, cluster, tls),
        overwrite=overwrite,
        verify=verify,
        save_maps=save_maps,
        decisions=None if decisions is None else read_decisions(decisions),
        secret=None if pseudonymise is None else read_secret(pseudonymise),
    )
    with stoppable():
        ready = make_ready(request)
        name_passed_over(errors, ready.discovery.passed_over, unnamed=pseudonymise is not None)
        _name_strangers(errors, ready)
        if dry_run:
            _print_plan(console, ready)
            return
        with Live(errors) as live:
            cohort = execute(ready, live)
        if figures:
            drawn = draw_figures(cohort, ready.paths, ready.order.prepare.store)
            console.print(Text(f"{len(drawn)} pictures: {ready.paths.figures}"))
        if report:
            page = make_report(cohort, ready.paths, ready.order.prepare.store)
            console.print(Text(f"report: {page}"))
    print_summary(console, ready.paths, cohort)
    raise typer.Exit(summary_error(cohort))


def _name_strangers(console: Console, ready: Prepared) -> None:
    """Name decisions about scans that are not asked for: a misspelt key must not pass for a decision."""
    known = {scan.key for scan in ready.discovery.scans}
    strange = [key for key in ready.request.decisions or {} if key not in known]
    for key in strange[:MOST_NAMED]:
        console.print(Text(f"decided about, but not asked for: {key}"))
    if len(strange) > MOST_NAMED:
        console.print(Text(f"decided about, but not asked for: {len(strange) - MOST_NAMED} more"))


def _chosen(protocol: Protocol, model: str | None, method: Method | None) -> Protocol:
    if model is not None:
        protocol = protocol.model_copy(update={"model": model})
    if method is not None:
        detection = protocol.detection.model_copy(update={"method": method})
        protocol = protocol.model_copy(update={"detection": detection})
    return protocol


def name_passed_over(
    console: Console, passed_over: tuple[tuple[Path, str], ...], *, unnamed: bool = False
) -> None:
    """Name what is not counted, each with the reason; files that only describe the scans are no news."""
    named = [(path, reason) for path, reason in passed_over if reason != SIDE_FILE]
    if unnamed and named:
        console.print(
            Text(f"passed over: {len(named)} files or folders, which are not named with --pseudonymise")
        )
        return
    for path, reason in named[:MOST_NAMED]:
        console.print(Text(f"passed over: {path}: {reason}"))
    if len(named) > MOST_NAMED:
        console.print(Text(f"passed over: {len(named) - MOST_NAMED} more"))


def _print_plan(console: Console, ready: Prepared) -> None:
    plan = ready.plan
    console.print(Text(f"{len(ready.discovery.scans)} scans asked for"))
    console.print(Text(f"{len(plan.done)} are done already"))
    console.print(Text(f"{len(plan.todo)} to do, {plan.prepared} of them prepared already"))
    for scan in plan.todo[:MOST_NAMED]:
        console.print(Text(f"  to do: {scan.key}  {scan.path}"))
    if len(plan.todo) > MOST_NAMED:
        console.print(Text(f"  to do: {len(plan.todo) - MOST_NAMED} more"))
    store = ready.order.prepare.store
    there = next(folder for folder in (store, *store.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    console.print(
        Text(f"store {store}: needs about {plan.store_bytes / 1e9:.2f} GB, {free / 1e9:.1f} GB are free")
    )
