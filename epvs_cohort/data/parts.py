"""Committed results of a run: part files beside the output, each whole, later ones overruling earlier ones.

``counts.parts/`` holds ``part-NNNNNNNN.parquet`` (results as they came), at most one ``base-NNNNNNNN.parquet``
(all parts up to that number in one file), ``asked.parquet`` (the scans of the present run) and ``run.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from epvs_cohort.data.files import whole_file, write_whole
from epvs_cohort.data.part_rows import ROWS_AT_ONCE, Listed, newest_places, rows_at
from epvs_cohort.data.tables import keys_of, part_schema
from epvs_cohort.errors import OutputError, UsageError

Read = TypeVar("Read")

_NAME = re.compile(r"(part|base)-(\d{8})\.parquet")
#: So many parts of one run lie side by side at most.
MOST_PARTS = 512


@dataclass(frozen=True)
class OutputPaths:
    """Where a run writes, derived from ``--out``."""

    counts: Path

    @classmethod
    def of(cls, out: Path) -> OutputPaths:
        """Paths for an output named ``out``.

        Raises
        ------
        UsageError
            The name does not end in .parquet, or it is a folder.
        """
        if out.is_dir():
            raise UsageError(f"{out}: is a folder; the output must be a file ending in .parquet")
        if out.suffix != ".parquet":
            raise UsageError(
                f"{out}: the output must be a file ending in .parquet",
                hint=f"try {out.with_suffix('.parquet')}",
            )
        return cls(out)

    def _beside(self, ending: str) -> Path:
        return self.counts.with_name(self.counts.name.removesuffix(".parquet") + ending)

    @property
    def lesions(self) -> Path:
        """Table of lesions."""
        return self._beside(".lesions.parquet")

    @property
    def qc(self) -> Path:
        """Table of quality measures."""
        return self._beside(".qc.parquet")

    @property
    def parts(self) -> Path:
        """Folder of the committed parts."""
        return self._beside(".parts")

    @property
    def store(self) -> Path:
        """Prepared volumes, unless another store is named."""
        return self._beside(".store")

    @property
    def maps(self) -> Path:
        """Heatmaps and lesion labels in native space."""
        return self._beside(".maps")

    @property
    def report(self) -> Path:
        """Page of the cohort."""
        return self._beside(".report.html")

    @property
    def figures(self) -> Path:
        """Pictures as PNG files."""
        return self._beside(".figures")


class Parts:
    """The part files of one output; one process at a time writes.

    Parameters
    ----------
    folder : Path
        Need not exist before the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: int | None = None
        self._before = 0
        self._unmerged = 0

    def files(self) -> list[tuple[int, Path]]:
        """Files that count, oldest first: the highest base, then the parts above it."""
        found: dict[str, list[tuple[int, Path]]] = {"part": [], "base": []}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match:
                found[match[1]].append((int(match[2]), path))
        base = sorted(found["base"])[-1:]
        floor = base[0][0] if base else 0
        return base + sorted(item for item in found["part"] if item[0] > floor)

    @property
    def last_number(self) -> int:
        """Number of the newest part or base; 0 where there is none."""
        files = self.files()
        return files[-1][0] if files else 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Commit results as one new part and return its number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # One process at a time writes, so the folder is listed once.
        number = (self.last_number if self._last is None else self._last) + 1
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=part_schema())
        with whole_file(self.folder / f"part-{number:08d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        self._last = number
        self._unmerged += 1
        if self._unmerged >= MOST_PARTS:
            self.merge_new()
            self._unmerged = 1
        return number

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Newest committed row of each scan, with its part number in the column ``part_number``.

        Parameters
        ----------
        columns : list of str, optional
            Which columns to read; ``scan`` must be among them.

        Raises
        ------
        OutputError
            A part is damaged.
        """
        names = columns if columns is not None else part_schema().names
        empty = pa.schema([part_schema().field(name) for name in names]).empty_table()
        table = pa.concat_tables([_numbered(empty, 0), *self._all(names)])
        newest = {key: row for row, key in enumerate(keys_of(table))}
        return table.take(pa.array(sorted(newest.values()), type=pa.int64()))

    def _all(self, columns: list[str]) -> list[pa.Table]:
        return self.steadily(lambda files: [self._one(number, path, columns) for number, path in files])

    def steadily(self, read: Callable[[Listed], Read]) -> Read:
        """What ``read`` makes of the files that count, read anew where a run put them together meanwhile.

        Raises
        ------
        OutputError
            A part is damaged, or gone.
        """
        while True:
            files = self.files()
            try:
                # A file that is put in the place of another has another inode.
                before = [path.stat().st_ino for _, path in files]
                found = read(files)
                if [path.stat().st_ino for _, path in files] == before:
                    return found
            except FileNotFoundError as error:
                if self.files() == files:
                    raise OutputError(f"{error.filename}: not readable: {error}") from error

    def _one(self, number: int, path: Path, columns: list[str]) -> pa.Table:
        try:
            return _numbered(pq.read_table(path, columns=columns), number)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise OutputError(
                f"{path}: no readable part: {error}", hint="delete it: its scans are redone"
            ) from error

    def consolidate(self, stale_below: int = 0) -> int:
        """Merge all parts into one base file and remove what it replaces; return its number.

        Parameters
        ----------
        stale_below : int
            Rows of parts below this number are left out: in the base they would pass for new.
        """
        files = self.files()
        if not files or (len(files) == 1 and files[0][1].name.startswith("base")):
            return self.last_number
        number = self.last_number
        places = newest_places(files)
        kept = places.filter(pc.greater_equal(places.column("part_number"), stale_below))
        base = self.folder / f"base-{number:08d}.parquet"
        _write_rows(base, files, kept.sort_by("scan"))
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and path != base and int(match[2]) <= number:
                path.unlink()
        return number

    def merge_new(self) -> None:
        """Put the parts of the present run into the newest of them, so that their number stays bounded.

        Its number is that of the newest rows in it, and none of them was committed before the run began: what is stale
        stays stale. After a crash between the two steps the older parts tell again what the newest one says.
        """
        files = [item for item in self.files() if item[0] > self._before and item[1].name.startswith("part")]
        if len(files) > 1:
            _write_rows(files[-1][1], files, newest_places(files).sort_by("scan"))
            for _, path in files[:-1]:
                path.unlink()

    def begin(self, run: Mapping[str, Any], asked: pa.Table) -> None:
        """Record what the present run asks for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._before, self._last, self._unmerged = self.last_number, None, 0
        with whole_file(self.folder / "asked.parquet") as temporary:
            pq.write_table(asked, temporary, compression="zstd")
        write_whole(self.folder / "run.json", json.dumps(run, indent=1, allow_nan=False).encode())

    def run(self) -> dict[str, Any] | None:
        """What :meth:`begin` recorded; None before the first run."""
        try:
            loaded: dict[str, Any] = json.loads((self.folder / "run.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.folder / 'run.json'}: not readable: {error}") from error
        return loaded

    def asked(self) -> pa.Table:
        """Scans of the present run with their covariates, as :meth:`begin` recorded them."""
        path = self.folder / "asked.parquet"
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{path}: not readable: {error}") from error


def _numbered(table: pa.Table, number: int) -> pa.Table:
    return table.append_column("part_number", pa.array([number] * table.num_rows, type=pa.int64()))


def _write_rows(path: Path, files: Listed, places: pa.Table) -> None:
    """Write rows in the order of their places, never many of them in memory."""
    schema = part_schema()
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for rows in rows_at(files, places):
            writer.write_table(rows.select(schema.names), row_group_size=ROWS_AT_ONCE // 4)
