"""Figures on counts and on found lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: "Within 3 voxels" of the prepared grid (paper, Sec. 3).
MATCH_VOXELS = 3.0


@dataclass(frozen=True)
class CountFigures:
    """Agreement of estimated with true counts.

    Attributes
    ----------
    icc : float
        ICC(A,1), absolute agreement of single measurements (McGraw and Wong 1996, Table 4).
    r : float
        Pearson's correlation.
    mae : float
        Mean absolute error.
    bias : float
        Mean of estimate minus truth.
    slope : float
        Of the least-squares line of the estimate over the truth.
    """

    icc: float
    r: float
    mae: float
    bias: float
    slope: float


def count_figures(truth: npt.ArrayLike, estimate: npt.ArrayLike) -> CountFigures:
    """Compare counts of at least two scans.

    Raises
    ------
    ConfigError
        There are fewer.

    >>> figures = count_figures([1, 2, 3, 6], [1, 2, 3, 6])
    >>> round(figures.icc, 6), round(figures.r, 6), figures.mae
    (1.0, 1.0, 0.0)
    >>> round(count_figures([1, 2, 3, 6], [2, 3, 4, 7]).icc, 3)
    0.903
    """
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if x.size < 2:
        raise ConfigError(f"figures on counts: {x.size} scans found, at least 2 are needed")
    spread = float(x.std()) * float(y.std())
    covariance = float(np.mean((x - x.mean()) * (y - y.mean())))
    error = y - x
    return CountFigures(
        icc=icc_agreement(np.stack([x, y], axis=1)),
        r=covariance / spread if spread > 0 else 0.0,
        mae=float(np.abs(error).mean()),
        bias=float(error.mean()),
        slope=covariance / float(x.var()) if x.var() > 0 else 0.0,
    )


def icc_agreement(ratings: FloatArray) -> float:
    """ICC(A,1) of an (n, k) table of n scans rated k times (McGraw and Wong 1996, Table 4, case 2A).

    The example of Shrout and Fleiss (1979), six targets and four judges:

    >>> judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> round(icc_agreement(np.array(judged, dtype=np.float64)), 2)
    0.29
    """
    n, k = ratings.shape
    grand = ratings.mean()
    rows = k * float(((ratings.mean(axis=1) - grand) ** 2).sum()) / (n - 1)
    columns = n * float(((ratings.mean(axis=0) - grand) ** 2).sum()) / (k - 1)
    residual = ratings - ratings.mean(axis=1, keepdims=True) - ratings.mean(axis=0, keepdims=True) + grand
    error = float((residual**2).sum()) / ((n - 1) * (k - 1))
    below = rows + (k - 1) * error + k * (columns - error) / n
    return (rows - error) / below if below > 0 else 0.0


@dataclass(frozen=True)
class MatchFigures:
    """Lesions found, over a set of scans.

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
        """Part of the true lesions that were found."""
        return self.matched / self.true if self.true else 0.0

    @property
    def false_discovery_rate(self) -> float:
        """Part of the marked lesions that are none."""
        return 1.0 - self.matched / self.found if self.found else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision."""
        return 2.0 * self.matched / (self.true + self.found) if self.true + self.found else 0.0


def match_points(truth: FloatArray, found: FloatArray, radius: float = MATCH_VOXELS) -> int:
    """Largest number of one-to-one pairs of (N, 3) and (M, 3) points that are at most ``radius`` apart.

    >>> match_points(np.array([[0., 0, 0], [2, 0, 0]]), np.array([[1., 0, 0], [9, 0, 0]]))
    1
    """
    if len(truth) == 0 or len(found) == 0:
        return 0
    distance = np.linalg.norm(truth[:, None, :] - found[None, :, :], axis=-1)
    near = distance <= radius
    rows, columns = linear_sum_assignment(~near)
    return int(near[rows, columns].sum())
