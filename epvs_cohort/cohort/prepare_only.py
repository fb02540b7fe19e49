"""Prepare scans into a store without counting them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from epvs_cohort.cohort.cluster import ClusterChoice, connect
from epvs_cohort.cohort.engine import Engine
from epvs_cohort.cohort.order import PrepareOrder, roi_model_id, with_places
from epvs_cohort.cohort.run import Progress, stoppable
from epvs_cohort.data.discover import DiscoverOptions, Discovery, discover
from epvs_cohort.data.files import require_folder, sweep
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Failure, PreparedRef


@dataclass(frozen=True)
class PrepareRequest:
    """Everything that ``epvs-cohort prepare`` can be told; the fields are those of a run.

    Attributes
    ----------
    keys : frozenset of str or None
        Of the scans found only these, such as those that were counted; None is all.
    """

    scans: Path
    store: Path
    protocol: Protocol = field(default_factory=Protocol)
    discover: DiscoverOptions = field(default_factory=DiscoverOptions)
    cluster: ClusterChoice = field(default_factory=ClusterChoice)
    overwrite: bool = False
    verify: bool = False
    keys: frozenset[str] | None = None


@dataclass(frozen=True)
class PrepareReport:
    """What became of each scan."""

    discovery: Discovery
    refs: tuple[PreparedRef, ...]
    failures: tuple[Failure, ...]


def prepare_cohort(
    request: PrepareRequest, watch: Callable[[Progress, str | None], None] = lambda _progress, _line: None
) -> PrepareReport:
    """Prepare every scan that the store does not hold yet.

    Raises
    ------
    UsageError, ConfigError
        SCANS or the cluster cannot be used.
    StoppedError
        The disk is full, the cluster is gone, or the user interrupted.
    """
    discovery = discover(request.scans, request.discover)
    order = PrepareOrder(
        with_places(request.protocol),
        request.store.absolute(),
        request.verify,
        request.overwrite,
        roi_model_id(request.protocol),
    )
    require_folder(order.store)
    sweep(order.store)
    refs: list[PreparedRef] = []
    failures: list[Failure] = []
    asked = [scan for scan in discovery.scans if request.keys is None or scan.key in request.keys]
    progress, began = Progress(len(asked), 0), time.monotonic()
    with stoppable(), connect(replace(request.cluster, device="cpu")) as crew:
        for finished in Engine(crew, order, None).run(asked):
            outcome = finished.outcome
            line = None
            if isinstance(outcome, Failure):
                failures.append(outcome)
                line = f"{outcome.key}: {outcome.message}"
            elif isinstance(outcome, PreparedRef):
                refs.append(outcome)
            progress = replace(
                progress,
                prepared=len(refs),
                done=len(refs) + len(failures),
                failed=len(failures),
                seconds=time.monotonic() - began,
            )
            watch(progress, line)
    return PrepareReport(discovery, tuple(refs), tuple(failures))
