"""Free-response curves: lesions found against false marks a scan, as the score that a mark must reach falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epvs_cohort.compare.matching import match_points
from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: Cells of an array of resamples times marks that are held at a time.
_MOST_CELLS = 1_000_000

#: Sensitivity is also told at these false marks a scan.
FALSE_MARKS = (0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Marks:
    """All marks of a set of N scans, the highest score first.

    Attributes
    ----------
    scan : ndarray, shape (L,), intp
        Number of the scan of each mark, 0 to N - 1.
    score : ndarray, shape (L,)
    hits : ndarray, shape (L,)
        By how many pairs the matching of its scan grows when the mark enters: 1 or 0.
    true : ndarray, shape (N,)
        Lesions that are there.
    """

    scan: npt.NDArray[np.intp]
    score: FloatArray
    hits: FloatArray
    true: FloatArray


def entering_hits(truth: FloatArray, found: FloatArray, score: FloatArray, radius: float) -> FloatArray:
    """By how many pairs the one-to-one matching grows as marks enter, the highest score first.

    One more mark adds one pair or none to a largest matching, so the lesions found never fall with the threshold.

    Parameters
    ----------
    truth, found : ndarray, shape (N, 3) and (M, 3)
    score : ndarray, shape (M,)
    radius : float

    Returns
    -------
    ndarray, shape (M,)
        In the order of ``found``.

    >>> truth, marks = np.zeros((1, 3)), np.array([[1.0, 0, 0], [0.5, 0, 0]])
    >>> entering_hits(truth, marks, np.array([0.2, 0.9]), 3.0).tolist()
    [0.0, 1.0]
    """
    order = np.argsort(-score, kind="stable")
    pairs = [match_points(truth, found[order[: n + 1]], radius) for n in range(len(order))]
    hits = np.empty(len(order))
    hits[order] = np.diff(pairs, prepend=0)
    return hits


def marks_of(scan: npt.ArrayLike, score: npt.ArrayLike, hits: npt.ArrayLike, true: npt.ArrayLike) -> Marks:
    """Arrange marks by score.

    Raises
    ------
    ConfigError
        A score is not finite.
    """
    scores = np.asarray(score, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ConfigError("free-response curve: some scores are not finite")
    order = np.argsort(-scores, kind="stable")
    return Marks(
        np.asarray(scan, dtype=np.intp)[order],
        scores[order],
        np.asarray(hits, dtype=np.float64)[order],
        np.asarray(true, dtype=np.float64),
    )


@dataclass(frozen=True)
class Curve:
    """A free-response curve; marks of one score enter together.

    Attributes
    ----------
    threshold : ndarray, shape (T,)
        Falling.
    sensitivity, false_marks : ndarray, shape (R, T)
        Part of all lesions that are found, not a number where there is none, and false marks a scan, for each of R sets
        of weights.
    """

    threshold: FloatArray
    sensitivity: FloatArray
    false_marks: FloatArray


def curve_of(marks: Marks, weights: FloatArray) -> Curve:
    """Curve under weights of the scans, shape (R, N).

    >>> marks = marks_of([0, 1, 1], [0.9, 0.8, 0.7], [1, 0, 1], [1, 2])
    >>> found = curve_of(marks, np.ones((1, 2)))
    >>> found.sensitivity.round(2).tolist(), found.false_marks.tolist()
    ([[0.33, 0.33, 0.67]], [[0.0, 0.5, 0.5]])
    """
    last = (
        np.flatnonzero(np.diff(marks.score, append=-np.inf) != 0)
        if marks.score.size
        else np.zeros(0, dtype=np.intp)
    )
    of_marks = weights[:, marks.scan]
    hits = np.cumsum(of_marks * marks.hits, axis=1)[:, last]
    misses = np.cumsum(of_marks * (1.0 - marks.hits), axis=1)[:, last]
    lesions = weights @ marks.true
    sensitivity = hits / np.where(lesions > 0, lesions, np.nan)[:, None]
    return Curve(marks.score[last], sensitivity, misses / weights.sum(axis=1)[:, None])


def froc_figures(marks: Marks, weights: FloatArray, limit: float) -> Mapping[str, FloatArray]:
    """Area under the curve, and sensitivity at fixed numbers of false marks a scan, each of shape (R,).

    ``froc_area`` is the mean sensitivity over 0 to ``limit`` false marks a scan: the area under the curve as a
    staircase there, divided by ``limit``, so 1 is best and 0 worst. Beyond its last mark the curve stays where it
    ended: a table holds lesions at the one threshold that the count settled, so this is a lower bound of what a lower
    threshold could reach. ``sensitivity_at_X`` is the highest sensitivity at no more than X false marks a scan.

    Parameters
    ----------
    weights : ndarray, shape (R, N)
    limit : float
        False marks a scan, above 0.
    """
    rows = max(1, _MOST_CELLS // max(marks.score.size, 1))
    parts = [_figures(marks, weights[start : start + rows], limit) for start in range(0, len(weights), rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _figures(marks: Marks, weights: FloatArray, limit: float) -> Mapping[str, FloatArray]:
    curve = curve_of(marks, weights)
    none = np.zeros((len(weights), 1))
    undefined = (weights @ marks.true) <= 0
    height = np.concatenate([none, np.nan_to_num(curve.sensitivity)], axis=1)
    at = np.concatenate([none, curve.false_marks], axis=1)
    ends = np.minimum(np.concatenate([at[:, 1:], np.full_like(none, np.inf)], axis=1), limit)
    area = (height * (ends - np.minimum(at, limit))).sum(axis=1) / limit
    found = {"froc_area": np.where(undefined, np.nan, area)}
    for rate in FALSE_MARKS:
        reached = np.where(at <= rate + 1e-9, height, 0.0).max(axis=1)
        found[f"sensitivity_at_{rate:g}"] = np.where(undefined, np.nan, reached)
    return found
