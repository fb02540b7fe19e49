"""Two tables of the same people: which scans are pairs, and how well counts and lesions of a pair agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from epvs_cohort.compare.marked import Reach, numbers_by_scan
from epvs_cohort.compare.matching import match_lesions
from epvs_cohort.compare.sheet import Note
from epvs_cohort.data.manifest import read_table
from epvs_cohort.errors import ManifestError, UsageError
from epvs_cohort.geometry import FloatArray
from epvs_cohort.protocol import CountTarget

#: Names of one note that an error tells.
_MOST_SAID: Final = 5
MNI: Final = ("mni_x_mm", "mni_y_mm", "mni_z_mm")


@dataclass(frozen=True)
class Pairs:
    """Scans of the two tables that are of one person.

    Attributes
    ----------
    keys : tuple of (str, str)
        Key in the first and in the second table.
    how : str
        By what they were paired.
    notes : tuple of Note
        What was not paired, and why.
    """

    keys: tuple[tuple[str, str], ...]
    how: str
    notes: tuple[Note, ...]


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Read a table ``scan,rescan``: keys in the first and in the second table.

    Raises
    ------
    ManifestError
        Not a readable table, a column missing, no row, an empty key, or a key that stands twice.
    """
    table = read_table(path)
    missing = [name for name in ("scan", "rescan") if name not in table.columns]
    if missing or not table.rows:
        what = (
            f"no column {' and '.join(missing)}; found {', '.join(table.columns)}"
            if missing
            else "no pair in it"
        )
        raise ManifestError(f"{path}: {what}; needed are scan and rescan, one row a pair")
    keys = tuple(zip(table.column("scan"), table.column("rescan"), strict=True))
    for name, column in zip(("scan", "rescan"), zip(*keys, strict=True), strict=True):
        for (line, _), key in zip(table.rows, column, strict=True):
            if not key:
                raise ManifestError(f"{path}: line {line}: {name} is empty")
            if column.count(key) > 1:
                raise ManifestError(f"{path}: line {line}: {name} {key!r} stands twice; once is legal")
    return keys


def pair_scans(
    first: pd.DataFrame,
    second: pd.DataFrame,
    given: Sequence[tuple[str, str]] | None,
    *,
    one_table: bool = False,
) -> Pairs:
    """Find the scans of two tables that are of one person.

    Given pairs come first; else scans of the same key; else, where no key is in both tables, scans of the same
    subject, where each table has one of them only. Which of several is meant is never guessed.

    Parameters
    ----------
    first, second : DataFrame
        Sheets as of `sheet.scan_sheet`.
    given : sequence of (str, str), optional
    one_table : bool
        Both visits stand in one table.

    Raises
    ------
    UsageError
        A given key is in no table, a given pair is one scan or stands twice, or there is no pair.
    """
    notes: list[Note] = []
    if given is not None:
        how, found = "as the table of pairs says", list(given)
        _check_given(first, second, found, one_table=one_table)
        notes = _of_different_people(first, second, found) + _in_no_pair(
            first, second, found, one_table=one_table
        )
    elif any(key in second.index for key in first.index):
        how = "by the key of the scan"
        found, notes = _by_key(first, second)
    else:
        how = "by subject"
        found, notes = _by_subject(first, second)
    if not found:
        said = "; ".join(f"{note.text}: {', '.join(note.names[:_MOST_SAID])}" for note in notes)
        raise UsageError(
            "--rescan: no scan of the two tables is a pair, by key or by subject"
            + (f": {said}" if said else ""),
            hint="name the pairs: --rescan-pairs FILE with the columns scan and rescan",
        )
    return Pairs(tuple(found), how, tuple(notes))


def pair_name(pair: tuple[str, str]) -> str:
    """Words for a pair of keys.

    >>> pair_name(("a", "b")), pair_name(("a", "a"))
    ('a and b', 'a')
    """
    return pair[0] if pair[0] == pair[1] else f"{pair[0]} and {pair[1]}"


def _check_given(
    first: pd.DataFrame, second: pd.DataFrame, given: Sequence[tuple[str, str]], *, one_table: bool
) -> None:
    seen: set[frozenset[str]] = set()
    for key, other in given:
        for which, name, sheet in (("first", key, first), ("second", other, second)):
            if name not in sheet.index:
                raise UsageError(
                    f"--rescan-pairs: pair {key!r}, {other!r}: no scan {name!r} in the {which} table"
                )
        if one_table and key == other:
            raise UsageError(f"--rescan-pairs: pair {key!r}, {other!r}: one scan of one table is no pair")
        if one_table and frozenset((key, other)) in seen:
            raise UsageError(
                f"--rescan-pairs: pair {key!r}, {other!r}: stands the other way round already; once is legal"
            )
        seen.add(frozenset((key, other)))


def _two_people(first: pd.DataFrame, second: pd.DataFrame, pair: tuple[str, str]) -> bool:
    """Whether both scans have a subject, and not the same."""
    one, two = first.loc[pair[0]], second.loc[pair[1]]
    return bool(one["subject_known"] and two["subject_known"] and one["subject"] != two["subject"])


def _with_people(first: pd.DataFrame, second: pd.DataFrame, pair: tuple[str, str]) -> str:
    one, two = str(first.at[pair[0], "subject"]), str(second.at[pair[1], "subject"])
    return f"{pair_name(pair)}: subjects {one} and {two}"


def _of_different_people(
    first: pd.DataFrame, second: pd.DataFrame, given: Sequence[tuple[str, str]]
) -> list[Note]:
    differ = tuple(_with_people(first, second, pair) for pair in given if _two_people(first, second, pair))
    words = "pairs whose scans have different subjects, compared because the table of pairs names them"
    return [Note(words, differ)] if differ else []


