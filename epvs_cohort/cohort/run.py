"""A whole run: discover, plan, feed the cluster, commit in parts, compact to the three tables."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed.comm.core import CommClosedError

import epvs_cohort
from epvs_cohort.cohort.cluster import ClusterChoice, connect, settled_precision
from epvs_cohort.cohort.engine import Engine, Finished
from epvs_cohort.cohort.order import InferOrder, PrepareOrder, RunOrder, roi_model_id, with_places
from epvs_cohort.cohort.plan import Plan, asked_table, left_out, make_plan, split
from epvs_cohort.cohort.rows import Row, failure_row
from epvs_cohort.compare.methods.registry import settled_method
from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.data.cohort_tables import Cohort, assembled, check_outputs, read_cohort, write_tables
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.discover import DiscoverOptions, Discovery, discover
from epvs_cohort.data.files import require_folder, sweep
from epvs_cohort.data.lock import exclusive
from epvs_cohort.data.parts import OutputPaths, Parts
from epvs_cohort.data.pseudonyms import Secret, check_place, pseudonymised
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.data.tables import DECISION_COLUMNS, reserved_names
from epvs_cohort.errors import OutputError, StoppedError
from epvs_cohort.model.bundle import Bundle, bundled_models, check_fits, load_bundle
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Failure, PreparedRef

#: A part is committed after so many results or seconds, whichever comes first.
PART_ROWS = 64
PART_SECONDS = 10.0


@dataclass(frozen=True)
class RunRequest:
    """Everything that ``epvs-cohort run`` can be told.

    Attributes
    ----------
    scans : Path
        Folder, BIDS data set, manifest or single file.
    out : Path
        The table of counts; the other two lie beside it.
    protocol : Protocol
        Settings; its ``model`` and ``detection.method`` are what ``--model`` and ``--method`` replace.
    store : Path or None
        Prepared volumes; None is beside the output.
    overwrite : bool
        Forget earlier results and do everything again.
    verify : bool
        Hash every input again.
    save_maps : bool
        Write heatmap and lesion labels of each scan in its native space.
    decisions : mapping of str to Decision or None
        What people decided about scans: columns of the table of counts. A rejected scan is counted as any other.
    secret : Secret or None
        Scans, subjects and sessions stand under pseudonyms that it keys.
    """

    scans: Path
    out: Path
    protocol: Protocol = field(default_factory=Protocol)
    store: Path | None = None
    discover: DiscoverOptions = field(default_factory=DiscoverOptions)
    cluster: ClusterChoice = field(default_factory=ClusterChoice)
    overwrite: bool = False
    verify: bool = False
    save_maps: bool = False
    decisions: Mapping[str, Decision] | None = None
    secret: Secret | None = None


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    total : int
        Scans asked for.
    earlier : int
        Of these, done by an earlier start.
    prepared, done, failed, flagged : int
        In this start; ``done`` includes failed and flagged ones.
    seconds : float
        Since this start began to work.
    """

    total: int
    earlier: int
    prepared: int = 0
    done: int = 0
    failed: int = 0
    flagged: int = 0
    seconds: float = 0.0

    @property
    def scans_per_hour(self) -> float | None:
        """Rate of this start; None before the first scan is done."""
        return self.done / self.seconds * 3600.0 if self.done and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None before the first scan is done."""
        left = self.total - self.earlier - self.done
        return self.seconds / self.done * left if self.done else None


Watcher = Callable[[Progress, str | None], None]


@dataclass(frozen=True)
class Prepared:
    """A run made ready: what is there, what is to be done, with what."""

    request: RunRequest
    paths: OutputPaths
    discovery: Discovery
    bundle: Bundle
    order: RunOrder
    plan: Plan


def make_ready(request: RunRequest) -> Prepared:
    """Check all that can be checked before the work starts, and plan it; nothing is written but links of pseudonyms.

    Raises
    ------
    UsageError, ConfigError
        SCANS, output, protocol or model cannot be used.
    """
    paths = OutputPaths.of(request.out)
    check_outputs(paths)
    store = request.store if request.store is not None else paths.store
    maps = (paths.maps,) if request.save_maps else ()
    for folder in (paths.counts.parent, paths.parts, store, *maps):
        require_folder(folder)
    protocol = request.protocol
    bundle = load_bundle(protocol.model)
    check_fits(bundle, protocol)
    score = settled_method(protocol.detection.method, bundle.card)
    added = () if request.decisions is None else DECISION_COLUMNS
    reserved = reserved_names(protocol.roi.regions) | {column.name for column in added}
    options = replace(request.discover, reserved=reserved)
    if request.secret is not None:
        check_place(request.secret, request.scans)
    discovery = discover(request.scans, options)
    if request.secret is not None:
        discovery = replace(discovery, scans=pseudonymised(discovery.scans, request.secret))
    order = RunOrder(
        PrepareOrder(
            with_places(protocol), store.absolute(), request.verify, request.overwrite, roi_model_id(protocol)
        ),
        InferOrder(
            protocol.model if protocol.model in bundled_models() else str(Path(protocol.model).absolute()),
            bundle.model_id,
            score,
            maps=paths.maps.absolute() if request.save_maps else None,
        ),
    )
    plan = make_plan(discovery.scans, order, Parts(paths.parts))
    return Prepared(request, paths, discovery, bundle, order, plan)


def execute(ready: Prepared, watch: Watcher = lambda _progress, _line: None) -> Cohort:
    """Do what is planned, commit it as it comes, and write the three tables.

    Parameters
    ----------
    ready : Prepared
        From :func:`make_ready`.
    watch : callable
        Called with the progress and, where there is something to say, a line of text.

    Raises
    ------
    StoppedError
        Another run holds the output, the disk is full, the cluster is gone, or the user interrupted;
        what was committed stays.
    """
    parts = Parts(ready.paths.parts)
    with output_errors(ready.paths), exclusive(parts.folder):
        # Between planning and the lock another run may have committed more.
        todo, done = split(ready.discovery.scans, ready.order, parts)
        plan = replace(ready.plan, todo=todo, done=done)
        _sweep(ready)
        if plan.todo:
            _work(ready, plan, parts, watch)
        else:
            _begin(ready, plan, parts)
        write_tables(ready.paths, assembled(parts))
        parts.consolidate((parts.run() or {}).get("stale_below", 0))
        _sweep(ready)
        # Within the folder of a scan a process that outlived its driver may have left something since.
        store = PreparedStore(ready.order.prepare.store)
        for scan in plan.todo:
            sweep(store.folder(scan.key))
        others = left_out(parts, ready.discovery.scans)
    if others:
        text = f"{others} scans of earlier runs were not asked for now: kept in {parts.folder}, not in the tables"
        watch(Progress(len(ready.discovery.scans), len(plan.done)), text)
    return read_cohort(ready.paths.counts)


@contextlib.contextmanager
def output_errors(paths: OutputPaths) -> Iterator[None]:
    """Turn a fault of the disk, or of the cluster's connections, into a stop that says how to go on."""
    try:
        yield
    except (TimeoutError, ConnectionError, CommClosedError) as error:
        raise StoppedError(
            f"the cluster is gone: {error}", hint="the same command goes on from where it stopped"
        ) from error
    except OSError as error:
        where = error.filename or paths.counts.parent
        raise OutputError(
            f"{where}: cannot be written: {error.strerror or error}",
            hint="mend that and start again: it goes on where it stopped",
        ) from error


