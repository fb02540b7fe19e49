"""Rows of part files in any order asked for, some two thousand at a time: a cohort's rows together need gigabytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from epvs_cohort.data.tables import keys_of
from epvs_cohort.errors import OutputError

#: Part files with their numbers, oldest first.
Listed = Sequence[tuple[int, Path]]

#: Rows that are given at a time, and about so many are kept for the next ones.
ROWS_AT_ONCE = 2048


def newest_places(files: Listed) -> pa.Table:
    """Where the newest row of each scan stands.

    Returns
    -------
    Table
        Columns ``scan``, ``part_number``, ``file`` (place in ``files``) and ``row`` (place in the file).

    Raises
    ------
    OutputError
        A part is damaged.
    FileNotFoundError
        A file is gone.
    """
    newest: dict[str, tuple[int, int]] = {}
    for at, (_, path) in enumerate(files):
        for row, key in enumerate(keys_of(_opened(path).read(columns=["scan"]))):
            newest[key] = (at, row)
    places = np.array(list(newest.values()), dtype=np.int64).reshape(-1, 2)
    numbers = np.array([number for number, _ in files], dtype=np.int64)
    return pa.table(
        {
            "scan": pa.array(list(newest), type=pa.string()),
            "part_number": numbers[places[:, 0]],
            "file": places[:, 0],
            "row": places[:, 1],
        }
    )


def rows_at(files: Listed, places: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows at places, in their order, `ROWS_AT_ONCE` at a time.

    Rows come nearly in the order of their scans, for scans are done in that order: what was read for some is rarely
    read again.

    Raises
    ------
    OutputError
        A part is damaged.
    FileNotFoundError
        A file is gone.
    """
    groups = _RowGroups(files)
    for start in range(0, places.num_rows, ROWS_AT_ONCE):
        some = places.slice(start, ROWS_AT_ONCE)
        yield groups.take(some.column("file").to_numpy(), some.column("row").to_numpy())


class _RowGroups:
    """Row groups of some files, the last ones kept."""

    def __init__(self, files: Listed) -> None:
        self._files = files
        self._kept: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._starts: dict[int, np.ndarray] = {}

    def take(self, files: np.ndarray, rows: np.ndarray) -> pa.Table:
        """Rows by file and place in it."""
        tables, placed, base = [], np.empty(len(rows), dtype=np.int64), 0
        for file in np.unique(files):
            chosen = np.flatnonzero(files == file)
            starts = self._starts_of(int(file))
            group = np.searchsorted(starts, rows[chosen], side="right") - 1
            for number in np.unique(group):
                wanted = chosen[group == number]
                table = self._group(int(file), int(number))
                tables.append(table.take(pa.array(rows[wanted] - starts[number])))
                placed[wanted] = base + np.arange(len(wanted))
                base += len(wanted)
        return pa.concat_tables(tables).take(pa.array(placed))

    def _starts_of(self, file: int) -> np.ndarray:
        if file not in self._starts:
            about = _opened(self._files[file][1]).metadata
            sizes = [about.row_group(n).num_rows for n in range(about.num_row_groups)]
            self._starts[file] = np.cumsum([0, *sizes[:-1]])
        return self._starts[file]

    def _group(self, file: int, number: int) -> pa.Table:
        if (file, number) not in self._kept:
            path = self._files[file][1]
            try:
                self._kept[file, number] = _opened(path).read_row_group(number)
            except (OSError, pa.ArrowException) as error:
                raise _damaged(path, error) from error
            while len(self._kept) > 1 and sum(t.num_rows for t in self._kept.values()) > 2 * ROWS_AT_ONCE:
                self._kept.popitem(last=False)
        self._kept.move_to_end((file, number))
        return self._kept[file, number]


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path}: no readable part: {error}", hint="delete it: its scans are redone")