def _in_no_pair(
    first: pd.DataFrame, second: pd.DataFrame, given: Sequence[tuple[str, str]], *, one_table: bool
) -> list[Note]:
    ones, others = {a for a, _ in given}, {b for _, b in given}
    if not one_table:
        return _alone(first, second, ones, others)
    left = tuple(key for key in _usable(first) if key not in ones | others)
    return [Note("scans of the table in no pair", left)] if left else []


def _usable(sheet: pd.DataFrame) -> list[str]:
    """Scans that are not left out: those that are have been named with their reason."""
    return [str(key) for key in sheet.index[sheet["excluded"] == ""]]


def _alone(
    first: pd.DataFrame, second: pd.DataFrame, ones: Collection[str], others: Collection[str]
) -> list[Note]:
    named = {
        "scans of the first table without a second scan": [k for k in _usable(first) if k not in ones],
        "scans of the second table without a first scan": [k for k in _usable(second) if k not in others],
    }
    return [Note(words, tuple(names)) for words, names in named.items() if names]


def _by_key(first: pd.DataFrame, second: pd.DataFrame) -> tuple[list[tuple[str, str]], list[Note]]:
    both = [str(key) for key in first.index if key in second.index]
    differ = [key for key in both if _two_people(first, second, (key, key))]
    notes = _alone(first, second, both, both)
    if differ:
        named = tuple(_with_people(first, second, (key, key)) for key in differ)
        words = (
            "scans of one key, but of different subjects, which are not paired: name the pairs if they are"
        )
        notes.append(Note(words, named))
    return [(key, key) for key in both if key not in set(differ)], notes


def _by_subject(first: pd.DataFrame, second: pd.DataFrame) -> tuple[list[tuple[str, str]], list[Note]]:
    scans = [
        {
            str(subject): _usable(rows) or list(map(str, rows.index))
            for subject, rows in table[table["subject_known"]].groupby("subject")
        }
        for table in (first, second)
    ]
    both = [subject for subject in scans[0] if subject in scans[1]]
    found = [(scans[0][s][0], scans[1][s][0]) for s in both if len(scans[0][s]) == len(scans[1][s]) == 1]
    several = [
        f"{s}: {', '.join(scans[0][s])} and {', '.join(scans[1][s])}"
        for s in both
        if len(scans[0][s]) > 1 or len(scans[1][s]) > 1
    ]
    notes = []
    if several:
        notes.append(
            Note("subjects with several scans, which are not paired: name the pairs", tuple(several))
        )
    named = [{key for s in both for key in of[s]} for of in scans]
    return found, notes + _alone(first, second, *named)


@dataclass(frozen=True)
class LesionPairs:
    """Lesions of one pair of scans, matched in MNI space.

    Attributes
    ----------
    first, second, matched : int
    distance_mm : ndarray, shape (matched,)
        Between the two of each pair, MNI mm.
    """

    first: int
    second: int
    matched: int
    distance_mm: FloatArray


def match_in_mni(
    first: FloatArray, second: FloatArray, reach: Reach, spacing_mm: Sequence[float]
) -> LesionPairs:
    """Match lesions of two scans of one person one to one.

    Parameters
    ----------
    first, second : ndarray, shape (N, 3) and (M, 3)
        MNI152 RAS mm.
    reach : Reach
        With ``voxels``, MNI mm are divided by the edges of a voxel of the prepared grid, whose axes are those of MNI
        space: 3 voxels then mean the same as against points.
    spacing_mm : sequence of float
        Those edges.

    >>> match_in_mni(np.zeros((1, 3)), np.array([[1.0, 0, 0]]), Reach(), (0.49, 0.49, 0.8)).matched
    1
    """
    scale = np.ones(3) if reach.unit == "mm" else np.asarray(spacing_mm, dtype=np.float64)
    pairs = match_lesions(first / scale, second / scale, reach.radius)
    distance = np.linalg.norm(first[pairs.true] - second[pairs.found], axis=1)
    return LesionPairs(len(first), len(second), len(pairs.true), distance)


def mni_by_scan(
    lesions: pd.DataFrame, keys: Collection[str], target: CountTarget, table: str
) -> Mapping[str, FloatArray]:
    """Centres of the located lesions of some scans in MNI152 RAS mm.

    Where the slice is counted, they are of those that touch it.

    Raises
    ------
    ConfigError
        A centre is not known; it names the scan and ``table``.
    """
    chosen = lesions[lesions["in_ac_slice"].eq(True)] if target == "ac_slice" else lesions
    return numbers_by_scan(chosen, keys, MNI, table)


def lesion_pair_figures(pairs: Sequence[LesionPairs], weights: FloatArray) -> Mapping[str, FloatArray]:
    """Lesion-to-lesion agreement under weights of the pairs of scans, shape (R, N), each of shape (R,).

    found_again is the part of the first scans' lesions that have a partner in the second, found_before the reverse,
    lesion_agreement twice the partners over all lesions of both (Dice's coefficient of the two sets of lesions: an F1
    in which neither is the truth), mean_distance_mm that of partners.
    """
    first, second, matched = (
        np.array([getattr(each, name) for each in pairs], dtype=np.float64)
        for name in ("first", "second", "matched")
    )
    total = np.array([each.distance_mm.sum() for each in pairs])
    shares = {
        "found_again": (matched, first),
        "found_before": (matched, second),
        "lesion_agreement": (2.0 * matched, first + second),
        "mean_distance_mm": (total, matched),
    }
    found = {}
    for name, (above, below) in shares.items():
        over = weights @ below
        found[name] = np.where(over > 0, weights @ above / np.where(over > 0, over, 1.0), np.nan)
    return found
