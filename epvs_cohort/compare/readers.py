"""Counts of several readers, some of whom counted a scan more than once, as one table a scan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from epvs_cohort.data.counts import Reading
from epvs_cohort.errors import CountsError
from epvs_cohort.geometry import FloatArray

MACHINE = "machine"
#: Name of who counted where the table has no column of readers.
NAMELESS = "reader"
MEAN = "mean of readers"


@dataclass(frozen=True)
class ReaderCounts:
    """Counts of readers, one row a scan.

    Attributes
    ----------
    table : DataFrame
        Index scan; columns (reader, number of the reading), sorted; not a number where that reading is not there.
    """

    table: pd.DataFrame

    @property
    def readers(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(dict.fromkeys(str(reader) for reader in self.table.columns.get_level_values(0)))

    def of(self, reader: str, number: int = 1) -> pd.Series[float]:
        """Counts of one reading, by scan; not a number where a scan has none."""
        if (reader, number) not in self.table.columns:
            return pd.Series(np.nan, index=self.table.index, dtype=np.float64)
        found: pd.Series[float] = self.table[reader, number]
        return found

    def first(self, reader: str) -> pd.Series[float]:
        """Counts of the lowest reading that the reader has of each scan; not a number where there is none."""
        lowest, *others = self.numbers(reader)
        found = self.of(reader, lowest)
        for number in others:
            found = found.fillna(self.of(reader, number))
        return found

    def later(self) -> tuple[str, ...]:
        """Scans and readings of those that a reader has no first reading of: the lowest there is stands for it."""
        found = []
        for reader in self.readers:
            known = self.table[reader].notna().to_numpy()
            lowest = np.array(self.numbers(reader))[known.argmax(axis=1)]
            late = known.any(axis=1) & (lowest > 1)
            found += [
                f"{scan}: {reading_name(reader, int(n))}"
                for scan, n in zip(self.table.index[late], lowest[late], strict=True)
            ]
        return tuple(found)

    def numbers(self, reader: str) -> tuple[int, ...]:
        """Numbers of a reader's readings."""
        return tuple(int(number) for number in self.table[reader].columns)

    def mean(self) -> pd.Series[float]:
        """Mean of the first readings of those who counted a scan (`first`)."""
        first = pd.DataFrame({reader: self.first(reader) for reader in self.readers})
        mean: pd.Series[float] = first.mean(axis=1)
        return mean

    @property
    def reference(self) -> str:
        """What the machine is compared with foremost: the mean of the readers, or the only one."""
        return MEAN if len(self.readers) > 1 else self.readers[0]

    def reference_counts(self) -> pd.Series[float]:
        """Counts of the reference, by scan."""
        return self.mean()


def reader_counts(readings: Sequence[Reading], again: Mapping[str, str]) -> ReaderCounts:
    """Arrange readings by scan.

    Parameters
    ----------
    readings : sequence of Reading
    again : mapping of str to str
        Name in the table to the reader whose later reading it is: ``{"A again": "A"}``.

    Raises
    ------
    CountsError
        A name of ``again`` is not in the table or leads to another such name, a reader is named as the machine, the
        mean or a later reading of another reader is in the figures, or some counts have a reader and others do not.
    """
    names = {each.reader for each in readings}
    if "" in names and len(names) > 1:
        nameless = next(each.scan for each in readings if not each.reader)
        raise CountsError(
            f"counts of readers: scan {nameless!r} has a count without a reader; others have one"
        )
    if taken := names & {MACHINE, MEAN}:
        raise CountsError(
            f"reader {min(taken)!r}: stands for something else in the figures", hint="rename the reader"
        )
    _check_again(again, names)
    most = {reader: max(each.number for each in readings if each.reader == reader) for reader in names}
    shift: dict[str, int] = {}
    for name in sorted(again):
        reader = again[name]
        shift[name] = most[reader]
        most[reader] += most[name]
    rows = [
        (
            each.scan,
            again.get(each.reader, each.reader) or NAMELESS,
            each.number + shift.get(each.reader, 0),
            each.count,
        )
        for each in readings
    ]
    long = pd.DataFrame(rows, columns=["scan", "reader", "number", "count"])
    wide = long.pivot(index="scan", columns=["reader", "number"], values="count").astype(np.float64)
    found = ReaderCounts(wide.sort_index(axis=1))
    _check_names(found)
    return found


