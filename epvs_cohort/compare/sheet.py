"""One row a scan of a table of counts: what is known of it, and why it is in no figure where it is in none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from epvs_cohort.data.decisions import Decision
from epvs_cohort.errors import CountsError, UsageError


@dataclass(frozen=True)
class Note:
    """What is to be said by name: words, and the scans or other things they are said of."""

    words: str
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Words, and of how many they are said.

        >>> Note("rejected, and left out", ("a", "b")).text
        'rejected, and left out (2)'
        """
        return f"{self.words} ({len(self.names)})" if self.names else self.words


def scan_sheet(
    scans: pd.DataFrame, decisions: Mapping[str, Decision] | None, *, without_flagged: bool
) -> pd.DataFrame:
    """Arrange a table of counts for evaluation.

    Parameters
    ----------
    scans : DataFrame
        Table of counts that `run` wrote.
    decisions : mapping of str to Decision, optional
    without_flagged : bool
        Leave flagged scans out; else they are in as any other.

    Returns
    -------
    DataFrame
        Index scan. Columns subject (the scan's own key where the table has none), subject_known, session, status,
        flags, decision, count (not a number where there is none), excluded (why it is in no figure at all; empty where
        it may be in some) and uncounted (why it has no count).

    Raises
    ------
    UsageError
        A scan stands twice.
    """
    keys = scans["scan"].astype(str)
    if keys.duplicated().any():
        raise UsageError(f"scan {keys[keys.duplicated()].iloc[0]!r} stands twice in the table of counts")
    chosen = decisions or {}
    rows = []
    for key, row in zip(keys, scans.to_dict("records"), strict=True):
        subject, count = row["subject"], row["count"]
        known = isinstance(subject, str) and bool(subject)
        flags = row["flags"]
        rows.append(
            {
                "subject": subject if known else key,
                "subject_known": known,
                "session": row["session"] if isinstance(row["session"], str) else None,
                "status": row["status"],
                "flags": "; ".join(flags) if flags is not None else "",
                "decision": chosen[key].words if key in chosen else "",
                "count": float(count) if count is not None and np.isfinite(count) else np.nan,
                "excluded": _excluded(row["status"], chosen.get(key), without_flagged=without_flagged),
                "uncounted": _uncounted(row),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(keys, name="scan"))


def _excluded(status: str, decision: Decision | None, *, without_flagged: bool) -> str:
    if decision is not None and decision.verdict == "reject":
        return decision.words
    return "flagged, and left out as asked" if without_flagged and status == "flagged" else ""


def _uncounted(row: Mapping[Any, Any]) -> str:
    if row["status"] == "failed":
        return f"failed: {row['error_message']}"
    count = row["count"]
    if count is None or not np.isfinite(count):
        return "no count in the table"
    return ""


def decision_notes(
    first: pd.DataFrame, second: pd.DataFrame | None, decisions: Mapping[str, Decision] | None
) -> list[Note]:
    """What is said of decisions about the scans of one table, or of those of two visits.

    Parameters
    ----------
    first, second : DataFrame
        As of `scan_sheet`.
    decisions : mapping of str to Decision, optional

    Raises
    ------
    CountsError
        There are decisions, and not one is about a scan.
    """
    if decisions is None:
        return []
    both = first if second is None else pd.concat([first, second])
    notes = strangers(both, decisions, "decision")
    if not _rejected(both).any():
        notes.append(Note("no scan is rejected"))
    twice = (
        ()
        if second is None
        else tuple(key for key in decisions if key in first.index and key in second.index)
    )
    words = "decided about by a key that both visits have: the decision is taken to be about both scans"
    return notes + ([Note(words, twice)] if twice else [])


def _rejected(sheet: pd.DataFrame) -> pd.Series[bool]:
    found: pd.Series[bool] = sheet["decision"].str.startswith("reject")
    return found


def sheet_notes(sheet: pd.DataFrame) -> list[Note]:
    """What is said of the scans of a table whatever is compared: `status_notes`, and what of their subjects.

    Parameters
    ----------
    sheet : DataFrame
        As of `scan_sheet`.
    """
    excluded = sheet["excluded"] != ""
    repeated = sheet[~excluded & sheet["subject_known"]].groupby("subject")
    several = tuple(
        f"{subject}: {', '.join(map(str, rows.index))}" for subject, rows in repeated if len(rows) > 1
    )
    notes = status_notes(sheet)
    if several:
        words = "subjects with several scans: each scan is compared by its own key, and the bootstrap draws a subject"
        notes.append(Note(f"{words} with all of them", several))
    words = "without a subject in the table, and each taken for a person of its own"
    return notes + _note(sheet[~sheet["subject_known"] & ~excluded], words)


def status_notes(sheet: pd.DataFrame) -> list[Note]:
    """Scans of a table that are rejected, in doubt, without a count or flagged, each with its reason."""
    excluded = sheet["excluded"] != ""
    rejected = _rejected(sheet)
    doubted = sheet["decision"].str.startswith("doubt") & ~excluded
    failed = (sheet["uncounted"] != "") & ~excluded
    flagged = sheet["status"] == "flagged"
    notes = _note(sheet[rejected], "rejected, and left out", "decision")
    notes += _note(sheet[doubted], "in doubt, and kept", "decision")
    notes += _note(sheet[failed], "without a count", "uncounted")
    notes += _note(sheet[flagged & excluded & ~rejected], "flagged, and left out as asked", "flags")
    return notes + _note(sheet[flagged & ~excluded], "flagged, and counted in as any other scan", "flags")


def _note(rows: pd.DataFrame, words: str, column: str | None = None) -> list[Note]:
    return [] if rows.empty else [Note(words, _said(rows, column))]


def _said(rows: pd.DataFrame, column: str | None) -> tuple[str, ...]:
    if column is None:
        return tuple(map(str, rows.index))
    return tuple(f"{key}: {words}" if words else str(key) for key, words in rows[column].items())


def strangers(sheet: pd.DataFrame, keys: Iterable[str], what: str) -> list[Note]:
    """Check that keys of another table are scans of this one; a note names those that are not.

    Parameters
    ----------
    keys : iterable of str
    what : str
        What the other table holds of a scan, such as ``count by a reader``.

    Raises
    ------
    CountsError
        There are keys, and not one is a scan.
    """
    asked = sorted(set(keys))
    unknown = [key for key in asked if key not in sheet.index]
    if not unknown:
        return []
    if len(unknown) == len(asked):
        first = repr(str(sheet.index[0])) if len(sheet) else "none"
        raise CountsError(
            f"none of the {len(asked)} scans with a {what} is in the table of counts: they are named as "
            f"{asked[0]!r}{_like(asked[0], sheet)}, those of the table as {first}",
            hint="name each scan by its key, in the column scan of the table of counts",
        )
    named = tuple(f"{key}{_like(key, sheet)}" for key in unknown)
    return [Note(f"with a {what}, but not in the table of counts", named)]


def lacking(sheet: pd.DataFrame, keys: Iterable[str], what: str) -> list[Note]:
    """A note of the scans that another table does not have; those that are excluded are not missed."""
    have = set(keys)
    without = tuple(str(key) for key in sheet.index[sheet["excluded"] == ""] if key not in have)
    return [Note(f"in the table of counts without a {what}, and left out", without)] if without else []


def _like(key: str, sheet: pd.DataFrame) -> str:
    """Scans of a subject whose label stands where a key should."""
    own = dict.fromkeys(str(scan) for scan in sheet.index[sheet["subject"] == key.removeprefix("sub-")])
    return f" ({key} is a subject, with {', '.join(own)})" if own else ""
