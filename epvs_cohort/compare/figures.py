"""Rows of the table of figures: each with its interval, of how many scans and subjects, and of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from epvs_cohort.compare.bootstrap import Estimate
from epvs_cohort.compare.covariates import Grouped
from epvs_cohort.compare.groups import order_of, thirds
from epvs_cohort.compare.marked import Lesions, lesion_estimator, scans_of_means
from epvs_cohort.compare.readers import MACHINE, Comparison, Rivalry
from epvs_cohort.compare.resamples import Drawing, Figures, estimates
from epvs_cohort.compare.weighted import icc_figures, pair_figures
from epvs_cohort.geometry import FloatArray

#: kind: machine, inter-reader, intra-reader, all readers, difference, lesions, rescan or rescan lesions. first and
#: second: what is compared, differences are first minus second. by and group: empty for all scans together. value, low,
#: high: the figure and its 95 % interval, null where not defined. scans, subjects: how many it is of, those that a mean
#: leaves out not counted.
FIGURE_COLUMNS: Final = (
    "kind", "first", "second", "by", "group", "figure", "value", "low", "high", "scans", "subjects",
)  # fmt: skip
#: Column by which thirds of the count stand in the table.
THIRDS: Final = "count, in thirds"
#: Within a third of the count an ICC says how narrow the third is.
_OF_THIRDS: Final = ("mae", "bias")

FigureRow = dict[str, Any]
FigureRows = list[FigureRow]


@dataclass(frozen=True)
class What:
    """What a figure is of: columns kind, first, second, by and group."""

    kind: str
    first: str
    second: str
    by: str = ""
    group: str = ""


def rows_of(
    what: What,
    subjects: Sequence[str],
    figures: Figures,
    drawing: Drawing,
    scans_of: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> FigureRows:
    """Estimate figures of some scans and make a row of each; no row where there is no scan.

    ``scans_of`` says, shape (N,), which of the scans a figure that leaves some out is of.
    """
    if not subjects:
        return []
    own = {name: list(compress(subjects, inside)) for name, inside in (scans_of or {}).items()}
    return [
        figure_row(what, name, estimate, own.get(name, subjects))
        for name, estimate in estimates(subjects, figures, drawing).items()
    ]


def figure_row(what: What, name: str, estimate: Estimate, subjects: Sequence[str]) -> FigureRow:
    """One row; what is not defined is None."""
    value = None if np.isnan(estimate.value) else estimate.value
    return {
        **vars(what),
        "figure": name,
        "value": value,
        "low": estimate.low,
        "high": estimate.high,
        "scans": len(subjects),
        "subjects": len(set(subjects)),
    }


def comparison_rows(compared: Comparison, subjects: Sequence[str], drawing: Drawing) -> FigureRows:
    """Agreement of two counts of the same scans, or the ICCs of more than two."""
    if len(compared.names) > 2:
        what = What(compared.kind, f"{len(compared.names)} readers", ", ".join(compared.names))
        return rows_of(what, subjects, icc_figures(compared.ratings), drawing) if subjects else []
    first, second = compared.names
    return rows_of(
        What(compared.kind, first, second), subjects, _pair(compared.ratings, compared.kind), drawing
    )


def _pair(ratings: FloatArray, kind: str) -> Figures:
    if len(ratings) == 0:
        return lambda weights: {}
    return pair_figures(ratings[:, 0], ratings[:, 1], second_is_truth=kind == "machine")


def difference_rows(rivalry: Rivalry, subjects: Sequence[str], drawing: Drawing) -> FigureRows:
    """How much better the machine agrees with a reader than another reading does, on the same scans.

    Above 0 the machine agrees better. Each resample is drawn for both, so the interval is that of the difference.
    """
    if not subjects:
        return []
    ours, theirs = icc_figures(rivalry.ratings[:, :2]), icc_figures(rivalry.ratings[:, ::2])

    def gain(weights: FloatArray) -> Mapping[str, FloatArray]:
        found, other = ours(weights), theirs(weights)
        return {name: found[name] - other[name] for name in ("icc_a1", "icc_c1")}

    what = What("difference", f"{MACHINE} with {rivalry.reader}", f"{rivalry.rival} with {rivalry.reader}")
    return rows_of(what, subjects, gain, drawing)


def group_rows(
    compared: Comparison,
    subjects: Sequence[str],
    grouped: Sequence[Grouped],
    drawing: Drawing,
) -> FigureRows:
    """Agreement of the machine with its reference in each group of scans, and errors in thirds of the count."""
    found: FigureRows = []
    first, second = compared.names
    for grouping in grouped:
        for group in grouping.order:
            inside = np.array([grouping.of[key] == group for key in compared.scans])
            what = What(compared.kind, first, second, grouping.column, group)
            part = [subject for subject, kept in zip(subjects, inside, strict=True) if kept]
            found += rows_of(what, part, _pair(compared.ratings[inside], compared.kind), drawing)
    reference = compared.ratings[:, 1]
    bands = thirds(reference)
    for band in order_of(bands, list(reference)):
        inside = np.array([name == band for name in bands])
        what = What(compared.kind, first, second, THIRDS, band)
        part = [subject for subject, kept in zip(subjects, inside, strict=True) if kept]
        rows = rows_of(what, part, _pair(compared.ratings[inside], compared.kind), drawing)
        found += [row for row in rows if row["figure"] in _OF_THIRDS]
    return found


def lesion_rows(lesions: Lesions, grouped: Sequence[Grouped], limit: float, drawing: Drawing) -> FigureRows:
    """Figures on lesions of all scans, and of each group of them."""
    found = _lesion_rows(What("lesions", MACHINE, "points"), lesions, limit, drawing)
    for grouping in grouped:
        for group in grouping.order:
            part = Lesions(tuple(e for e in lesions.outcomes if grouping.of[e.scan.key] == group))
            what = What("lesions", MACHINE, "points", grouping.column, group)
            found += _lesion_rows(what, part, limit, drawing)
    return found


def _lesion_rows(what: What, lesions: Lesions, limit: float, drawing: Drawing) -> FigureRows:
    estimator, scans_of = lesion_estimator(lesions, limit), scans_of_means(lesions.outcomes)
    return rows_of(what, lesions.subjects, estimator, drawing, scans_of)


def figure_table(rows: FigureRows) -> pd.DataFrame:
    """The table of figures."""
    table = pd.DataFrame(rows, columns=list(FIGURE_COLUMNS))
    return table.astype({"value": "float64", "low": "float64", "high": "float64"})
