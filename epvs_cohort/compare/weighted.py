"""Agreement of counts under weights of the scans, for many resamples at once.

The formulas are those of `compare.agreement`, which `pingouin` gives too; here every sum runs over weighted scans, so
that thousands of resamples cost a few matrix products. Where the counts do not define a figure it is not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import FloatArray

#: Limits of agreement are the mean difference plus and minus this times the standard deviation (Bland and Altman
#: 1986, Lancet 327:307-310): 95 % of normal differences.
LIMITS_SD = 1.96

#: Below this part of the mean square of the counts, a variance is rounding and stands for none.
_ROUNDING = 1e-12


def icc_figures(ratings: FloatArray) -> Callable[[FloatArray], Mapping[str, FloatArray]]:
    """ICC(A,1), ICC(C,1), ICC(A,k) and ICC(C,k) of scans rated k times (McGraw and Wong 1996, Table 4, case 2).

    ICC(A,1) is ICC(2,1) of Shrout and Fleiss (1979), ICC(C,1) their ICC(3,1), the two of averages over the k ratings
    their ICC(2,k) and ICC(3,k).

    Parameters
    ----------
    ratings : ndarray, shape (N, k)
        Finite, k of at least 2.

    Returns
    -------
    callable
        Weights, shape (R, N), to ``icc_a1``, ``icc_c1``, ``icc_ak`` and ``icc_ck``, each of shape (R,).

    Raises
    ------
    ConfigError
        Other shapes, or a rating that is not finite.

    The example of Shrout and Fleiss, six targets and four judges:

    >>> judged = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> found = icc_figures(np.array(judged, dtype=np.float64))(np.ones((1, 6)))
    >>> [round(float(found[name][0]), 2) for name in ("icc_a1", "icc_c1", "icc_ak", "icc_ck")]
    [0.29, 0.71, 0.62, 0.91]
    """
    _check(ratings)
    k = ratings.shape[1]
    centred = ratings - ratings.mean()
    of_rows = centred.mean(axis=1)
    within = ((centred - of_rows[:, None]) ** 2).sum(axis=1)
    scale = float((centred**2).mean()) or 1.0

    def figures(weights: FloatArray) -> Mapping[str, FloatArray]:
        n = weights.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            grand = weights @ of_rows / n
            between_columns = n * (((weights @ centred) / n[:, None] - grand[:, None]) ** 2).sum(axis=1)
            rows = k * _at_least(weights @ of_rows**2 - n * grand**2, scale * n) / (n - 1)
            columns = between_columns / (k - 1)
            error = _at_least(weights @ within - between_columns, scale * n) / ((n - 1) * (k - 1))
            return {
                "icc_a1": _ratio(rows - error, rows + (k - 1) * error + k * (columns - error) / n),
                "icc_c1": _ratio(rows - error, rows + (k - 1) * error),
                "icc_ak": _ratio(rows - error, rows + (columns - error) / n),
                "icc_ck": _ratio(rows - error, rows),
            }

    return figures


def pair_figures(
    first: FloatArray, second: FloatArray, *, second_is_truth: bool
) -> Callable[[FloatArray], Mapping[str, FloatArray]]:
    """Agreement of two counts of each scan; differences are the first minus the second.

    Parameters
    ----------
    first, second : ndarray, shape (N,)
        Finite.
    second_is_truth : bool
        The second is what the first is to hit: then also R² (the part of its variance that the first explains, 1 -
        MSE / variance, below 0 where its mean would do better) and the slope of the first over it.

    Returns
    -------
    callable
        Weights, shape (R, N), to figures of shape (R,): the four ICCs, pearson, spearman, mse, mae, bias (mean
        difference), sd_difference (n - 1), loa_low and loa_high (limits of agreement), and slope_difference, of the
        differences over the means of both: other than 0 where the bias grows or falls with the count.

    Raises
    ------
    ConfigError
        Other shapes, or a count that is not finite.
    """
    ratings = np.stack([first, second], axis=1)
    icc = icc_figures(ratings)
    difference, mean = first - second, ratings.mean(axis=1)
    pearson, spearman = _correlation(first, second), _rank_correlation(first, second)
    over_mean, over_second = _slope(mean, difference), _slope(second, first)
    spread = _variance(difference)

    def figures(weights: FloatArray) -> Mapping[str, FloatArray]:
        n = weights.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias, mse = weights @ difference / n, weights @ difference**2 / n
            sd = np.sqrt(spread(weights) * n / np.where(n > 1, n - 1, np.nan))
            found = {
                **icc(weights),
                "pearson": pearson(weights),
                "spearman": spearman(weights),
                "mse": mse,
                "mae": weights @ np.abs(difference) / n,
                "bias": bias,
                "sd_difference": sd,
                "loa_low": bias - LIMITS_SD * sd,
                "loa_high": bias + LIMITS_SD * sd,
                "slope_difference": over_mean(weights),
            }
            if second_is_truth:
                found["r2"] = 1.0 - _ratio(mse, _variance(second)(weights))
                found["slope"] = over_second(weights)
        return found

    return figures


def _check(ratings: FloatArray) -> None:
    if ratings.ndim != 2 or ratings.shape[0] < 1 or ratings.shape[1] < 2:
        raise ConfigError(f"agreement: ratings of shape {ratings.shape} found, (N, k) with k from 2 is legal")
    if not np.isfinite(ratings).all():
        raise ConfigError("agreement: some counts are not finite; leave their scans out and say so")


def _at_least(squares: FloatArray, scale: FloatArray) -> FloatArray:
    """Sum of squares without what rounding leaves of nothing."""
    return np.where(squares > _ROUNDING * scale, squares, 0.0)


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _variance(values: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Of the population: the sum of squares divided by the sum of weights."""
    centred = values - values.mean()
    scale = float((centred**2).mean()) or 1.0

    def variance(weights: FloatArray) -> FloatArray:
        n = weights.sum(axis=1)
        squares = weights @ centred**2 - (weights @ centred) ** 2 / n
        return np.asarray(_at_least(squares, scale * n) / n, dtype=np.float64)

    return variance


