"""Which scans to look at first: flagged ones, and those far from the rest of the cohort in any measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from epvs_cohort.geometry import FloatArray
from epvs_cohort.report.measure_words import measure_words, number

#: Distance from the median, in robust standard deviations, from which a value stands out.
FAR: Final = 5.0
#: Standard deviations in one median absolute deviation of normal values.
_PER_MAD: Final = 1.4826
#: Known values that a median needs before anything lies far from it.
_FEWEST: Final = 8
_MOST_REASONS: Final = 4


@dataclass(frozen=True)
class Look:
    """A scan to look at.

    Attributes
    ----------
    row : int
        Of the table of counts.
    reasons : tuple of str
        The foremost first.
    """

    row: int
    reasons: tuple[str, ...]


def robust_z(values: FloatArray) -> FloatArray:
    """Distance of each value from the median in robust standard deviations (1.4826 × the median absolute deviation).

    NaN where the value is unknown, all of them where fewer than 8 are known or more than half are equal.

    >>> robust_z(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 100])).round(1).tolist()[-1]
    32.0
    """
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST:
        return np.full(values.shape, np.nan)
    middle = float(np.median(known))
    spread = _PER_MAD * float(np.median(np.abs(known - middle)))
    if spread == 0.0:
        return np.full(values.shape, np.nan)
    return np.asarray((values - middle) / spread, dtype=np.float64)


def look_first(
    scans: pd.DataFrame, measures: pd.DataFrame, flags: list[list[str]], *, most: int = 20
) -> list[Look]:
    """Counted scans to look at first: by number of flags, then by the farthest measure.

    Parameters
    ----------
    scans : DataFrame
        Table of counts.
    measures : DataFrame
        Quality measures, a row a scan in the same order, a column a measure.
    flags : list of list of str
        In words, of each scan.
    """
    counts = scans["count"].to_numpy(dtype=np.float64)
    # Counts spread the more the higher they are; their roots spread alike.
    far = {"count": robust_z(np.sqrt(np.maximum(counts, 0.0)))}
    far.update({name: robust_z(measures[name].to_numpy(dtype=np.float64)) for name in measures.columns})
    worst = np.nanmax(np.abs([np.nan_to_num(z) for z in far.values()]), axis=0)
    rows = [
        row for row in range(len(scans)) if np.isfinite(counts[row]) and (flags[row] or worst[row] >= FAR)
    ]
    rows.sort(key=lambda row: (-len(flags[row]), -worst[row]))
    return [Look(row, _reasons(row, flags[row], far, (counts, measures))) for row in rows[:most]]


def _reasons(
    row: int, flags: list[str], far: dict[str, FloatArray], values: tuple[FloatArray, pd.DataFrame]
) -> tuple[str, ...]:
    counts, measures = values
    apart = sorted(
        (name for name in far if abs(np.nan_to_num(far[name][row])) >= FAR), key=lambda n: -abs(far[n][row])
    )
    said = list(flags)
    for name in apart:
        column = counts if name == "count" else measures[name].to_numpy(dtype=np.float64)
        title = "Count" if name == "count" else measure_words(name)[0]
        if any(flag.startswith(title) for flag in flags):
            continue
        middle = float(np.nanmedian(column))
        said.append(f"{title} is {number(float(column[row]))}; the cohort's median is {number(middle)}")
    more = len(said) - _MOST_REASONS
    return (*said[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else []))
