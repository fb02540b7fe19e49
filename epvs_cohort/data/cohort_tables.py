"""From committed parts to the three tables, and back into pandas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from epvs_cohort.data.files import whole_file
from epvs_cohort.data.part_rows import Listed, newest_places, rows_at
from epvs_cohort.data.parts import OutputPaths, Parts
from epvs_cohort.data.tables import (
    LESION_COLUMNS,
    METADATA_KEY,
    QC_COLUMNS,
    RUN_COLUMNS,
    SCHEMA_VERSION,
    VALID_FROM,
    Column,
    counts_columns,
    keys_of,
    part_schema,
    region_columns,
    schema_of,
)
from epvs_cohort.errors import UsageError

#: Columns of ``asked.parquet`` that are not covariates.
ASKED_COLUMNS = ("scan", "subject", "session", "path", VALID_FROM)


#: The three tables, as `Tables` and `OutputPaths` name them.
TABLE_NAMES = ("counts", "lesions", "qc")


@dataclass(frozen=True)
class Tables:
    """The three tables of a run as Arrow tables."""

    counts: pa.Table
    lesions: pa.Table
    qc: pa.Table


#: A table, or what reads it.
Frame = pd.DataFrame | Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class Cohort:
    """A run's results as pandas DataFrames.

    Attributes
    ----------
    scans : DataFrame
        The table of counts.
    about : dict
        Tool version, protocol, model card and hashes.
    n_asked : int
        Scans asked for; more than ``len(scans)`` while the run is unfinished.
    """

    scans: pd.DataFrame
    #: The two large tables are read when they are first asked for: most of what is asked needs neither.
    lesions_frame: Frame = field(repr=False)
    qc_frame: Frame = field(repr=False)
    about: dict[str, Any]
    n_asked: int

    @cached_property
    def lesions(self) -> pd.DataFrame:
        """The table of lesions."""
        return self.lesions_frame() if callable(self.lesions_frame) else self.lesions_frame

    @cached_property
    def qc(self) -> pd.DataFrame:
        """The table of quality measures."""
        return self.qc_frame() if callable(self.qc_frame) else self.qc_frame

    @property
    def finished(self) -> bool:
        """Whether every scan asked for has its row."""
        return len(self.scans) == self.n_asked


def assemble(parts: Parts) -> Tables:
    """Build the three tables of the present run from what is committed, scans in the order of their keys.

    Raises
    ------
    OutputError
        A part or the run's record is damaged.
    UsageError
        There is no run.
    """
    # A run that is finishing may put the parts into one file meanwhile.
    pieces = parts.steadily(lambda files: list(_pieces(parts, files)))
    return Tables(*(pa.concat_tables([getattr(each, name) for each in pieces]) for name in TABLE_NAMES))


def assembled(parts: Parts) -> Iterator[Tables]:
    """Yield the same piece by piece, at least one; nobody else may write meanwhile."""
    yield from _pieces(parts, parts.files())


def _pieces(parts: Parts, files: Listed) -> Iterator[Tables]:
    run = parts.run()
    if run is None:
        raise UsageError(f"{parts.folder}: no run was begun here")
    places = newest_places(files)
    place = {key: at for at, key in enumerate(keys_of(places))}
    number = places.column("part_number").to_numpy()
    asked = parts.asked().sort_by("scan")
    pairs = [
        (at, place[key])
        for at, (key, valid_from) in enumerate(
            zip(keys_of(asked), asked.column(VALID_FROM).to_pylist(), strict=True)
        )
        if key in place and number[place[key]] >= valid_from
    ]
    asked = asked.take(pa.array([a for a, _ in pairs], type=pa.int64()))
    places = places.take(pa.array([b for _, b in pairs], type=pa.int64()))
    about = {**run, "schema_version": SCHEMA_VERSION, "compacted_through": parts.last_number}
    at = 0
    for rows in rows_at(files, places) if pairs else (part_schema().empty_table(),):
        piece = asked.slice(at, rows.num_rows)
        at += rows.num_rows
        yield Tables(
            _told(_counts(run, piece, rows), "counts", about),
            _told(_nested(rows, "lesions", LESION_COLUMNS), "lesions", about),
            _told(_nested(rows, "qc", QC_COLUMNS), "qc", about),
        )


def _told(table: pa.Table, name: str, about: dict[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({METADATA_KEY: json.dumps({**about, "table": name}).encode()})


def _counts(run: dict[str, Any], asked: pa.Table, rows: pa.Table) -> pa.Table:
    regions = region_columns(run["protocol"]["roi"]["regions"])
    by_region = {c.name: at for at, c in enumerate(regions)}
    arrays = []
    columns = counts_columns(run["protocol"]["roi"]["regions"])
    for column in columns:
        if column.name in ASKED_COLUMNS:
            arrays.append(asked.column(column.name).cast(column.type))
        elif column.name in RUN_COLUMNS:
            arrays.append(pa.array([run[column.name]] * rows.num_rows, type=column.type))
        elif column.name in by_region:
            arrays.append(_element(rows.column("n_by_region"), by_region[column.name]))
        else:
            arrays.append(rows.column(column.name))
    table = pa.Table.from_arrays(arrays, schema=schema_of(columns))
    for name in asked.column_names:
        if name not in ASKED_COLUMNS:
            table = table.append_column(asked.schema.field(name), asked.column(name))
    return table


def _element(lists: pa.ChunkedArray, at: int) -> pa.Array:
    values = [None if item is None else item[at] for item in lists.to_pylist()]
    return pa.array(values, type=pa.int32())


def _nested(rows: pa.Table, name: str, columns: tuple[Column, ...]) -> pa.Table:
    nested = rows.column(name).combine_chunks()
    parents = pc.list_parent_indices(nested)
    items = pc.list_flatten(nested)
    arrays = [rows.column("scan").combine_chunks().take(parents)]
    arrays += [pc.struct_field(items, column.name) for column in columns[1:]]
    return pa.Table.from_arrays(arrays, schema=schema_of(columns))


def write_tables(paths: OutputPaths, pieces: Iterable[Tables]) -> None:
    """Write the three tables, each whole, from at least one piece; the table of counts appears last."""
    with ExitStack() as files:
        # What is entered first is left, and so appears, last.
        writers: dict[str, pq.ParquetWriter] = {}
        places = {name: files.enter_context(whole_file(getattr(paths, name))) for name in TABLE_NAMES}
        for piece in pieces:
            for name, place in places.items():
                table: pa.Table = getattr(piece, name)
                if name not in writers:
                    writers[name] = pq.ParquetWriter(place, table.schema, compression="zstd")
                    files.push(writers[name])
                writers[name].write_table(table)


def check_outputs(paths: OutputPaths) -> None:
    """Refuse to write over anything that is not the same table of an earlier run.

    Raises
    ------
    UsageError
        A file of one of the three names is something else.
    """
    for path, name in ((paths.counts, "counts"), (paths.lesions, "lesions"), (paths.qc, "qc")):
        if path.exists():
            about_table(path, name)


def about_table(path: Path, name: str = "counts") -> dict[str, Any]:
    """Tool version, protocol, model card and hashes that a table of this program carries.

    Parameters
    ----------
    path : Path
        A Parquet file.
    name : str
        Which of the three tables it must be: counts, lesions or qc.

    Raises
    ------
    UsageError
        The file is no such table of this program.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: not a readable Parquet file: {error}") from error
    if METADATA_KEY not in metadata:
        raise UsageError(
            f"{path}: a Parquet file, but not a table of epvs-cohort", hint="choose another --out"
        )
    about: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    if about.get("table") != name:
        raise UsageError(
            f"{path}: the table of {about.get('table')} of a run, not a table of {name}",
            hint="name the table of counts: the other two lie beside it",
        )
    return about


