"""Committed results of a run: part files beside the output, each whole, later ones overruling earlier ones.

``counts.parts/`` holds ``part-NNNNNNNN.parquet`` (results as they came), at most one ``base-NNNNNNNN.parquet``
(all parts up to that number in one file), ``asked.parquet`` (the scans of the present run) and ``run.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from epvs_cohort.data.files import whole_file, write_whole
from epvs_cohort.data.tables import part_schema
from epvs_cohort.errors import OutputError, UsageError

_NAME = re.compile(r"(part|base)-(\d{8})\.parquet")


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
    """The part files of one output.

    Parameters
    ----------
    folder : Path
        Need not exist before the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _files(self) -> list[tuple[int, Path]]:
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
        files = self._files()
        return files[-1][0] if files else 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Commit results as one new part and return its number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = self.last_number + 1
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=part_schema())
        with whole_file(self.folder / f"part-{number:08d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
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
        while True:
            files = self._files()
            try:
                return [self._one(number, path, columns) for number, path in files]
            except FileNotFoundError as error:
                # A run that is finishing has put the parts into one file meanwhile.
                if self._files() == files:
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
        files = self._files()
        if not files or (len(files) == 1 and files[0][1].name.startswith("base")):
            return self.last_number
        table, number = self.read(), self.last_number
        table = table.filter(pc.greater_equal(table.column("part_number"), stale_below))
        with whole_file(self.folder / f"base-{number:08d}.parquet") as temporary:
            pq.write_table(table.drop_columns(["part_number"]), temporary, compression="zstd")
        kept = self.folder / f"base-{number:08d}.parquet"
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and path != kept and int(match[2]) <= number:
                path.unlink()
        return number

    def begin(self, run: Mapping[str, Any], asked: pa.Table) -> None:
        """Record what the present run asks for."""
        self.folder.mkdir(parents=True, exist_ok=True)
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


def keys_of(table: pa.Table) -> list[str]:
    """Scan keys of a table, in its order."""
    keys: list[str] = table.column("scan").to_pylist()
    return keys
