"""What a person decided about scans: a table ``scan,decision[,reason,initials,comment]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import pandas as pd
import pyarrow as pa

from epvs_cohort.data.manifest import Table, read_table
from epvs_cohort.data.tables import DECISION_COLUMNS, schema_of
from epvs_cohort.errors import ManifestError

Verdict = Literal["accept", "doubt", "reject"]

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
COLUMNS: Final = ("scan", "decision")
OPTIONAL: Final = ("reason", "initials", "comment")


@dataclass(frozen=True)
class Decision:
    """What was decided about one scan, by whom and why."""

    verdict: Verdict
    reason: str = ""
    initials: str = ""
    comment: str = ""

    @property
    def words(self) -> str:
        """Verdict, reason and initials in one line.

        >>> Decision("reject", "motion", "AB").words
        'reject: motion (AB)'
        """
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.verdict}{reason}" + (f" ({self.initials})" if self.initials else "")


def read_decisions(path: Path) -> Mapping[str, Decision]:
    """Read the decisions about scans; columns besides the five are passed over.

    Several people may decide about one scan, in a row each, as long as they agree: which of them is right is not
    guessed. Of equal decisions the first one's words are kept.

    Raises
    ------
    ManifestError
        Not a readable table, a column missing, a scan without a name, a decision other than accept, doubt or reject,
        or two different ones about one scan.
    """
    table = read_table(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ManifestError(
            f"{path}: line 1: no column {' and '.join(missing)}; found {', '.join(table.columns)}; needed are "
            f"{', '.join(COLUMNS)}, legal besides are {', '.join(OPTIONAL)}"
        )
    words = [_cells(table, name) for name in OPTIONAL]
    found: dict[str, tuple[int, Decision]] = {}
    faults: list[str] = []
    for (line, _), key, text, *rest in zip(
        table.rows, table.column("scan"), table.column("decision"), *words, strict=True
    ):
        verdict = next((each for each in VERDICTS if each == text.lower()), None)
        if not key:
            faults.append(f"line {line}: the scan has no name")
        elif verdict is None:
            faults.append(f"line {line}: scan {key!r}: decision {text!r}; {', '.join(VERDICTS)} are legal")
        elif key in found and found[key][1].verdict != verdict:
            before, other = found[key]
            faults.append(f"line {line}: scan {key!r}: {verdict}, but {other.verdict} on line {before}")
        else:
            found.setdefault(key, (line, Decision(verdict, *rest)))
    if faults:
        raise ManifestError(
            f"{path}: " + "; ".join(faults[:_MOST_NAMED]) + _more(len(faults)),
            hint="one decision about each scan: settle it between those who decided",
        )
    return {key: decision for key, (_, decision) in found.items()}


def decision_table(keys: Sequence[str], decisions: Mapping[str, Decision]) -> pa.Table:
    """Decisions about scans as columns of the table of counts, in the order of the scans; null where undecided."""
    found = [decisions.get(key) for key in keys]
    columns = [
        [each.verdict if each else None for each in found],
        *([getattr(each, name) or None if each else None for each in found] for name in OPTIONAL),
    ]
    return pa.Table.from_arrays(
        [pa.array(column, type=pa.string()) for column in columns], schema=schema_of(DECISION_COLUMNS)
    )


def decisions_in(scans: pd.DataFrame) -> dict[str, Decision]:
    """Decisions that a table of counts carries; none where its run was given none."""
    names = [column.name for column in DECISION_COLUMNS]
    # One column of that name alone is a covariate of the input.
    if not set(names) <= set(scans.columns):
        return {}
    decided = scans[scans[names[0]].isin(VERDICTS)]
    words = [decided[name].fillna("").astype(str) for name in names]
    return {
        str(key): Decision(next(each for each in VERDICTS if each == verdict), *rest)
        for key, verdict, *rest in zip(decided["scan"], *words, strict=True)
    }


_MOST_NAMED: Final = 20


def _more(faults: int) -> str:
    return f"; and {faults - _MOST_NAMED} more" if faults > _MOST_NAMED else ""


def _cells(table: Table, name: str) -> tuple[str, ...]:
    return table.column(name) if name in table.columns else ("",) * len(table.rows)
