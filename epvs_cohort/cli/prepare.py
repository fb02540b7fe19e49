"""``epvs-cohort prepare``: prepare scans without counting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from epvs_cohort.cli import options
from epvs_cohort.cli.progress import Live
from epvs_cohort.cli.run import name_passed_over
from epvs_cohort.cohort.prepare_only import PrepareRequest, prepare_cohort
from epvs_cohort.protocol import load_protocol


def prepare(
    scans: options.Scans,
    store: Annotated[Path, typer.Option("--store", help="Folder of prepared volumes.")],
    protocol: options.ProtocolName = options.DEFAULT_PROTOCOL,
    n_procs: options.NProcs = None,
    participant_label: options.Labels = None,
    include: options.Include = None,
    suffix: options.Suffixes = None,
    limit: options.Limit = None,
    overwrite: options.Overwrite = False,
    verify: options.Verify = False,
    scheduler: options.Scheduler = None,
    cluster: options.ClusterFile = None,
    tls: options.Tls = None,
) -> None:
    """Register, outline, crop and trim every scan of SCANS into STORE, for counting or training later."""
    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    request = PrepareRequest(
        scans=scans,
        store=store,
        protocol=load_protocol(protocol),
        discover=options.discover_options(participant_label, include, suffix, limit),
        cluster=options.cluster_choice(n_procs, "cpu", scheduler, cluster, tls),
        overwrite=overwrite,
        verify=verify,
    )
    with Live(errors) as live:
        report = prepare_cohort(request, live)
    name_passed_over(errors, report.discovery.passed_over)
    reused = sum(ref.reused for ref in report.refs)
    made = len(report.refs) - reused
    console.print(
        Text(f"{made} prepared, {reused} were there already, {len(report.failures)} failed: {store}")
    )
    raise typer.Exit(4 if report.failures else 0)
