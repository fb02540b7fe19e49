"""What ``epvs-cohort train`` learns from: counted scans found, matched, prepared, checked and split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from epvs_cohort.data.counts import read_counts
from epvs_cohort.data.store import PreparedStore, store_in
from epvs_cohort.errors import CountsError, UsageError
from epvs_cohort.protocol import CountTarget, Protocol, load_protocol

if TYPE_CHECKING:
    from epvs_cohort.data.discover import DiscoverOptions
    from epvs_cohort.model.bundle import Bundle
    from epvs_cohort.train.loop import RunSettings
    from epvs_cohort.train.samples import Candidate, Matched, Sample, Split

#: Scans of one list that are named; of the rest the number is given.
MOST_NAMED = 200


@dataclass(frozen=True)
class DataRequest:
    """Where the data are and how they are split.

    Attributes
    ----------
    store : Path or None
        Prepared volumes; None is beside the output.
    validation : str
        A fraction of the subjects, or a file.
    filtered : bool
        Whether ``only`` asks for less than all.
    """

    scans: Path
    counts: Path
    store: Path | None
    validation: str
    n_procs: int | None
    only: DiscoverOptions
    filtered: bool


@dataclass(frozen=True)
class Study:
    """What is counted, and what training starts from: the protocol with its count target, and a bundle or None."""

    protocol: Protocol
    init: Bundle | None


@dataclass(frozen=True)
class CountedData:
    """Data ready to be learned from.

    Attributes
    ----------
    notes : tuple of str
        What the model card says of them.
    unusable : tuple
        Key of each counted scan that cannot be used, and why.
    """

    split: Split
    notes: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class UsableData:
    """Counted scans that are prepared and can be used.

    Attributes
    ----------
    samples : tuple of Sample
    matched : Matched
        What was asked for.
    unusable : tuple
        Key of each counted scan that cannot be used, and why.
    words : str
        How many scans were counted, and by how many readers.
    """

    samples: tuple[Sample, ...]
    matched: Matched
    unusable: tuple[tuple[str, str], ...]
    words: str


def is_first() -> bool:
    """Whether this process tells what happens: the only one, or the first that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def launched() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def per_process() -> int:
    """Threads of one process where it has its part of the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def default_store(out: Path) -> Path:
    """Store beside the output, as a run's ``counts.store`` lies beside ``counts.parquet``."""
    return out.with_name(f"{out.name}.store")


def named_study(protocol: str | None, target: CountTarget | None, init: str | None) -> Study:
    """Protocol with its count target, and the bundle to start from, which must fit it but for the target.

    Where neither protocol nor target is named, the target is the bundle's.

    Raises
    ------
    ConfigError
        A protocol or bundle that cannot be used, or that do not go together.
    """
    from epvs_cohort.cli.options import DEFAULT_PROTOCOL

    chosen = load_protocol(protocol or DEFAULT_PROTOCOL)
    if init is None:
        return Study(chosen.model_copy(update={"count_target": target or chosen.count_target}), None)
    from epvs_cohort.model.bundle import check_fits, load_bundle

    bundle = load_bundle(init)
    own = bundle.card.count_target
    check_fits(bundle, chosen.model_copy(update={"count_target": own}))
    followed = own if protocol is None else chosen.count_target
    return Study(chosen.model_copy(update={"count_target": target or followed}), bundle)


def gather(request: DataRequest, protocol: Protocol, run: RunSettings, console: Console) -> CountedData:
    """Find, match, prepare, check and split; say by name what is left out, before the work starts.

    Raises
    ------
    EpvsError
        The folder of the model, the table of counts, the scans or the split cannot be used, or no scan is left.
    """
    from epvs_cohort.train.checkpoint import check_folder, require_startable
    from epvs_cohort.train.samples import check_sides

    check_folder(run.out)
    require_startable(run.out, resume=run.resume)

    def possible(matched: Matched) -> None:
        # A split that cannot be is said now, not after hours of preparation.
        check_sides(_split(request, run.seed, matched.samples, matched))

    usable = usable_data(request, run.out, protocol, console, possible)
    split = _split(request, run.seed, usable.samples, usable.matched)
    said = _notes(split, usable.matched, len(usable.unusable))
    for note in said:
        console.print(Text(note))
    return CountedData(split, (usable.words, *said), usable.unusable)