def _sweep(ready: Prepared) -> None:
    paths = ready.paths
    for folder in (paths.counts.parent, paths.parts, ready.order.prepare.store, paths.maps, paths.figures):
        sweep(folder)


def _begin(ready: Prepared, plan: Plan, parts: Parts) -> None:
    first_new_part = parts.last_number + 1
    earlier = parts.run() or {}
    stale_below = first_new_part if ready.request.overwrite else earlier.get("stale_below", 0)
    about = {**_about(ready), "stale_below": stale_below}
    asked = asked_table(ready.discovery.scans, plan, first_new_part, ready.request.decisions)
    parts.begin(about, asked)


def _about(ready: Prepared) -> dict[str, Any]:
    protocol, card = ready.order.prepare.protocol, ready.bundle.card
    return {
        "run_id": uuid.uuid4().hex,
        "tool": "epvs-cohort",
        "version": epvs_cohort.__version__,
        "protocol": protocol.model_dump(mode="json"),
        "model": card.model_dump(mode="json"),
        "atlas_id": load_atlas().atlas_id,
        "plan_id": ready.order.plan_id,
        "prepare_id": ready.order.prepare.prepare_id,
        "protocol_id": protocol.protocol_id,
        "model_id": ready.bundle.model_id,
        "trained_on": card.trained_on,
        "count_target": protocol.count_target,
        "method": ready.order.infer.score.method,
    }


