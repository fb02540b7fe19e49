"""Which scans are learned from: prepared volumes matched with counts, and split by subject."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.counts import CountTable
from epvs_cohort.data.manifest import read_table
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import ConfigError, CountsError, ManifestError, UsageError
from epvs_cohort.records import Scan

_SUBJECT = re.compile(r"(?:^|[_/])sub-([A-Za-z0-9]+)(?=[_/]|$)")
_TRAINING = frozenset({"training", "train"})
_VALIDATION = frozenset({"validation", "val", "valid"})
_NAMED = 20


@dataclass(frozen=True)
class Candidate:
    """A scan that may be learned from, prepared already or to be prepared.

    Attributes
    ----------
    subject : str
        The person; the key itself where the person is not known.
    folder : Path
        Its folder in the prepared store, whether it is there yet or not.
    known : bool
        Whether the person is.
    """

    key: str
    subject: str
    folder: Path
    known: bool = True


@dataclass(frozen=True)
class Sample:
    """One counted scan.

    Attributes
    ----------
    subject : str
        The person; the key itself where the person is not known.
    folder : Path
        Its folder in the prepared store.
    count : float
        Mean of its readers' counts.
    readers : int
    known : bool
        Whether the person is.
    """

    key: str
    subject: str
    folder: Path
    count: float
    readers: int
    known: bool = True


@dataclass(frozen=True)
class Matched:
    """Counts and scans put together.

    Attributes
    ----------
    samples : tuple of Sample
        Counted scans, by key.
    unmatched : tuple of str
        Keys of counts for which there is no scan.
    uncounted : tuple of str
        Keys of scans for which there is no count.
    """

    samples: tuple[Sample, ...]
    unmatched: tuple[str, ...]
    uncounted: tuple[str, ...]

    @property
    def known(self) -> frozenset[str]:
        """Keys of all scans that were found or counted."""
        return frozenset((*(sample.key for sample in self.samples), *self.unmatched, *self.uncounted))


@dataclass(frozen=True)
class Split:
    """Samples that are learned from and samples that are judged on; no person is in both."""

    training: tuple[Sample, ...]
    validation: tuple[Sample, ...]


def subject_of(key: str, subject: str | None = None) -> str:
    """Person of a scan: the given label without ``sub-``, else the one in the key, else the key itself.

    >>> subject_of("sub-0001_ses-2_PDw"), subject_of("site/sub-07/scan"), subject_of("A12")
    ('0001', '07', 'A12')
    >>> subject_of("A12", "sub-9")
    '9'
    """
    if subject:
        return subject.removeprefix("sub-")
    match = _SUBJECT.search(key)
    return match.group(1) if match else key


def scan_candidates(scans: Iterable[Scan], store: Path) -> tuple[Candidate, ...]:
    """Candidates of native scans that are, or will be, prepared in ``store``."""
    kept = PreparedStore(store)
    return tuple(_candidate(kept, scan.key, scan.subject) for scan in scans)


def stored_candidates(store: PreparedStore) -> tuple[Candidate, ...]:
    """Candidates of a prepared cohort; their persons are known from the keys alone."""
    keys = store.keys()
    return tuple(_candidate(store, key, None) for key in keys)


def _candidate(store: PreparedStore, key: str, subject: str | None) -> Candidate:
    known = bool(subject or _SUBJECT.search(key))
    return Candidate(key, subject_of(key, subject), store.folder(key), known)


def match_counts(candidates: Sequence[Candidate], counts: CountTable) -> Matched:
    """Put counts and scans together by key.

    Raises
    ------
    CountsError
        No count has a scan.
    """
    known = {candidate.key: candidate for candidate in candidates}
    samples = tuple(
        Sample(
            key, known[key].subject, known[key].folder, counted.count, counted.readers, known=known[key].known
        )
        for key, counted in sorted(counts.counts.items())
        if key in known
    )
    unmatched = tuple(sorted(set(counts.counts) - set(known)))
    if not samples:
        raise CountsError(
            f"{counts.path}: none of its {len(counts.counts)} counts is of one of the {len(known)} scans; counts are "
            f"of {named(unmatched, 3)}; scans are {named(sorted(known), 3)}",
            hint="the column scan holds the key: the name of a BIDS file without ending, else the path without it",
        )
    return Matched(samples, unmatched, tuple(sorted(set(known) - set(counts.counts))))


def check_sides(split: Split) -> None:
    """Check that there is enough to train and to validate on.

    Raises
    ------
    ConfigError
        There is nothing to train on, or fewer than the two scans whose agreement is defined.
    """
    if len(split.training) < 1 or len(split.validation) < 2:
        raise ConfigError(
            f"{len(split.training)} scans to train on and {len(split.validation)} to validate found; at "
            "least 1 and 2 are needed",
            hint="count more scans, or choose another validation fraction",
        )


def split_by_subject(samples: Sequence[Sample], fraction: float, seed: int) -> Split:
    """Put the scans of a part of the persons aside for validation.

    Persons are ordered by a hash of seed and name, so the split depends neither on the order of the rows nor on
    which other scans are there, but for where it is cut.

    Parameters
    ----------
    samples : sequence of Sample
    fraction : float
        Of the persons, above 0 and below 1.
    seed : int
        One seed, one split.

    Raises
    ------
    UsageError
        The fraction is illegal.
    CountsError
        It is so small or large that one side would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"validation fraction {fraction:g}: above 0 and below 1 is legal")
    subjects = subject_order(samples, seed)
    aside = round(fraction * len(subjects))
    if aside in (0, len(subjects)):
        raise CountsError(
            f"validation fraction {fraction:g} of {len(subjects)} subjects is {aside}; training and validation need "
            "at least one subject each",
            hint="choose another fraction, name the validation scans in a file, or count more scans",
        )
    chosen = frozenset(subjects[:aside])
    return _split(samples, {sample.key for sample in samples if sample.subject in chosen})


