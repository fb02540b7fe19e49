"""Many figures at once, each with its bootstrap interval: resamples of subjects as weights of their scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epvs_cohort.compare.bootstrap import CONFIDENCE, RESAMPLES, Estimate
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: Weights held at a time: a chunk of resamples of ten thousand scans stays near 16 MB an array.
_MOST_WEIGHTS = 2_000_000

#: Takes weights, shape (R, N), and gives each figure, shape (R,); not a number where it is not defined.
Figures = Callable[[FloatArray], Mapping[str, FloatArray]]


@dataclass(frozen=True)
class Drawing:
    """How resamples are drawn: how many, and the seed; one seed, one set of intervals."""

    seed: int = 1
    n_resamples: int = RESAMPLES


def weights_of(subjects: Sequence[str], drawing: Drawing) -> Iterator[FloatArray]:
    """How often each scan stands in each resample, a chunk of resamples at a time.

    A person is drawn with all scans or with none; the draws are those of `bootstrap.bootstrap` for the same seed.

    Parameters
    ----------
    subjects : sequence of str
        The subject of each of the N scans.

    Yields
    ------
    ndarray, shape (R, N)
    """
    names, belongs = np.unique(np.asarray(subjects), return_inverse=True)
    rng = np.random.default_rng(drawing.seed)
    rows = max(1, _MOST_WEIGHTS // max(len(subjects), 1))
    for start in range(0, drawing.n_resamples, rows):
        count = min(rows, drawing.n_resamples - start)
        drawn = rng.integers(len(names), size=(count, len(names)))
        cells = drawn + np.arange(count)[:, None] * len(names)
        of_people = np.bincount(cells.ravel(), minlength=count * len(names)).reshape(count, len(names))
        yield of_people[:, belongs].astype(np.float64)


def estimates(subjects: Sequence[str], figures: Figures, drawing: Drawing) -> dict[str, Estimate]:
    """Estimate figures with their percentile intervals over subjects (as `bootstrap.bootstrap`, all at once).

    Parameters
    ----------
    subjects : sequence of str
        The subject of each of the N scans.
    figures : callable
        Takes weights of the N scans, shape (R, N), whole numbers from 0.

    Returns
    -------
    dict of str to Estimate
        The value is not a number where the figure is not defined; the interval is unknown where there are fewer than
        two subjects or no resample has the figure. Resamples without it are left out.

    Raises
    ------
    ConfigError
        There is no scan, or fewer than one resample is asked for.

    >>> ages = np.array([60.0, 61.0, 70.0, 75.0])
    >>> found = estimates(["a", "b", "c", "d"], lambda w: {"mean": w @ ages / w.sum(axis=1)}, Drawing())
    >>> found["mean"].value
    66.5
    """
    if not subjects or drawing.n_resamples < 1:
        raise ConfigError(
            f"bootstrap: {len(subjects)} scans and {drawing.n_resamples} resamples found, at least 1 of each is needed"
        )
    values = {name: float(each[0]) for name, each in figures(np.ones((1, len(subjects)))).items()}
    if len(set(subjects)) < 2:
        return {name: Estimate(value, None, None) for name, value in values.items()}
    chunks = [figures(weights) for weights in weights_of(subjects, drawing)]
    return {
        name: _estimate(value, np.concatenate([chunk[name] for chunk in chunks]))
        for name, value in values.items()
    }


def _estimate(value: float, resampled: FloatArray) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if defined.size == 0 or np.isnan(value):
        return Estimate(value, None, None)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Estimate(value, float(low), float(high))
