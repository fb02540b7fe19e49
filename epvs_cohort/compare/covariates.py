"""Covariates of scans, of the table of counts and of a table of participants, and the groups that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from epvs_cohort.compare.groups import Grouping, groups_of, order_of
from epvs_cohort.compare.sheet import Note
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.manifest import Table, typed_cells
from epvs_cohort.data.tables import reserved_names
from epvs_cohort.errors import ManifestError, UsageError


@dataclass(frozen=True)
class Grouped:
    """Groups of scans by one covariate: the same ones, whatever is compared.

    Attributes
    ----------
    column : str
    of : mapping of str to str
        Group of each scan that is not left out.
    order : tuple of str
        Groups as they are shown.
    """

    column: str
    of: Mapping[str, str]
    order: tuple[str, ...]


def covariates_of(
    cohort: Cohort, sheet: pd.DataFrame, participants: Table | None
) -> tuple[pd.DataFrame, list[Note]]:
    """Columns of the table of counts that are no result of it, and those of the participants; index scan.

    Notes name the subjects without participant, and the participants without scan.

    Raises
    ------
    ManifestError
        As `with_participants`.
    """
    own = cohort.scans.set_index(sheet.index)
    regions = cohort.about["protocol"]["roi"]["regions"]
    results = reserved_names(regions) - {"session", "scanner", "acquisition_date", "status"}
    kept = own[[name for name in own.columns if name not in results]]
    if participants is None:
        return kept, []
    return with_participants(kept, sheet, participants), _unmatched(sheet, participants)


def grouped_by(covariates: pd.DataFrame, sheet: pd.DataFrame, groupings: Sequence[Grouping]) -> list[Grouped]:
    """Group the scans that are not left out; by their status too, where some are flagged and counted in.

    Raises
    ------
    UsageError
        A column is unknown or given twice, or it makes no groups.
    """
    inside = sheet["excluded"] == ""
    columns = [each.column for each in groupings]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise UsageError(f"--by {twice[0]}: given {columns.count(twice[0])} times; each column once is legal")
    chosen = list(groupings)
    if ((sheet["status"] == "flagged") & inside).any() and "status" not in columns:
        chosen.append(Grouping("status"))
    found = []
    for grouping in chosen:
        if grouping.column not in covariates.columns:
            raise UsageError(
                f"--by {grouping.column}: no such column; there are {', '.join(map(str, covariates.columns))}",
                hint="--participants FILE brings the columns of a table with participant_id",
            )
        values = covariates.loc[inside, grouping.column]
        groups = groups_of(values, grouping)
        of = dict(zip(map(str, values.index), groups, strict=True))
        found.append(Grouped(grouping.column, of, tuple(order_of(groups, list(values)))))
    return found


def with_participants(covariates: pd.DataFrame, sheet: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Join the columns of a table of participants to the covariates of the scans, by subject.

    Parameters
    ----------
    covariates : DataFrame
        Index scan.
    table : Table
        With a column participant_id, with or without ``sub-``.

    Raises
    ------
    ManifestError
        There is no such column, a participant stands twice, none is a subject of the table of counts, or a column of
        both tables holds different values.
    """
    if "participant_id" not in table.columns:
        raise ManifestError(
            f"{table.path}: line 1: no column participant_id; found {', '.join(table.columns)}"
        )
    people = _people(table)
    if twice := sorted({name for name in people if people.count(name) > 1}):
        raise ManifestError(f"{table.path}: participant {twice[0]!r} stands twice; once is legal")
    if not set(people) & set(map(str, sheet["subject"])):
        raise ManifestError(
            f"{table.path}: none of its {len(people)} participants is a subject of the table of counts: they are "
            f"named as {(people or ['nobody'])[0]!r}, those of the table as {str(sheet['subject'].iloc[0])!r}",
            hint="label each participant as the column subject of the table of counts does: 1 and 001 are two labels",
        )
    joined = covariates.copy()
    for name in table.columns:
        if name == "participant_id":
            continue
        value = dict(zip(people, typed_cells(table.column(name)), strict=True))
        column = pd.Series([value.get(str(subject)) for subject in sheet["subject"]], index=sheet.index)
        if name in covariates.columns:
            _check_same(covariates[name], column, f"{table.path}: column {name}")
        else:
            joined[name] = column
    return joined


def _people(table: Table) -> list[str]:
    return [name.removeprefix("sub-") for name in table.column("participant_id")]


def _unmatched(sheet: pd.DataFrame, table: Table) -> list[Note]:
    """Who is in one of the two tables only."""
    people, inside = _people(table), sheet[sheet["excluded"] == ""]
    subjects = dict.fromkeys(map(str, inside["subject"]))
    named = {
        "subjects without a row in the table of participants, whose columns are unknown": [
            subject for subject in subjects if subject not in set(people)
        ],
        "participants without a scan in the table of counts": [
            name for name in people if name not in set(map(str, sheet["subject"]))
        ],
    }
    return [Note(words, tuple(names)) for words, names in named.items() if names]


def _check_same(known: pd.Series[float], other: pd.Series[float], what: str) -> None:
    both = known.notna() & other.notna()
    differ = both & (known.astype(str) != other.astype(str)) & ~_equal_numbers(known, other)
    if differ.any():
        scan = str(differ.idxmax())
        raise ManifestError(
            f"{what}: {other[scan]!r} for scan {scan!r}, but the table of counts has {known[scan]!r}",
            hint="leave one of the two out",
        )


def _equal_numbers(known: pd.Series[float], other: pd.Series[float]) -> pd.Series[bool]:
    one, two = (pd.to_numeric(each, errors="coerce") for each in (known, other))
    equal: pd.Series[bool] = one == two
    return equal
