"""Scans by a covariate: its values, or bands of it where it is a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from epvs_cohort.errors import UsageError
from epvs_cohort.geometry import FloatArray

#: A column of numbers with at most so many values is taken as it is.
MOST_VALUES = 6
#: Of a text with more values than this it is an identifier that was meant.
MOST_GROUPS = 60
#: Digits that tell any two floats apart.
_MOST_DIGITS = 17
#: Whole numbers from here on are written with an exponent.
_MOST_WHOLE = 1e15
#: Group of scans whose covariate is not known.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Grouping:
    """What scans are grouped by.

    Attributes
    ----------
    column : str
    edges : tuple of float
        Where bands of a number begin, rising: ``(60, 70)`` is below 60, from 60 to below 70, from 70. Empty is thirds.
    """

    column: str
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, text: str) -> Grouping:
        """Read ``COLUMN`` or ``COLUMN=EDGE,EDGE``.

        Raises
        ------
        UsageError
            No column, or edges that are no rising numbers.

        >>> Grouping.of("age=60,70")
        Grouping(column='age', edges=(60.0, 70.0))
        """
        column, equals, rest = text.partition("=")
        try:
            edges = tuple(float(part) for part in rest.split(",")) if equals else ()
        except ValueError:
            edges = (np.nan,)
        if not column or not all(np.isfinite(edges)) or any(a >= b for a, b in pairwise(edges)):
            raise UsageError(f"--by {text!r}: COLUMN, or COLUMN=EDGE,EDGE with rising numbers, is legal")
        return cls(column, edges)


def groups_of(values: pd.Series[Any], grouping: Grouping) -> list[str]:
    """Group of each scan.

    Parameters
    ----------
    values : Series
        The covariate of each scan; null is unknown.

    Raises
    ------
    UsageError
        Edges for a column that holds no numbers, or a text with so many values that it is no group.

    >>> groups_of(pd.Series([55.0, 60.0, None]), Grouping("age", (60.0,)))
    ['below 60', '60 and above', 'unknown']
    >>> groups_of(pd.Series(["F", "M"]), Grouping("sex"))
    ['F', 'M']
    """
    known = values.dropna()
    numbers = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if grouping.edges and known.empty:
        raise UsageError(f"--by {grouping.column}: no scan has a value of it, so it has no bands")
    if grouping.edges and not numbers:
        raise UsageError(f"--by {grouping.column}: holds no numbers, so it has no bands; leave the edges out")
    if numbers and (grouping.edges or known.nunique() > MOST_VALUES):
        return _banded(np.asarray(values, dtype=np.float64), grouping.edges)
    if numbers:
        words = _worded(values.tolist())
    else:
        words = [
            UNKNOWN if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)
        ]
    if len(set(words)) > MOST_GROUPS:
        raise UsageError(
            f"--by {grouping.column}: {len(set(words))} values found, at most {MOST_GROUPS} are legal",
            hint="is it an identifier?",
        )
    return words


def thirds(values: FloatArray) -> list[str]:
    """Scans with the fewest, middling and most; scans of one value stay together.

    >>> thirds(np.array([0.0, 1.0, 1.0, 5.0, 9.0, 20.0]))
    ['0 to 1', '0 to 1', '0 to 1', '5', '9 to 20', '9 to 20']
    """
    return _banded(values, ())


def order_of(groups: Sequence[str], values: Sequence[object]) -> list[str]:
    """Groups in the order in which they are shown: by the least value in each, unknown last.

    >>> order_of(["70 and above", "below 70", "unknown"], [75, 60, None])
    ['below 70', '70 and above', 'unknown']
    """
    least: dict[str, object] = {}
    for group, value in zip(groups, values, strict=True):
        if group not in least or (group != UNKNOWN and value < least[group]):  # type: ignore[operator]
            least[group] = value
    known = sorted((group for group in least if group != UNKNOWN), key=lambda group: least[group])  # type: ignore[arg-type, return-value]
    return known + [UNKNOWN] * (UNKNOWN in least)


def _banded(values: FloatArray, edges: tuple[float, ...]) -> list[str]:
    known = values[~np.isnan(values)]
    if edges:
        ends = _worded(edges)
        names = [
            f"below {ends[0]}",
            *(f"{a} to below {b}" for a, b in pairwise(ends)),
            f"{ends[-1]} and above",
        ]
        at = np.digitize(values, edges)
        return [UNKNOWN if np.isnan(value) else names[n] for value, n in zip(values, at, strict=True)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if known.size else (0.0, 0.0)
    at = (values > low).astype(int) + (values > high)
    spans = {int(n): (known[at[~np.isnan(values)] == n]) for n in np.unique(at)}
    parts = {n: part for n, part in spans.items() if part.size}
    lowest, highest = [part.min() for part in parts.values()], [part.max() for part in parts.values()]
    ends = _worded([*lowest, *highest], digits=4)
    pairs = zip(parts, ends[: len(parts)], ends[len(parts) :], strict=True)
    words = {n: low if low == high else f"{low} to {high}" for n, low, high in pairs}
    return [UNKNOWN if np.isnan(value) else words[int(n)] for value, n in zip(values, at, strict=True)]


def _worded(values: Sequence[float], digits: int = 6) -> list[str]:
    """Words for numbers: of whole ones all digits, of others so many that different ones have different words.

    >>> _worded([20240101.0, 20240102.0]), _worded([0.12345671, 0.12345672, float("nan")])
    (['20240101', '20240102'], ['0.12345671', '0.12345672', 'unknown'])
    """
    known = {value for value in values if not np.isnan(value)}
    for enough in range(digits, _MOST_DIGITS + 1):
        words = {value: _number(value, enough) for value in known}
        if len(set(words.values())) == len(known):
            break
    return [UNKNOWN if np.isnan(value) else words[value] for value in values]


def _number(value: float, digits: int) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < _MOST_WHOLE else f"{value:.{digits}g}"
