"""Tables of scans and of participants: CSV, TSV or semicolons, each error with its line.

A manifest has the columns ``scan`` and ``path`` and may have ``subject``, ``session``, ``aseg``,
``aseg_to_scan``, ``mask`` and ``ac_slice``; every other column is a covariate.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epvs_cohort.data.sniff import require_regular
from epvs_cohort.errors import ManifestError, UnreadableError
from epvs_cohort.records import Scalar, Scan

REQUIRED = ("scan", "path")
OPTIONAL = ("subject", "session", "aseg", "aseg_to_scan", "mask", "ac_slice")

_DELIMITERS = (",", "\t", ";")
_ERRORS_SHOWN = 10
_MAX_TABLE_BYTES = 64 << 20
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
#: No leading zero before another digit (an identifier), and nothing that a float cannot hold.
_REAL = re.compile(r"[+-]?((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
#: BIDS writes n/a for unknown; the others are what tables of R and pandas hold.
UNKNOWN = frozenset({"", "n/a", "N/A", "NA", "NaN", "nan"})


@dataclass(frozen=True)
class Table:
    """A text table as it stands: names of columns, and rows with the line they stand on."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, name: str) -> tuple[str, ...]:
        """Cells of one column, top to bottom."""
        at = self.columns.index(name)
        return tuple(cells[at] for _, cells in self.rows)


