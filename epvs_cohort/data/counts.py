"""Counts given by people: a table ``scan,count[,reader[,reading]]``, each error with its line and scan."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.manifest import UNKNOWN, Table, read_table
from epvs_cohort.errors import CountsError, ManifestError

COLUMNS = ("scan", "count")
READER = "reader"
#: Of a reader who counted a scan more than once: 1, 2 and so on.
READING = "reading"

#: Errors that are named one by one; of the rest the number is given.
_ERRORS_SHOWN = 100
_WHICH = re.compile(r"[1-9]\d{0,3}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = frozenset({"inf", "infinity", "nan"})
#: More than a region has room for: what is larger is an identifier or a date in the wrong column.
MOST_COUNT = 10_000
_LEGAL = f"a whole number from 0 to {MOST_COUNT} is legal"


@dataclass(frozen=True)
class Reading:
    """One count of one scan by one reader.

    Attributes
    ----------
    reader : str
        Empty where the table has no such column.
    number : int
        Which of the reader's readings of the scan, from 1.
    """

    scan: str
    reader: str
    number: int
    count: float


@dataclass(frozen=True)
class Counted:
    """Count of one scan.

    Attributes
    ----------
    count : float
        Mean of its readers' counts, each the mean of the reader's readings; a whole number where there is one.
    readers : int
        How many counts it is the mean of.
    """

    count: float
    readers: int


@dataclass(frozen=True)
class CountTable:
    """Counts of a study.

    Attributes
    ----------
    path : Path
        Where they were read from.
    counts : mapping of str to Counted
        Scan key to count, in the order of the table.
    readers : tuple of str
        Names of the readers, sorted; empty where the table has no such column.
    """

    path: Path
    counts: Mapping[str, Counted]
    readers: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How many scans were counted, and by how many readers.

        >>> two = {"a": Counted(2.5, 2), "b": Counted(4.0, 1)}
        >>> CountTable(Path("counts.csv"), two, ("x", "y")).words
        'counts of 2 scans by 2 readers; of 1 scans the mean of several readers is taken'
        """
        text = f"counts of {len(self.counts)} scans"
        if self.readers:
            text += f" by {len(self.readers)} reader{'s' if len(self.readers) > 1 else ''}"
        several = sum(each.readers > 1 for each in self.counts.values())
        return text + (f"; of {several} scans the mean of several readers is taken" if several else "")


def read_counts(path: Path) -> CountTable:
    """Read a table of counts; other columns than `read_readings` reads are passed over.

    Raises
    ------
    CountsError
        As `read_readings`.
    """
    readings = read_readings(path)
    found: dict[str, dict[str, list[float]]] = {}
    for each in readings:
        found.setdefault(each.scan, {}).setdefault(each.reader, []).append(each.count)
    counts = {key: Counted(_mean(map(_mean, by.values())), len(by)) for key, by in found.items()}
    return CountTable(path, counts, tuple(sorted({each.reader for each in readings if each.reader})))


def read_readings(path: Path) -> tuple[Reading, ...]:
    """Read every count of a table; columns besides scan, count, reader and reading are passed over.

    Returns
    -------
    tuple of Reading
        In the order of the table, at least one.

    Raises
    ------
    CountsError
        Not a readable table, a column missing, no row, a scan without name, a reading that is no whole number from 1,
        a count that is empty, no number, not finite, negative, fractional or too large, or one that stands twice (for
        one reader and reading, where there are such columns). Every fault is named with its line.
    """
    try:
        table = read_table(path)
    except ManifestError as error:
        raise CountsError(error.message, hint=error.hint) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise CountsError(
            f"{path}: line 1: no column {' and '.join(missing)}; found {', '.join(table.columns)}; needed are "
            f"{', '.join(COLUMNS)}, legal besides are {READER} and {READING}"
        )
    if not table.rows:
        raise CountsError(f"{path}: no count in it, only a header; one row for each counted scan is needed")
    return _checked(table)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known)


def _checked(table: Table) -> tuple[Reading, ...]:
    readers, numbers = (
        table.column(name) if name in table.columns else (otherwise,) * len(table.rows)
        for name, otherwise in ((READER, ""), (READING, "1"))
    )
    found: list[Reading] = []
    first: dict[tuple[str, str, str], int] = {}
    faults: list[str] = []
    cells = zip(table.rows, table.column("scan"), table.column("count"), readers, numbers, strict=True)
    for (line, _), key, text, reader, number in cells:
        if not key:
            faults.append(f"line {line}: the scan has no name")
            continue
        by = f" by reader {reader!r}" if reader else ""
        if not _WHICH.fullmatch(number):
            faults.append(
                f"line {line}: scan {key!r}{by}: reading {number!r}; a whole number from 1 is legal"
            )
            continue
        if (key, reader, number) in first:
            again = f"stands on line {first[key, reader, number]} already; each once is legal"
            faults.append(f"line {line}: the count of scan {key!r}{by} {again}")
            continue
        first[key, reader, number] = line
        fault = _fault(text)
        if fault:
            faults.append(f"line {line}: scan {key!r}{by}: {fault}; {_LEGAL}")
        else:
            found.append(Reading(key, reader, int(number), float(text)))
    _raise_any(table.path, faults)
    return tuple(found)


def _fault(text: str) -> str:
    """What is wrong with the cell of a count; empty where nothing is.

    >>> _fault("7"), _fault("7.0"), _fault("7.5"), _fault("-1"), _fault("few")
    ('', '', 'count 7.5 is fractional', 'count -1 is negative', "count 'few' is no number")
    """
    if text in UNKNOWN - {"NaN", "nan"}:
        return f"the count is empty ({text!r})" if text else "the count is empty"
    if text.lower().lstrip("+-") in _NOT_FINITE:
        return f"count {text} is not finite"
    if not _NUMBER.fullmatch(text):
        return f"count {text!r} is no number"
    value = float(text)
    if not math.isfinite(value):
        return f"count {text} is not finite"
    if value < 0:
        return f"count {text} is negative"
    if value > MOST_COUNT:
        return f"count {text} is too large"
    return "" if value.is_integer() else f"count {text} is fractional"


def _raise_any(path: Path, faults: list[str]) -> None:
    if not faults:
        return
    more = len(faults) - _ERRORS_SHOWN
    shown = faults[:_ERRORS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    raise CountsError(
        f"{path}: " + "; ".join(shown),
        hint="leave out the rows of scans without a count; several counts of one scan need a column reader, several by "
        "one reader a column reading besides",
    )
