"""The paper's Table 1 of a cohort: each method's rates, their differences and curves, with bootstrap intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from epvs_cohort.compare.bootstrap import Estimate, IndexArray, bootstrap
from epvs_cohort.compare.trial import Trial, TriedScan
from epvs_cohort.errors import ConfigError
from epvs_cohort.protocol import Method

Measure = Literal["tpr", "tpr_mean", "fpav", "fdr", "fdr_mean"]

#: Measures in words: pooled over all lesions or marks, and as means over scans.
MEASURES: Final[Mapping[Measure, str]] = {
    "tpr": "TPR, all lesions pooled",
    "tpr_mean": "TPR, mean over scans",
    "fpav": "FPav",
    "fdr": "FDR, all marks pooled",
    "fdr_mean": "FDR, mean over scans",
}

#: Table 1 of the paper: TPR in %, FPav, FDR in %. On 30 scans of the Rotterdam Study. Other methods are lacking.
PAPER: Final[Mapping[Method, tuple[float, float, float]]] = {
    "a": (40.6, 2.3, 59.8),
    "b": (39.8, 2.7, 54.2),
    "c": (18.7, 3.3, 70.2),
    "d": (19.6, 3.2, 70.5),
    "e": (54.8, 1.9, 37.7),
    "f": (62.0, 1.5, 31.4),
}

#: What must stand beside the paper's numbers.
PAPER_WORDS: Final = (
    "The paper's numbers (Dubost et al. 2017, Table 1) are those of 30 real scans of the Rotterdam Study, in the slice "
    "of the anterior commissure; they are no target for other scans."
)

#: Thresholds of a curve.
CURVE_POINTS: Final = 48


@dataclass(frozen=True)
class MethodRow:
    """One method over all test scans.

    Attributes
    ----------
    estimates : mapping of str to Estimate or None
        By measure; None where it is defined for no scan.
    found, matched : int
        Lesions marked, and those of them that are some.
    without_marks : int
        Scans that the mean FDR leaves out, for nothing is marked there.
    seconds : float
        Median over scans of the time that the method alone would take, on one thread of a CPU, or on the GPU.
    """

    method: Method
    estimates: Mapping[Measure, Estimate | None]
    found: int
    matched: int
    without_marks: int
    seconds: float


@dataclass(frozen=True)
class Difference:
    """A measure of one method less that of another, on the same scans."""

    method: Method
    minus: Method
    measure: Measure
    estimate: Estimate | None


@dataclass(frozen=True)
class CurvePoint:
    """What a method finds where one threshold holds for all scans; ``tpr`` is None where there is no lesion."""

    threshold: float
    tpr: float | None
    fpav: float
    found: int
    matched: int


@dataclass(frozen=True)
class MethodTable:
    """All methods on the test scans.

    Attributes
    ----------
    scans, subjects, lesions : int
    without_lesions : int
        Scans that the mean TPR leaves out.
    rows : tuple of MethodRow
    differences : tuple of Difference
        Of each pair of methods, the later less the earlier.
    curves : mapping of str to tuple of CurvePoint
        By method, thresholds descending.
    """

    scans: int
    subjects: int
    lesions: int
    without_lesions: int
    rows: tuple[MethodRow, ...]
    differences: tuple[Difference, ...]
    curves: Mapping[Method, tuple[CurvePoint, ...]]


@dataclass(frozen=True)
class _Counts:
    """Lesions by scan, each of shape (S,)."""

    true: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    matched: npt.NDArray[np.int64]


def curve_thresholds(scans: Sequence[TriedScan], trial: Trial) -> Mapping[Method, tuple[float, ...]]:
    """Thresholds for each method's curve, from what some scans propose: evenly spaced among their ranks, descending.

    They only settle where a curve is looked at; no lesion has a part in it.
    """
    found: dict[Method, tuple[float, ...]] = {}
    for method in trial.methods:
        proposed = [value for scan in scans if method in scan.tried for value in scan.tried[method].proposed]
        if proposed:
            spaced = np.quantile(np.array(proposed, dtype=np.float64), np.linspace(1.0, 0.0, CURVE_POINTS))
            found[method] = tuple(float(value) for value in np.unique(spaced)[::-1])
    return found


def method_table(scans: Sequence[TriedScan], trial: Trial, *, seed: int) -> MethodTable:
    """Sum up all methods over the scans that they were tried on.

    Parameters
    ----------
    scans : sequence of TriedScan
        Those with a fault are passed over.
    trial : Trial
    seed : int
        Of the bootstrap over subjects.

    Raises
    ------
    ConfigError
        No scan is left.
    """
    usable = [scan for scan in scans if not scan.fault]
    if not usable:
        raise ConfigError("comparing methods: no test scan could be used, at least 1 is needed")
    subjects = [scan.subject for scan in usable]
    counts = {method: _counts(usable, method) for method in trial.methods}

    def estimate(measure: Callable[[IndexArray], float]) -> Estimate | None:
        found = bootstrap(subjects, measure, seed=seed)
        return None if math.isnan(found.value) else found

    def rate(method: Method, measure: Measure) -> Callable[[IndexArray], float]:
        return lambda rows: _rate(counts[method], measure, rows)

    def change(one: Method, other: Method, measure: Measure) -> Callable[[IndexArray], float]:
        return lambda rows: _rate(counts[one], measure, rows) - _rate(counts[other], measure, rows)

    rows = tuple(
        MethodRow(
            method=method,
            estimates={measure: estimate(rate(method, measure)) for measure in MEASURES},
            found=int(counts[method].found.sum()),
            matched=int(counts[method].matched.sum()),
            without_marks=int((counts[method].found == 0).sum()),
            seconds=float(np.median([scan.tried[method].seconds for scan in usable])),
        )
        for method in trial.methods
    )
    differences = tuple(
        Difference(later, earlier, measure, estimate(change(later, earlier, measure)))
        for earlier, later in itertools.combinations(trial.methods, 2)
        for measure in MEASURES
    )
    true = counts[trial.methods[0]].true
    return MethodTable(
        scans=len(usable),
        subjects=len(set(subjects)),
        lesions=int(true.sum()),
        without_lesions=int((true == 0).sum()),
        rows=rows,
        differences=differences,
        curves={method: _curve(usable, trial, method) for method in trial.methods},
    )


def _counts(scans: Sequence[TriedScan], method: Method) -> _Counts:
    figures = [scan.tried[method].figures for scan in scans]
    return _Counts(
        np.array([each.true for each in figures], dtype=np.int64),
        np.array([each.found for each in figures], dtype=np.int64),
        np.array([each.matched for each in figures], dtype=np.int64),
    )


def _rate(counts: _Counts, measure: Measure, rows: IndexArray) -> float:
    """A measure over some scans; not a number where it is not defined for them."""
    true, found, matched = counts.true[rows], counts.found[rows], counts.matched[rows]
    if measure == "fpav":
        return float((found - matched).mean())
    below = true if measure in ("tpr", "tpr_mean") else found
    above = matched if measure in ("tpr", "tpr_mean") else found - matched
    if measure in ("tpr", "fdr"):
        return float(above.sum() / below.sum()) if below.any() else math.nan
    defined = below > 0
    return float((above[defined] / below[defined]).mean()) if defined.any() else math.nan


def _curve(scans: Sequence[TriedScan], trial: Trial, method: Method) -> tuple[CurvePoint, ...]:
    n_true = sum(scan.n_true for scan in scans)
    points = []
    for number, threshold in enumerate(trial.thresholds.get(method, ())):
        figures = [scan.tried[method].curve[number] for scan in scans]
        found, matched = sum(each.found for each in figures), sum(each.matched for each in figures)
        tpr = matched / n_true if n_true else None
        points.append(CurvePoint(threshold, tpr, (found - matched) / len(scans), found, matched))
    return tuple(points)