def _check_again(again: Mapping[str, str], names: Collection[str]) -> None:
    """Check that names of later readings and those that they lead to are readers."""
    for name, reader in again.items():
        if unknown := {name, reader} - set(names):
            raise CountsError(
                f"reader {sorted(unknown)[0]!r}: not in the table of counts; there are {', '.join(sorted(names))}"
            )
        if reader in again:
            raise CountsError(f"reader {name!r}: said to be {reader!r}, who is said to be {again[reader]!r}")


def _check_names(counts: ReaderCounts) -> None:
    """Check that no reader is named as a later reading of another."""
    later = {
        reading_name(name, n): (name, n) for name in counts.readers for n in counts.numbers(name) if n > 1
    }
    for name in counts.readers:
        if name in later:
            reader, number = later[name]
            raise CountsError(
                f"reader {name!r}: stands for reading {number} of reader {reader!r} in the figures",
                hint=f"rename the reader, or --same-reader {name!r}={reader!r} if these counts are such a reading",
            )


@dataclass(frozen=True)
class Comparison:
    """Counts of the same scans that are compared.

    Attributes
    ----------
    kind : str
        ``machine``, ``inter-reader``, ``intra-reader``, ``all readers`` or ``rescan``.
    names : tuple of str
        Of the k ratings.
    scans : tuple of str
        Keys of the N scans.
    ratings : ndarray, shape (N, k)
    """

    kind: str
    names: tuple[str, ...]
    scans: tuple[str, ...]
    ratings: FloatArray


def comparisons(machine: pd.Series[float], readers: ReaderCounts) -> list[Comparison]:
    """All that is compared: the machine with each reader and their mean, readers with one another and themselves.

    Parameters
    ----------
    machine : Series
        Counts by scan, of the scans that are to be used; not a number where the machine has none.
    """
    names = readers.readers
    single = {name: readers.first(name) for name in names}
    found = [
        _comparison("machine", {MACHINE: machine, readers.reference: readers.reference_counts()}, machine)
    ]
    if len(names) > 1:
        found += [_comparison("machine", {MACHINE: machine, name: single[name]}, machine) for name in names]
        found += [
            _comparison("inter-reader", {one: single[one], other: single[other]}, machine)
            for one, other in combinations(names, 2)
        ]
    if len(names) > 2:
        found.append(_comparison("all readers", single, machine))
    for name in names:
        for one, other in pairwise(readers.numbers(name)):
            both = {number: readers.of(name, number) for number in (one, other)}
            found.append(
                _comparison(
                    "intra-reader", {reading_name(name, n): counts for n, counts in both.items()}, machine
                )
            )
    return found


def reading_name(reader: str, number: int) -> str:
    """Name of one reading of a reader.

    >>> reading_name("A", 1), reading_name("A", 2)
    ('A', 'A, reading 2')
    """
    return reader if number == 1 else f"{reader}, reading {number}"


def _comparison(kind: str, counts: Mapping[str, pd.Series[float]], among: pd.Series[float]) -> Comparison:
    """Of the scans that all have counted, in the order of ``among``."""
    table = pd.DataFrame({name: each.reindex(among.index) for name, each in counts.items()}).dropna()
    scans = tuple(str(key) for key in table.index)
    return Comparison(kind, tuple(counts), scans, table.to_numpy(dtype=np.float64))


@dataclass(frozen=True)
class Rivalry:
    """The machine's agreement with a reader beside that of another reading with the same one, on the same scans.

    Attributes
    ----------
    rival : str
        The other reading: another reader, or a later reading by the same one.
    ratings : ndarray, shape (N, 3)
        Counts of the reader, of the machine and of the rival.
    """

    reader: str
    rival: str
    scans: tuple[str, ...]
    ratings: FloatArray


def rivalries(machine: pd.Series[float], readers: ReaderCounts) -> list[Rivalry]:
    """The machine beside each reader's second reading, and beside each other reader."""
    found = []
    for name in readers.readers:
        one, *again = readers.numbers(name)[:2]
        # Beside a second reading the first must be another one: the lowest there is may be the second itself.
        rivals = [(readers.of(name, one), reading_name(name, n), readers.of(name, n)) for n in again]
        rivals += [(readers.first(name), n, readers.first(n)) for n in readers.readers if n != name]
        for own, rival, counts in rivals:
            three = _comparison("machine", {name: own, MACHINE: machine, rival: counts}, machine)
            found.append(Rivalry(name, rival, three.scans, three.ratings))
    return found