def _covariance(x: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    a, b = x - x.mean(), y - y.mean()

    def covariance(weights: FloatArray) -> FloatArray:
        n = weights.sum(axis=1)
        products = weights @ (a * b) - (weights @ a) * (weights @ b) / n
        return np.asarray(products / n, dtype=np.float64)

    return covariance


def _correlation(x: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    together, of_x, of_y = _covariance(x, y), _variance(x), _variance(y)
    return lambda weights: _ratio(together(weights), np.sqrt(of_x(weights) * of_y(weights)))


def _slope(x: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Of the least-squares line of ``y`` over ``x``."""
    together, of_x = _covariance(x, y), _variance(x)
    return lambda weights: _ratio(together(weights), of_x(weights))


def _rank_correlation(x: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Spearman's: Pearson's of the ranks, which are anew in each resample; equal values share their mean rank."""
    first, second = _ranks(x), _ranks(y)

    def correlation(weights: FloatArray) -> FloatArray:
        a, b = first(weights), second(weights)
        n = weights.sum(axis=1)
        middle = (n[:, None] + 1) / 2
        a, b = a - middle, b - middle
        above = (weights * a * b).sum(axis=1)
        below = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
        return _ratio(above, below)

    return correlation


def _ranks(values: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Mean rank of each scan among the weighted scans, shape (R, N), where each stands as often as its weight says."""
    _, of_value = np.unique(values, return_inverse=True)
    order = np.argsort(of_value, kind="stable")
    starts: npt.NDArray[np.intp] = np.flatnonzero(np.diff(of_value[order], prepend=-1))

    def ranks(weights: FloatArray) -> FloatArray:
        of_each = np.add.reduceat(weights[:, order], starts, axis=1)
        last = np.cumsum(of_each, axis=1)
        return np.asarray((last - (of_each - 1) / 2)[:, of_value], dtype=np.float64)

    return ranks
