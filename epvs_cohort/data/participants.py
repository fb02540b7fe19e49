"""Covariates of a BIDS data set: ``participants.tsv`` and ``sub-*/sub-*_sessions.tsv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from epvs_cohort.data.manifest import Table, check_clash, read_table, typed_cells
from epvs_cohort.errors import ManifestError
from epvs_cohort.records import Scan

_SUBJECT_COLUMN = "participant_id"
_SESSION_COLUMN = "session_id"


def with_participants(root: Path, scans: Sequence[Scan], reserved: frozenset[str]) -> tuple[Scan, ...]:
    """Give each scan the columns of its participant and, where there is a table of sessions, of its session.

    A session's value stands before the participant's. Every scan gets every column; unknown is None.

    Raises
    ------
    ManifestError
        A table is malformed, lacks its id column, holds an id twice, or a column is one of ``reserved``.
    """
    raw: list[dict[str, str]] = [{} for _ in scans]
    people = root / "participants.tsv"
    if people.is_file():
        rows = _rows_by_id(people, _SUBJECT_COLUMN, "sub-", reserved)
        for scan, values in zip(scans, raw, strict=True):
            values.update(rows.get(scan.subject or "", {}))
    for subject in sorted({scan.subject for scan in scans if scan.subject}):
        visits = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        if not visits.is_file():
            continue
        rows = _rows_by_id(visits, _SESSION_COLUMN, "ses-", reserved)
        for scan, values in zip(scans, raw, strict=True):
            if scan.subject == subject:
                values.update({name: cell for name, cell in rows.get(scan.session or "", {}).items() if cell})
    names = list(dict.fromkeys(name for values in raw for name in values))
    columns = {name: typed_cells([values.get(name, "") for values in raw]) for name in names}
    return tuple(
        replace(scan, covariates={name: columns[name][row] for name in names})
        for row, scan in enumerate(scans)
    )


def _rows_by_id(
    path: Path, id_column: str, prefix: str, reserved: frozenset[str]
) -> dict[str, dict[str, str]]:
    table = read_table(path)
    if id_column not in table.columns:
        raise ManifestError(f"{path}: line 1: no column {id_column}; found {', '.join(table.columns)}")
    check_clash(path, table.columns, reserved - {id_column})
    return _indexed(table, id_column, prefix)


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
