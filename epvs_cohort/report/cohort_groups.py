"""Do the counts differ between groups of scans: by scanner, sex, age band or any column of the table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from epvs_cohort.report.measure_words import number

#: Groups of a text column that are shown; smaller ones are pooled.
MOST_GROUPS: Final = 12
#: Scans that a group needs to be compared with another.
FEWEST_SCANS: Final = 5
#: Numbers of different values up to which a column of numbers is groups as it stands.
_FEW_VALUES: Final = 6
_BANDS: Final = 6
#: Columns that identify a scan or repeat what it was counted from.
_NEVER: Final = frozenset(
    {"scan", "path", "subject", "count", "count_rounded", "threshold", "acquisition_date"}
)
_FIRST: Final = ("scanner", "age", "sex", "session")
#: Held equal where groups are compared, and the fewest scans that allow it.
_HELD: Final = ("age", "sex")
_FEWEST_ADJUSTED: Final = 20
OTHERS: Final = "others"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Grouping:
    """Counted scans in groups.

    Attributes
    ----------
    column : str
    names : tuple of str
        Of the groups, in the order shown.
    of : tuple of int or None
        Group of each row of the table; None where the scan has no count.
    sentence : str
        What the comparison says.
    """

    column: str
    names: tuple[str, ...]
    of: tuple[int | None, ...]
    sentence: str


def groupings(scans: pd.DataFrame, covariates: Sequence[str]) -> list[Grouping]:
    """Every column by which the counts can be grouped, the commonest questions first."""
    candidates = [name for name in (*_FIRST, *covariates) if name in scans.columns and name not in _NEVER]
    counted = scans["count"].notna().to_numpy()
    found = []
    for name in dict.fromkeys(candidates):
        labels = group_labels(scans[name])
        names = _ordered(labels[counted], numeric=pd.api.types.is_numeric_dtype(scans[name]))
        if not 2 <= len(names) <= MOST_GROUPS + 2:
            continue
        place = {group: at for at, group in enumerate(names)}
        of = tuple(place[label] if known else None for label, known in zip(labels, counted, strict=True))
        found.append(Grouping(name, names, of, sentence(scans, labels, name)))
    return found


def group_labels(column: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Group of each row: its text, its band where it is a number with many values, or ``unknown``."""
    labels = np.full(len(column), UNKNOWN, dtype=object)
    known = column.notna().to_numpy()
    values = column[known]
    if values.empty:
        return labels
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        labels[known] = _bands(values.to_numpy(dtype=np.float64))
        return labels
    texts = values.astype(str).to_numpy(dtype=object)
    numbers = pd.Series(texts).value_counts()
    if len(numbers) > MOST_GROUPS:
        texts = np.where(np.isin(texts, list(numbers.index[: MOST_GROUPS - 1])), texts, OTHERS)
    labels[known] = texts
    return labels


def _bands(values: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    finite = values[np.isfinite(values)]
    different = np.unique(finite)
    if len(different) <= _FEW_VALUES:
        return np.array([number(value) for value in values], dtype=object)
    step = _round_step((different[-1] - different[0]) / _BANDS)
    low = np.floor(values / step) * step
    return np.array([f"{number(start)} to <{number(start + step)}" for start in low], dtype=object)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1.0, 2.0, 5.0, 10.0) if power * nice >= step * (1 - 1e-9))


def _ordered(labels: npt.NDArray[np.object_], *, numeric: bool) -> tuple[str, ...]:
    found = [str(label) for label in pd.unique(pd.Series(labels))]

    def place(label: str) -> tuple[int, float, str]:
        last = {OTHERS: 1, UNKNOWN: 2}.get(label, 0)
        start = float(label.split(" ")[0].replace("−", "-")) if numeric and not last else 0.0
        return last, start, label

    return tuple(sorted(found, key=place))


@dataclass(frozen=True)
class Contrast:
    """The two groups whose mean counts lie farthest apart.

    Attributes
    ----------
    most, least : str
        Names of the groups.
    means, numbers : tuple
        Mean count and number of scans of both.
    gap, half : float
        Difference of the means, and half its interval.
    pairs : int
        Of groups, for which the interval is widened.
    """

    most: str
    least: str
    means: tuple[float, float]
    numbers: tuple[int, int]
    gap: float
    half: float
    pairs: int

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.gap - self.half > 0

    @property
    def interval(self) -> str:
        """The interval in words."""
        return f"95 % interval {self.gap - self.half:.1f} to {self.gap + self.half:.1f}".replace("-", "−")


