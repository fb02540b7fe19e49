"""How far a figure would move if other people had been scanned: percentile bootstrap over subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epvs_cohort.errors import ConfigError

RESAMPLES = 2000
CONFIDENCE = 0.95

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; None where there are fewer than two subjects, or where it is never defined."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Three decimals, with the interval in brackets where it is known.

        >>> str(Estimate(0.5, -0.0001, 1.0))
        '0.500 (0.000 to 1.000)'
        """
        if self.low is None or self.high is None:
            return f"{self.value:z.3f}"
        return f"{self.value:z.3f} ({self.low:z.3f} to {self.high:z.3f})"


def bootstrap(
    subjects: Sequence[str],
    statistic: Callable[[IndexArray], float],
    *,
    seed: int,
    n_resamples: int = RESAMPLES,
) -> Estimate:
    """Estimate a figure with its percentile interval, resampling subjects with all their scans.

    Scans of one person resemble one another, so a person is drawn with all scans or with none (Efron and
    Tibshirani 1993, Ch. 13, percentile interval).

    Parameters
    ----------
    subjects : sequence of str
        The subject of each of the N scans.
    statistic : callable
        Takes row numbers, shape (R,), with repetitions, and gives the figure of these scans; not a number where
        it is not defined for them (no lesion drawn), and such resamples are left out.
    seed : int
        The same seed gives the same interval.
    n_resamples : int

    Raises
    ------
    ConfigError
        There is no scan, or fewer than one resample is asked for.

    >>> ages = np.array([60.0, 61.0, 70.0, 75.0])
    >>> bootstrap(["a", "b", "c", "d"], lambda rows: float(ages[rows].mean()), seed=1).value
    66.5
    """
    if not subjects or n_resamples < 1:
        raise ConfigError(
            f"bootstrap: {len(subjects)} scans and {n_resamples} resamples found, at least 1 of each is needed"
        )
    names, belongs = np.unique(np.asarray(subjects), return_inverse=True)
    value = statistic(np.arange(len(subjects)))
    if len(names) < 2:
        return Estimate(value, None, None)
    rows_of = [np.flatnonzero(belongs == number) for number in range(len(names))]
    # Not scipy.stats.bootstrap: it gives no interval as soon as one resample has no figure.
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(n_resamples, len(names)))
    values = np.array([statistic(np.concatenate([rows_of[n] for n in people])) for people in drawn])
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return Estimate(value, None, None)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Estimate(value, float(low), float(high))
