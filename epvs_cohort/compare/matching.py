"""Marked lesions against those that are there: one-to-one pairs, and the rates made of them (paper, Sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: "Within 3 voxels" of the prepared grid (paper, Sec. 3).
MATCH_VOXELS = 3.0


@dataclass(frozen=True)
class Matching:
    """One-to-one pairs of true and marked lesions of one scan.

    Attributes
    ----------
    true, found : ndarray, shape (P,), intp
        Rows of the pairs among the true and the marked lesions.
    distance : ndarray, shape (P,)
        Between the two of each pair.
    """

    true: npt.NDArray[np.intp]
    found: npt.NDArray[np.intp]
    distance: FloatArray


def match_lesions(truth: FloatArray, found: FloatArray, radius: float = MATCH_VOXELS) -> Matching:
    """Pair true with marked lesions: as many pairs within the radius as there can be, of the least total distance.

    Parameters
    ----------
    truth, found : ndarray, shape (N, 3) and (M, 3)
        Centres; "within 3 voxels" needs both in voxels of the prepared grid. For the slice of the anterior
        commissure they are the centres of the cross-sections with that slice.
    radius : float
        Largest distance of a pair, itself included.

    Raises
    ------
    ConfigError
        A coordinate is not finite.

    >>> pairs = match_lesions(np.array([[0., 0, 0], [2, 0, 0]]), np.array([[1., 0, 0], [9, 0, 0]]))
    >>> len(pairs.true), pairs.distance.tolist()
    (1, [1.0])
    """
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        raise ConfigError("matching of lesions: some coordinates are not finite")
    if len(truth) == 0 or len(found) == 0:
        none = np.zeros(0, dtype=np.intp)
        return Matching(none, none, np.zeros(0))
    distance = np.linalg.norm(truth[:, None, :] - found[None, :, :], axis=-1)
    near = distance <= radius
    # The assignment pairs off the whole of the smaller set. A pair out of reach costs more than all pairs within
    # reach can together, so their number is greatest first and their distance least second.
    out_of_reach = radius * (min(distance.shape) + 1) + 1.0
    rows, columns = linear_sum_assignment(np.where(near, distance, out_of_reach))
    kept = near[rows, columns]
    rows, columns = rows[kept], columns[kept]
    return Matching(rows, columns, np.asarray(distance[rows, columns], dtype=np.float64))


def match_points(truth: FloatArray, found: FloatArray, radius: float = MATCH_VOXELS) -> int:
    """Largest number of one-to-one pairs of (N, 3) and (M, 3) points that are at most ``radius`` apart.

    >>> match_points(np.array([[0., 0, 0], [2, 0, 0]]), np.array([[1., 0, 0], [9, 0, 0]]))
    1
    """
    return len(match_lesions(truth, found, radius).true)


@dataclass(frozen=True)
class MatchFigures:
    """Lesions found, in one scan or over a set of scans.

    Attributes
    ----------
    true, found, matched : int
        Lesions that are there, lesions marked, and pairs of both.
    """

    true: int
    found: int
    matched: int

    @property
    def sensitivity(self) -> float:
        """Part of the true lesions that were found; 0 where there are none."""
        return self.matched / self.true if self.true else 0.0

    @property
    def false_discovery_rate(self) -> float:
        """Part of the marked lesions that are none; 0 where none is marked."""
        return 1.0 - self.matched / self.found if self.found else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision; 0 where neither is defined."""
        return 2.0 * self.matched / (self.true + self.found) if self.true + self.found else 0.0


@dataclass(frozen=True)
class MatchSummary:
    """Lesions found in a set of scans, over all lesions and as means over scans.

    Attributes
    ----------
    pooled : MatchFigures
        All lesions of all scans in one sum.
    scans : int
    without_lesions, without_marks : int
        Scans that a mean leaves out, because the rate is not defined there: without true lesions (sensitivity)
        and without marked ones (false discovery rate).
    mean_sensitivity, mean_false_discovery_rate : float or None
        Over the other scans; None where there is none.
    false_positives_per_scan : float
        FPav of the paper's Table 1, over all scans.
    """

    pooled: MatchFigures
    scans: int
    without_lesions: int
    without_marks: int
    mean_sensitivity: float | None
    mean_false_discovery_rate: float | None
    false_positives_per_scan: float


def summarize_matches(scans: Sequence[MatchFigures]) -> MatchSummary:
    """Sum up the matches of each scan.

    Raises
    ------
    ConfigError
        There is no scan.

    >>> two = summarize_matches([MatchFigures(4, 4, 2), MatchFigures(0, 1, 0)])
    >>> two.pooled.sensitivity, two.mean_sensitivity, two.without_lesions, two.false_positives_per_scan
    (0.5, 0.5, 1, 1.5)
    """
    if not scans:
        raise ConfigError("figures on lesions: no scan found, at least 1 is needed")
    pooled = pool_matches(scans)
    with_lesions = [each.sensitivity for each in scans if each.true]
    with_marks = [each.false_discovery_rate for each in scans if each.found]
    return MatchSummary(
        pooled=pooled,
        scans=len(scans),
        without_lesions=len(scans) - len(with_lesions),
        without_marks=len(scans) - len(with_marks),
        mean_sensitivity=float(np.mean(with_lesions)) if with_lesions else None,
        mean_false_discovery_rate=float(np.mean(with_marks)) if with_marks else None,
        false_positives_per_scan=(pooled.found - pooled.matched) / len(scans),
    )


def pool_matches(scans: Sequence[MatchFigures]) -> MatchFigures:
    """Sum of the lesions of several scans."""
    return MatchFigures(
        true=sum(each.true for each in scans),
        found=sum(each.found for each in scans),
        matched=sum(each.matched for each in scans),
    )