def contrast(scans: pd.DataFrame, labels: npt.NDArray[np.object_]) -> Contrast | None:
    """Compare the two groups that differ most; None where fewer than two are large enough.

    Welch's interval (1947, Biometrika 34), its level raised by Bonferroni for the number of pairs: the widest
    of many differences is wide by chance.
    """
    counts = scans["count"].to_numpy(dtype=np.float64)
    groups = {
        str(name): counts[(labels == name) & np.isfinite(counts)]
        for name in pd.unique(pd.Series(labels))
        if name not in (UNKNOWN, OTHERS)
    }
    large = {name: values for name, values in groups.items() if len(values) >= FEWEST_SCANS}
    if len(large) < 2:
        return None
    most = max(large, key=lambda name: float(large[name].mean()))
    least = min(large, key=lambda name: float(large[name].mean()))
    pairs = len(list(itertools.combinations(large, 2)))
    gap, half = _welch(large[most], large[least], pairs)
    both = large[most], large[least]
    means = float(both[0].mean()), float(both[1].mean())
    return Contrast(most, least, means, (len(both[0]), len(both[1])), gap, half, pairs)


def sentence(scans: pd.DataFrame, labels: npt.NDArray[np.object_], column: str) -> str:
    """Say how far the means of the two groups that differ most are apart, with an interval."""
    found = contrast(scans, labels)
    if found is None:
        return f"Fewer than two groups have {FEWEST_SCANS} counted scans, so they are not compared."
    pairs = f", for {found.pairs} pairs of groups)" if found.pairs > 1 else ")"
    verdict = "more than chance gives" if found.beyond_chance else "no more than chance may give"
    adjusted = _adjusted(scans, labels, (found.most, found.least, column), found.pairs)
    return (
        f"Highest mean count: {found.most}, {found.means[0]:.1f} ({found.numbers[0]} scans); lowest: {found.least}, "
        f"{found.means[1]:.1f} ({found.numbers[1]} scans). Difference {found.gap:.1f} ({found.interval}{pairs}: "
        f"{verdict}. {adjusted}"
    )


def _adjusted(
    scans: pd.DataFrame, labels: npt.NDArray[np.object_], compared: tuple[str, str, str], pairs: int
) -> str:
    """Say how large the difference is in a linear model with age and sex, where these are known."""
    most, least, column = compared
    held = [name for name in _HELD if name in scans.columns and name != column]
    frame = pd.DataFrame({name: _numeric(scans[name]) for name in held}, index=scans.index)
    # What does not vary holds nothing equal.
    held = [name for name in held if frame[name].nunique() > 1]
    known = np.isin(labels.astype(str), (most, least)) & scans["count"].notna().to_numpy()
    known &= frame[held].notna().all(axis=1).to_numpy()
    if not held or known.sum() < _FEWEST_ADJUSTED:
        return "Nothing is adjusted for here: groups may differ in age, sex or disease."
    ones = np.ones(int(known.sum()))
    design = np.column_stack([ones, labels[known] == most, frame.loc[known, held].to_numpy()]).astype(
        np.float64
    )
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return f"Age and sex cannot be held equal: they go with the groups of {column}."
    gap, error = _coefficient(design, scans.loc[known, "count"].to_numpy(dtype=np.float64))
    half = float(stats.t.ppf(1.0 - 0.025 / pairs, len(design) - design.shape[1])) * error
    words = f"With {' and '.join(held)} held equal the difference is {gap:.1f} ({gap - half:.1f} to {gap + half:.1f}"
    return f"{words}, {len(design)} scans). Disease and much else may still differ.".replace("-", "−")


def _numeric(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Numbers as they are; two texts as 0 and 1; anything else is unknown."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    codes, names = pd.factorize(column, sort=True)
    return np.where(codes >= 0, codes, np.nan) if len(names) == 2 else np.full(len(column), np.nan)


def _coefficient(design: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Second coefficient of least squares and its error where spreads may differ (HC3, MacKinnon and White 1985)."""
    inverse = np.linalg.inv(design.T @ design)
    weights = inverse @ design.T @ values
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    scaled = (values - design @ weights) / (1.0 - leverage)
    spread = inverse @ (design.T * scaled**2) @ design @ inverse
    return float(weights[1]), math.sqrt(float(spread[1, 1]))


def _welch(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], pairs: int
) -> tuple[float, float]:
    gap = float(first.mean() - second.mean())
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return gap, 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    return gap, float(stats.t.ppf(1.0 - 0.025 / pairs, freedom)) * error
