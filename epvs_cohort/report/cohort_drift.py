"""Do quality measures, or the counts, differ between scanners or change over the years of acquisition."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from epvs_cohort.geometry import FloatArray
from epvs_cohort.report.cohort_outliers import FAR, robust_z
from epvs_cohort.report.measure_words import measure_words

#: Scans that a scanner needs to be looked at.
FEWEST: Final = 10
#: Share of the spread of ranks between scanners, and rank correlation with the date, from which they are worth naming.
LARGE_SHARE: Final = 0.06
LARGE_CORRELATION: Final = 0.3
#: Level of both tests, before it is divided by their number.
_LEVEL: Final = 0.05
_MOST_SCANS: Final = 5
_UNKNOWN: Final = "unknown scanner"


@dataclass(frozen=True)
class Drift:
    """One thing that differs between scanners or changes with the date.

    Attributes
    ----------
    measure : str
        Column name, or ``count``.
    title : str
    sentence : str
    size : float
        Of the effect, 0 to 1, by which the list is ordered.
    """

    measure: str
    title: str
    sentence: str
    size: float


@dataclass(frozen=True)
class Outliers:
    """Scans far from the others in one measure."""

    title: str
    number: int
    scans: tuple[tuple[str, str], ...]


def _values(scans: pd.DataFrame, measures: pd.DataFrame) -> dict[str, FloatArray]:
    found = {"count": scans["count"].to_numpy(dtype=np.float64)}
    return found | {str(name): measures[name].to_numpy(dtype=np.float64) for name in measures.columns}


def _title(name: str) -> str:
    return "Count" if name == "count" else measure_words(name)[0]


def drifts(scans: pd.DataFrame, measures: pd.DataFrame) -> list[Drift]:
    """What differs between scanners (Kruskal–Wallis) or changes with the date of a scanner (Spearman), largest first.

    Both work on ranks, so a few extreme scans decide nothing. Named is what is large and would be rare by chance, with
    the level divided by the number of tests (Bonferroni).
    """
    values = _values(scans, measures)
    scanner = scans["scanner"].fillna(_UNKNOWN).astype(str).to_numpy()
    dates = pd.to_datetime(scans["acquisition_date"], errors="coerce")
    days = (dates - pd.Timestamp("2000-01-01")).dt.days.to_numpy(dtype=np.float64)
    makers = [name for name in np.unique(scanner) if (scanner == name).sum() >= FEWEST]
    tests = max(len(values) * (len(makers) + 1), 1)
    found = []
    for name, column in values.items():
        found += _between(name, {maker: column[scanner == maker] for maker in makers}, tests)
        for maker in makers:
            mine = scanner == maker
            found += _with_date(name, maker, (days[mine], column[mine]), tests)
    return sorted(found, key=lambda drift: -drift.size)


def _between(name: str, groups: dict[str, FloatArray], tests: int) -> list[Drift]:
    known = {maker: values[np.isfinite(values)] for maker, values in groups.items()}
    known = {maker: values for maker, values in known.items() if len(values) >= FEWEST}
    if len(known) < 2 or len(np.unique(np.concatenate(list(known.values())))) < 2:
        return []
    statistic, p = stats.kruskal(*known.values())
    n = sum(map(len, known.values()))
    # Epsilon squared of ranks (Tomczak and Tomczak 2014, Trends in Sport Sciences 1(21)).
    share = float(statistic) / (n - 1)
    # A difference of the counts themselves is named however small a share of their spread it is.
    if p * tests >= _LEVEL or (share < LARGE_SHARE and name != "count"):
        return []
    medians = sorted(((float(np.median(values)), maker) for maker, values in known.items()), reverse=True)
    (high, most), (low, least) = medians[0], medians[-1]
    words = (
        f"differs between scanners: median {_short(high)} on {most}, {_short(low)} on {least} "
        f"(scanner explains {share:.0%} of the spread of ranks)"
    )
    return [Drift(name, _title(name), words, share)]


def _with_date(name: str, maker: str, pairs: tuple[FloatArray, FloatArray], tests: int) -> list[Drift]:
    days, values = pairs
    both = np.isfinite(days) & np.isfinite(values)
    days, values = days[both], values[both]
    if len(values) < FEWEST or len(np.unique(values)) < 2 or len(np.unique(days)) < 2:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        result = stats.spearmanr(days, values)
    rho, p = float(result.statistic), float(result.pvalue)
    if math.isnan(rho) or p * tests >= _LEVEL or abs(rho) < LARGE_CORRELATION:
        return []
    way = "rises" if rho > 0 else "falls"
    words = f"{way} with the date on {maker} (Spearman correlation {rho:+.2f}, {len(values)} scans)".replace(
        "-", "−"
    )
    return [Drift(name, _title(name), words, rho * rho)]


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def outliers(scans: pd.DataFrame, measures: pd.DataFrame) -> list[Outliers]:
    """Measures in which scans lie far from the others, those with most of them first."""
    keys = scans["scan"].astype(str).tolist()
    found = []
    for name, values in _values(scans, measures).items():
        far = robust_z(np.sqrt(np.maximum(values, 0.0)) if name == "count" else values)
        rows = [int(row) for row in np.flatnonzero(np.abs(np.nan_to_num(far)) >= FAR)]
        if rows:
            rows.sort(key=lambda row: -abs(far[row]))
            named = tuple((keys[row], _short(float(values[row]))) for row in rows[:_MOST_SCANS])
            found.append(Outliers(_title(name), len(rows), named))
    return sorted(found, key=lambda each: -each.number)