def _work(ready: Prepared, plan: Plan, parts: Parts, watch: Watcher) -> None:
    began = time.monotonic()
    progress = Progress(len(plan.todo) + len(plan.done), len(plan.done))

    def show(line: str | None = None, **changes: int) -> None:
        nonlocal progress
        added = {name: getattr(progress, name) + by for name, by in changes.items()}
        progress = replace(progress, seconds=time.monotonic() - began, **added)
        watch(progress, line)

    with stoppable(), connect(ready.request.cluster) as crew, _committing(parts) as commit:
        # Only now: a cluster that cannot be had must leave a finished run finished.
        _begin(ready, plan, parts)
        show()
        infer = replace(ready.order.infer, device=crew.device, precision=settled_precision(crew))
        order = replace(ready.order, infer=infer)
        engine = Engine(crew, order.prepare, order, on_prepared=lambda _: show(prepared=1))
        for finished in engine.run(plan.todo):
            row = _row_of(finished, order)
            commit(row)
            failed, flagged = row["status"] == "failed", row["status"] == "flagged"
            line = f"{row['scan']}: {row['error_message']}" if failed else None
            show(line, done=1, failed=int(failed), flagged=int(flagged))


def _row_of(finished: Finished, order: RunOrder) -> Row:
    outcome = finished.outcome
    if isinstance(outcome, Failure):
        return failure_row(outcome, order)
    if isinstance(outcome, PreparedRef):
        raise TypeError(f"{finished.scan.key}: prepared, but not predicted")
    return outcome


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn an interrupt from the keyboard, or SIGTERM as the command maps it, into a stop that says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError(
            "interrupted; what was finished is kept", hint="the same command goes on from here"
        ) from error


@contextlib.contextmanager
def _committing(parts: Parts) -> Iterator[Callable[[Row], None]]:
    """Yield a function that takes rows and commits them in parts, the last ones when the block ends in any way."""
    rows: list[Row] = []
    last = time.monotonic()

    def flush() -> None:
        nonlocal last
        if rows:
            try:
                parts.write(rows)
            except OSError as error:
                raise OutputError(
                    f"{parts.folder}: cannot be written: {error.strerror or error}",
                    hint="make room and start again: it goes on where it stopped",
                ) from error
        rows.clear()
        last = time.monotonic()

    def commit(row: Row) -> None:
        rows.append(row)
        if len(rows) >= PART_ROWS or time.monotonic() - last > PART_SECONDS:
            flush()

    try:
        yield commit
    finally:
        flush()


def summary_error(cohort: Cohort) -> int:
    """Exit code that a finished run's table stands for: 0, or 4 where some scans failed."""
    return 4 if bool((cohort.scans["status"] == "failed").any()) else 0