def read_cohort(path: str | Path) -> Cohort:
    """Read the results of a finished or unfinished run.

    Parameters
    ----------
    path : str or Path
        The table of counts, as given to ``--out``; it need not exist yet while the run is unfinished.

    Returns
    -------
    Cohort
        ``.scans``, ``.lesions`` and ``.qc`` as DataFrames.

    Raises
    ------
    UsageError
        There is neither a table nor a begun run.
    """
    paths = OutputPaths.of(Path(path))
    parts = Parts(paths.parts)
    about = about_table(paths.counts) if paths.counts.exists() else None
    if (
        about is not None
        and about.get("compacted_through", 0) >= parts.last_number
        and _same_run(parts, about)
    ):
        # Opened now: a run that writes the tables anew leaves these as they were.
        counts, lesions, qc = (_opened(each) for each in (paths.counts, paths.lesions, paths.qc))
        scans = _read(counts)
        return Cohort(scans, partial(_read, lesions), partial(_read, qc), about=about, n_asked=len(scans))
    if parts.run() is None:
        raise UsageError(f"{path}: no table of epvs-cohort, and no run was begun with this output")
    tables = assemble(parts)
    return Cohort(
        tables.counts.to_pandas(),
        tables.lesions.to_pandas,
        tables.qc.to_pandas,
        about=json.loads(tables.counts.schema.metadata[METADATA_KEY]),
        n_asked=parts.asked().num_rows,
    )


def _opened(path: Path) -> tuple[Path, pq.ParquetFile]:
    try:
        return path, pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _read(opened: tuple[Path, pq.ParquetFile]) -> pd.DataFrame:
    path, file = opened
    try:
        frame: pd.DataFrame = file.read().to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return frame


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path}: the table cannot be read: {error}", hint="start the run again")


def _same_run(parts: Parts, about: dict[str, Any]) -> bool:
    run = parts.run()
    return run is None or run.get("run_id") == about.get("run_id")