def subject_order(samples: Iterable[Sample], seed: int) -> list[str]:
    """Persons in the order of a hash of seed and name, which does not hang on who else is there."""
    return sorted({sample.subject for sample in samples}, key=lambda subject: _rank(seed, subject))


def _rank(seed: int, subject: str) -> bytes:
    return hashlib.sha256(f"{seed}:{subject}".encode()).digest()


def split_from_file(samples: Sequence[Sample], path: Path, known: AbstractSet[str] = frozenset()) -> Split:
    """Split as a file says: a table ``scan,split``, or the keys of the validation scans, one a line.

    Parameters
    ----------
    samples : sequence of Sample
    path : Path
        In a table every sample has a row, whose ``split`` is ``training`` or ``validation``; of a list, all other
        samples train.
    known : set of str
        Keys besides those of the samples that the file may name: of scans that cannot be used or have no count.

    Raises
    ------
    CountsError
        The file cannot be read, names a scan twice, one that is not known or one subject in both parts, leaves a
        sample out, or leaves one side empty.
    """
    try:
        named_keys, validation = _read_split(path)
    except ManifestError as error:
        raise CountsError(error.message, hint=error.hint) from error
    keys = {sample.key for sample in samples}
    strange = sorted((named_keys | validation) - keys - known)
    if strange:
        raise CountsError(
            f"{path}: no such scan: {named(strange)}", hint="the keys are those of the table of counts"
        )
    left_out = sorted(keys - named_keys) if named_keys else []
    if left_out:
        raise CountsError(f"{path}: no row for {named(left_out)}; training or validation is needed for each")
    split = _split(samples, validation)
    sides = (
        ("training", {each.subject for each in split.training}),
        ("validation", {each.subject for each in split.validation}),
    )
    for name, subjects in sides:
        if not subjects:
            raise CountsError(f"{path}: no usable scan is left for {name}; at least one is needed")
    both = sorted(sides[0][1] & sides[1][1])
    if both:
        scans = [sample.key for sample in samples if sample.subject == both[0]]
        raise CountsError(
            f"{path}: subject {named(both)} is in training and in validation (scans {named(scans)}); one of the two "
            "is legal, or the figures would tell of people that were learned from"
        )
    return split


def _split(samples: Sequence[Sample], validation: AbstractSet[str]) -> Split:
    ordered = sorted(samples, key=lambda sample: sample.key)
    return Split(
        tuple(sample for sample in ordered if sample.key not in validation),
        tuple(sample for sample in ordered if sample.key in validation),
    )


def _read_split(path: Path) -> tuple[set[str], set[str]]:
    """Keys of all rows (none for a plain list) and those of validation."""
    table = read_table(path)
    if "scan" not in table.columns:
        lines = [(1, table.columns), *table.rows]
        if len(table.columns) > 1:
            raise CountsError(
                f"{path}: line 1: found the columns {', '.join(table.columns)}; legal are scan,split, or one key of a "
                "validation scan a line"
            )
        return set(), _once(path, [(line, cells[0]) for line, cells in lines])
    keys = [(line, key) for (line, _), key in zip(table.rows, table.column("scan"), strict=True)]
    every = _once(path, keys)
    if "split" not in table.columns:
        return set(), every
    validation: set[str] = set()
    for (line, key), side in zip(keys, table.column("split"), strict=True):
        if side.lower() in _VALIDATION:
            validation.add(key)
        elif side.lower() not in _TRAINING:
            raise CountsError(
                f"{path}: line {line}: scan {key!r}: split {side!r}; training or validation is legal"
            )
    return every, validation


def _once(path: Path, keys: Sequence[tuple[int, str]]) -> set[str]:
    first: dict[str, int] = {}
    for line, key in keys:
        if not key or key in first:
            what = f"scan {key!r} stands on line {first[key]} already" if key else "the scan has no name"
            raise CountsError(f"{path}: line {line}: {what}; each once is legal")
        first[key] = line
    return set(first)


def named(keys: Sequence[str], most: int = _NAMED) -> str:
    r"""Keys in words, what a terminal would act on escaped; of more than ``most``, the number of the others.

    >>> named(["a", "b", "c"], 2), named(["é", "new\nline"])
    ('a, b and 1 more', 'é, new\\nline')
    """
    more = len(keys) - most
    shown = (key if key.isprintable() else repr(key)[1:-1] for key in keys[:most])
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
