"""Covariates of a BIDS data set: ``participants.tsv`` and ``sub-*/sub-*_sessions.tsv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from epvs_cohort.data.manifest import UNKNOWN, Table, check_clash, read_table, typed_cells
from epvs_cohort.errors import ManifestError
from epvs_cohort.records import Scan

_SUBJECT_COLUMN = "participant_id"
_SESSION_COLUMN = "session_id"

#: Covariates of a table, and id without prefix to the cells of its row.
_Known = tuple[tuple[str, ...], dict[str, dict[str, str]]]


def with_participants(root: Path, scans: Sequence[Scan], reserved: frozenset[str]) -> tuple[Scan, ...]:
    """Give each scan the columns of its participant and, where there is a table of sessions, of its session.

    A session's value stands before the participant's. Every scan gets every column; unknown is None.

    Raises
    ------
    ManifestError
        A table is malformed, lacks its id column, holds an id twice, or a column is one of ``reserved``.
    """
    raw: list[dict[str, str]] = [{} for _ in scans]
    by_subject: dict[str, list[int]] = {}
    for row, scan in enumerate(scans):
        by_subject.setdefault(scan.subject or "", []).append(row)
    people = root / "participants.tsv"
    if people.is_file():
        names, known = _rows_by_id(people, _SUBJECT_COLUMN, "sub-", reserved)
        for row, scan in enumerate(scans):
            raw[row].update({name: known.get(scan.subject or "", {}).get(name, "") for name in names})
    for subject, rows in by_subject.items():
        visits = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        if not visits.is_file():
            continue
        names, known = _rows_by_id(visits, _SESSION_COLUMN, "ses-", reserved)
        for row in rows:
            _overlay(raw[row], names, known.get(scans[row].session or "", {}))
    present = dict.fromkeys(name for values in raw for name in values)
    columns = {name: typed_cells([values.get(name, "") for values in raw]) for name in present}
    return tuple(
        replace(scan, covariates={name: cells[row] for name, cells in columns.items()})
        for row, scan in enumerate(scans)
    )


def _overlay(values: dict[str, str], names: Sequence[str], cells: Mapping[str, str]) -> None:
    for name in names:
        cell = cells.get(name, "")
        if cell not in UNKNOWN or name not in values:
            values[name] = cell


def _rows_by_id(path: Path, id_column: str, prefix: str, reserved: frozenset[str]) -> _Known:
    table = read_table(path)
    if id_column not in table.columns:
        raise ManifestError(f"{path}: line 1: no column {id_column}; found {', '.join(table.columns)}")
    check_clash(path, table.columns, reserved - {id_column})
    names = tuple(name for name in table.columns if name != id_column)
    return names, _indexed(table, id_column, prefix)


def _indexed(table: Table, id_column: str, prefix: str) -> dict[str, dict[str, str]]:
    at = table.columns.index(id_column)
    found: dict[str, dict[str, str]] = {}
    for line, cells in table.rows:
        label = cells[at].removeprefix(prefix)
        if label in found:
            raise ManifestError(
                f"{table.path}: line {line}: {id_column} {cells[at]} stands twice; once is legal"
            )
        found[label] = {
            name: cell for name, cell in zip(table.columns, cells, strict=True) if name != id_column
        }
    return found