@dataclass
class _Faults:
    """Faults of one file, collected so that they can be mended in one go."""

    path: Path
    found: list[str] = field(default_factory=list)

    def add(self, line: int, what: str) -> None:
        self.found.append(f"line {line}: {what}")

    def raise_any(self) -> None:
        if not self.found:
            return
        more = len(self.found) - _ERRORS_SHOWN
        shown = self.found[:_ERRORS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise ManifestError(f"{self.path}: " + "; ".join(shown))


def read_manifest(path: Path) -> tuple[Scan, ...]:
    """Read a table of scans; paths in it are relative to its folder, those of the scans are absolute.

    Whether the files exist is not looked at here: a missing one is a failed scan, not a bad manifest.

    Raises
    ------
    ManifestError
        Not a readable table, columns missing or doubled, rows of another length than the header, a scan
        that is empty or stands twice, an empty path, or an ``ac_slice`` that is no whole number from 0.
    """
    table = read_table(path)
    faults = _Faults(path)
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        faults.add(
            1,
            f"no column {' and '.join(missing)}; found {', '.join(table.columns)}; needed are "
            f"{', '.join(REQUIRED)}, legal besides are {', '.join(OPTIONAL)} and covariates",
        )
    faults.raise_any()
    if not table.rows:
        raise ManifestError(f"{path}: no scan in it, only a header; one row for each scan is needed")
    names = [name for name in table.columns if name not in (*REQUIRED, *OPTIONAL)]
    covariates = {name: typed_cells(table.column(name)) for name in names}
    _check_keys(table, faults)
    scans = [
        _scan(table, cells, line, faults, {name: values[row] for name, values in covariates.items()})
        for row, (line, cells) in enumerate(table.rows)
    ]
    faults.raise_any()
    return tuple(scans)


def read_table(path: Path) -> Table:
    """Read a text table whose delimiter (comma, tab or semicolon) is seen from its header.

    Raises
    ------
    ManifestError
        Missing, not UTF-8, without a header, with a doubled or empty column name, or with ragged rows.
    """
    text = _text(path)
    header = text.splitlines()[0] if text.strip() else ""
    if not header.strip():
        raise ManifestError(
            f"{path}: the table is empty or begins with an empty line; a header line is needed"
        )
    delimiter = max(_DELIMITERS, key=header.count)
    faults = _Faults(path)
    columns: tuple[str, ...] = ()
    rows: list[tuple[int, tuple[str, ...]]] = []
    for line, cells in _lines(path, text, delimiter):
        if not columns:
            columns = cells
        elif len(cells) != len(columns):
            faults.add(line, f"{len(cells)} cells, the header has {len(columns)}")
        else:
            rows.append((line, cells))
    for name, times in Counter(columns).items():
        if times > 1 or not name:
            faults.add(1, f"column {name!r} stands {times} times; each needs a name of its own")
    faults.raise_any()
    return Table(path, columns, tuple(rows))


def check_clash(path: Path, names: Iterable[str], reserved: frozenset[str]) -> None:
    """Check that no covariate is named as a column of the table of counts.

    Raises
    ------
    ManifestError
        One is.
    """
    clashing = sorted(name for name in names if name in reserved)
    if clashing:
        raise ManifestError(
            f"{path}: column {', '.join(clashing)} would clash with a column of the table of counts",
            hint="rename it, for example with a prefix",
        )


def _text(path: Path) -> str:
    try:
        require_regular(path)
        with path.open("rb") as handle:
            raw = handle.read(_MAX_TABLE_BYTES + 1)
    except UnreadableError as error:
        raise ManifestError(error.message) from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > _MAX_TABLE_BYTES:
        raise ManifestError(f"{path}: more than {_MAX_TABLE_BYTES >> 20} MiB; no table of scans is as large")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ManifestError(
            f"{path}: line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; UTF-8 is legal",
            hint="save the table as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ManifestError(
            f"{path}: line {line}: a zero byte: this is no text table", hint="save it as CSV UTF-8"
        )
    return text


def _lines(path: Path, text: str, delimiter: str) -> Iterable[tuple[int, tuple[str, ...]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield start, tuple(cell.strip() for cell in cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}: line {reader.line_num}: malformed table: {error}") from error


def _check_keys(table: Table, faults: _Faults) -> None:
    first: dict[str, int] = {}
    for (line, _), key in zip(table.rows, table.column("scan"), strict=True):
        if not key:
            faults.add(line, "the scan has no name")
        elif key in first:
            faults.add(line, f"scan {key!r} stands on line {first[key]} already; each once is legal")
        else:
            first[key] = line


def _scan(
    table: Table, cells: Sequence[str], line: int, faults: _Faults, covariates: Mapping[str, Scalar]
) -> Scan:
    row = dict(zip(table.columns, cells, strict=True))
    folder = table.path.parent.absolute()
    if not row["path"]:
        faults.add(line, f"scan {row['scan']!r} has no path")
    return Scan(
        key=row["scan"],
        path=folder / row["path"],
        subject=row.get("subject") or None,
        session=row.get("session") or None,
        aseg=_side_file(folder, row.get("aseg")),
        aseg_to_scan=_side_file(folder, row.get("aseg_to_scan")),
        mask=_side_file(folder, row.get("mask")),
        ac_slice=_ac_slice(row.get("ac_slice", ""), line, faults),
        covariates=covariates,
    )


def _side_file(folder: Path, name: str | None) -> Path | None:
    return folder / name if name and name not in UNKNOWN else None


def _ac_slice(text: str, line: int, faults: _Faults) -> int | None:
    if text in UNKNOWN:
        return None
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        faults.add(
            line, f"ac_slice {text!r}; legal is a whole number from 0 (the 0-based native slice), or empty"
        )
        return None
    return int(text)


def typed_cells(cells: Sequence[str]) -> tuple[Scalar, ...]:
    """Cells of one column as whole numbers, else as real numbers, else as text; unknown is None.

    A column with an identifier such as ``007`` stays text, so that no zero is lost.

    >>> typed_cells(["1", "", "2"]), typed_cells(["1", "2.5"]), typed_cells(["007", "12"])
    ((1, None, 2), (1.0, 2.5), ('007', '12'))
    """
    known = [cell for cell in cells if cell not in UNKNOWN]
    if known and all(_INTEGER.fullmatch(cell) for cell in known):
        return tuple(None if cell in UNKNOWN else int(cell) for cell in cells)
    if known and all(_REAL.fullmatch(cell) for cell in known):
        return tuple(None if cell in UNKNOWN else float(cell) for cell in cells)
    return tuple(None if cell in UNKNOWN else cell for cell in cells)