def usable_data(
    request: DataRequest, out: Path, protocol: Protocol, console: Console, possible: Callable[[Matched], None]
) -> UsableData:
    """Find, match, prepare and check counted scans; say by name what is left out.

    Parameters
    ----------
    request : DataRequest
    out : Path
        Beside which native scans are prepared, where the request names no store.
    protocol : Protocol
    console : Console
    possible : callable
        Called before anything is prepared; raises where the scans that were counted cannot do.

    Raises
    ------
    EpvsError
        The table of counts or the scans cannot be used, or no scan is left.
    """
    from epvs_cohort.train.samples import match_counts
    from epvs_cohort.train.volumes import check_samples

    counts = read_counts(request.counts)
    stored = store_in(request.scans)
    store = request.store if request.store is not None else default_store(out)
    found = _native(request, store) if stored is None else _stored(request, stored)
    matched = match_counts(found, counts)
    console.print(Text(f"{counts.words}: {request.counts}"))
    _tell_names(console, "have a count and no scan, and are left out", matched.unmatched)
    _tell_names(console, "have no count, and are left out", matched.uncounted)
    possible(matched)
    failed: dict[str, str] = {}
    if stored is None:
        failed = _prepare(request, PreparedStore(store), protocol, matched.samples, console)
    left = [sample for sample in matched.samples if sample.key not in failed]
    checked = check_samples(left, protocol, threads=request.n_procs or per_process())
    unusable = tuple(sorted([*failed.items(), *checked.unusable]))
    _tell_names(console, "cannot be used, and are left out", [f"{key} ({why})" for key, why in unusable])
    if not checked.usable:
        raise CountsError(f"{request.scans}: none of the {len(matched.samples)} counted scans can be used")
    return UsableData(checked.usable, matched, unusable, counts.words)


def _stored(request: DataRequest, store: PreparedStore) -> tuple[Candidate, ...]:
    from epvs_cohort.train.samples import stored_candidates

    if request.store is not None or request.filtered:
        raise UsageError(
            f"{request.scans}: a prepared cohort is used as it is; --store, --participant-label, --include and "
            "--suffix are of native scans",
            hint="choose among its scans by the table of counts",
        )
    return stored_candidates(store)


def _native(request: DataRequest, store: Path) -> tuple[Candidate, ...]:
    from epvs_cohort.data.discover import discover
    from epvs_cohort.train.samples import scan_candidates

    return scan_candidates(discover(request.scans, request.only).scans, store)


def _prepare(
    request: DataRequest,
    store: PreparedStore,
    protocol: Protocol,
    samples: Sequence[Sample],
    console: Console,
) -> dict[str, str]:
    """Prepare what the store does not hold; keys of those that failed, and why."""
    if launched() > 1:
        console.print(
            Text(f"several processes train together: nothing is prepared now, {store.root} is used")
        )
        return {}
    from epvs_cohort.cli.options import cluster_choice
    from epvs_cohort.cli.progress import Live
    from epvs_cohort.cohort.prepare_only import PrepareRequest, prepare_cohort

    wanted = PrepareRequest(
        scans=request.scans,
        store=store.root,
        protocol=protocol,
        discover=request.only,
        cluster=cluster_choice(request.n_procs, "cpu", None, None),
        keys=frozenset(sample.key for sample in samples),
    )
    with Live(console) as live:
        report = prepare_cohort(wanted, live)
    reused = sum(ref.reused for ref in report.refs)
    made, failed = len(report.refs) - reused, len(report.failures)
    console.print(Text(f"{made} prepared, {reused} were there already, {failed} failed: {store.root}"))
    return {failure.key: failure.message for failure in report.failures}


def _split(request: DataRequest, seed: int, samples: Sequence[Sample], matched: Matched) -> Split:
    from epvs_cohort.train.samples import split_by_subject, split_from_file

    try:
        fraction = float(request.validation)
    except ValueError:
        return split_from_file(samples, Path(request.validation), matched.known)
    return split_by_subject(samples, fraction, seed)


def _tell_names(console: Console, what: str, names: Sequence[str]) -> None:
    from epvs_cohort.train.samples import named

    if names:
        console.print(Text(f"{len(names)} scans {what}: {named(names, MOST_NAMED)}"))


def _notes(split: Split, matched: Matched, unusable: int) -> list[str]:
    people = {sample.subject for sample in split.training}
    others = {sample.subject for sample in split.validation}
    notes = [
        f"{len(split.training)} scans of {len(people)} subjects train, {len(split.validation)} scans of "
        f"{len(others)} other subjects validate",
        f"left out: {len(matched.unmatched)} counts without a scan, {len(matched.uncounted)} scans without a count, "
        f"{unusable} counted scans that cannot be used",
    ]
    unknown = sum(not sample.known for sample in (*split.training, *split.validation))
    if unknown:
        notes.append(
            f"the person of {unknown} scans is not known, and each is taken for a person of its own: where one "
            "person has several, training and validation may share people"
        )
    return notes
