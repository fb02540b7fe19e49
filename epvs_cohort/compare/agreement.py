"""How well two counts of the same scans agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray


@dataclass(frozen=True)
class CountFigures:
    """Agreement of estimated with true counts.

    A figure that the counts do not define is 0: an ICC, correlation or slope where all counts are the same.

    Attributes
    ----------
    icc : float
        ICC(A,1), absolute agreement of single measurements (McGraw and Wong 1996, Table 4).
    icc_consistency : float
        ICC(C,1), the same with a constant shift forgiven (ibid.).
    r, rho : float
        Pearson's and Spearman's correlation.
    r2 : float
        Part of the variance of the truth that the estimate itself explains, 1 - MSE / variance; below 0 where the
        mean of the truth would do better.
    mse, mae : float
        Mean squared and mean absolute error.
    bias : float
        Mean of estimate minus truth.
    slope : float
        Of the least-squares line of the estimate over the truth.
    """

    icc: float
    icc_consistency: float
    r: float
    rho: float
    r2: float
    mse: float
    mae: float
    bias: float
    slope: float


def count_figures(truth: npt.ArrayLike, estimate: npt.ArrayLike) -> CountFigures:
    """Compare counts of at least two scans.

    Parameters
    ----------
    truth, estimate : array_like, shape (N,)
        Finite counts of the same scans in the same order.

    Raises
    ------
    ConfigError
        There are fewer than two, as many of one as of the other are not there, or one is not finite.

    >>> figures = count_figures([1, 2, 3, 6], [1, 2, 3, 6])
    >>> round(figures.icc, 6), round(figures.r, 6), figures.mae
    (1.0, 1.0, 0.0)
    >>> round(count_figures([1, 2, 3, 6], [2, 3, 4, 7]).icc, 3)
    0.903
    """
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ConfigError(f"figures on counts: shapes {x.shape} and {y.shape} found, both must be (N,)")
    if x.size < 2:
        raise ConfigError(f"figures on counts: {x.size} scans found, at least 2 are needed")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ConfigError("figures on counts: some counts are not finite; leave their scans out and say so")
    error = y - x
    pairs = np.stack([x, y], axis=1)
    mse, variance = float((error**2).mean()), float(x.var())
    return CountFigures(
        icc=icc_agreement(pairs),
        icc_consistency=icc_consistency(pairs),
        r=_correlation(x, y),
        rho=_correlation(stats.rankdata(x), stats.rankdata(y)),
        r2=1.0 - mse / variance if variance > 0 else 0.0,
        mse=mse,
        mae=float(np.abs(error).mean()),
        bias=float(error.mean()),
        slope=slope(x, y),
    )


def icc_agreement(ratings: FloatArray) -> float:
    """ICC(A,1) of an (n, k) table of n scans rated k times (McGraw and Wong 1996, Table 4, case 2A).

    The closed formula, because thousands of resamples are taken of it; `pingouin.intraclass_corr` gives the same
    numbers in several hundred times the time. 0 where it is not defined.

    The example of Shrout and Fleiss (1979), six targets and four judges:

    >>> judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> round(icc_agreement(np.array(judged, dtype=np.float64)), 2)
    0.29
    """
    n, k = ratings.shape
    rows, columns, error = _mean_squares(ratings)
    below = rows + (k - 1) * error + k * (columns - error) / n
    return (rows - error) / below if below > 0 else 0.0


def icc_consistency(ratings: FloatArray) -> float:
    """ICC(C,1) of an (n, k) table of n scans rated k times (McGraw and Wong 1996, Table 4, case 2).

    >>> judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> round(icc_consistency(np.array(judged, dtype=np.float64)), 2)
    0.71
    """
    rows, _, error = _mean_squares(ratings)
    below = rows + (ratings.shape[1] - 1) * error
    return (rows - error) / below if below > 0 else 0.0


def slope(x: FloatArray, y: FloatArray) -> float:
    """Slope of the least-squares line of ``y`` over ``x``, both of shape (N,); 0 where ``x`` is constant."""
    variance = float(x.var())
    return float(np.mean((x - x.mean()) * (y - y.mean()))) / variance if variance > 0 else 0.0


def _mean_squares(ratings: FloatArray) -> tuple[float, float, float]:
    """Mean squares of scans, of ratings and of what is left, of a two-way table."""
    n, k = ratings.shape
    grand, of_rows, of_columns = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    rows = k * float(((of_rows - grand) ** 2).sum()) / (n - 1)
    columns = n * float(((of_columns - grand) ** 2).sum()) / (k - 1)
    residual = ratings - of_rows[:, None] - of_columns[None, :] + grand
    return rows, columns, float((residual**2).sum()) / ((n - 1) * (k - 1))


def _correlation(x: FloatArray, y: FloatArray) -> float:
    spread = float(x.std()) * float(y.std())
    return float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
