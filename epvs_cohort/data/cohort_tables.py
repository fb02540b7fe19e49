"""From committed parts to the three tables, and back into pandas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from epvs_cohort.data.files import whole_file
from epvs_cohort.data.parts import OutputPaths, Parts, keys_of
from epvs_cohort.data.tables import (
    LESION_COLUMNS,
    METADATA_KEY,
    QC_COLUMNS,
    RUN_COLUMNS,
    SCHEMA_VERSION,
    VALID_FROM,
    Column,
    counts_columns,
    region_columns,
    schema_of,
)
from epvs_cohort.errors import UsageError

#: Columns of ``asked.parquet`` that are not covariates.
ASKED_COLUMNS = ("scan", "subject", "session", "path", VALID_FROM)


@dataclass(frozen=True)
class Tables:
    """The three tables of a run as Arrow tables."""

    counts: pa.Table
    lesions: pa.Table
    qc: pa.Table


@dataclass(frozen=True)
class Cohort:
    """A run's results as pandas DataFrames.

    Attributes
    ----------
    scans, lesions, qc : DataFrame
        The tables of counts, lesions and quality measures.
    about : dict
        Tool version, protocol, model card and hashes.
    n_asked : int
        Scans asked for; more than ``len(scans)`` while the run is unfinished.
    """

    scans: pd.DataFrame
    lesions: pd.DataFrame
    qc: pd.DataFrame
    about: dict[str, Any]
    n_asked: int

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
    run = parts.run()
    if run is None:
        raise UsageError(f"{parts.folder}: no run was begun here")
    asked = parts.asked().sort_by("scan")
    rows = parts.read()
    place = {key: at for at, key in enumerate(keys_of(rows))}
    number = rows.column("part_number").to_pylist()
    pairs = [
        (at, place[key])
        for at, (key, valid_from) in enumerate(
            zip(keys_of(asked), asked.column(VALID_FROM).to_pylist(), strict=True)
        )
        if key in place and number[place[key]] >= valid_from
    ]
    asked = asked.take(pa.array([a for a, _ in pairs], type=pa.int64()))
    rows = rows.take(pa.array([b for _, b in pairs], type=pa.int64()))
    about = {**run, "schema_version": SCHEMA_VERSION, "compacted_through": parts.last_number}
    return Tables(
        _told(_counts(run, asked, rows), "counts", about),
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


def write_tables(paths: OutputPaths, tables: Tables) -> None:
    """Write the three tables, each whole; the table of counts comes last."""
    for path, table in (
        (paths.qc, tables.qc),
        (paths.lesions, tables.lesions),
        (paths.counts, tables.counts),
    ):
        with whole_file(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


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
        tables = Tables(*(_read(p) for p in (paths.counts, paths.lesions, paths.qc)))
        n_asked = tables.counts.num_rows
    elif parts.run() is not None:
        tables = assemble(parts)
        about = json.loads(tables.counts.schema.metadata[METADATA_KEY])
        n_asked = parts.asked().num_rows
    else:
        raise UsageError(f"{path}: no table of epvs-cohort, and no run was begun with this output")
    frames = (tables.counts.to_pandas(), tables.lesions.to_pandas(), tables.qc.to_pandas())
    return Cohort(*frames, about=about, n_asked=n_asked)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: the table cannot be read: {error}", hint="start the run again") from error


def _same_run(parts: Parts, about: dict[str, Any]) -> bool:
    run = parts.run()
    return run is None or run.get("run_id") == about.get("run_id")
