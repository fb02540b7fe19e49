"""Lesions of a table against points that people marked, scan by scan, and the figures made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from epvs_cohort.compare.froc import Marks, curve_of, entering_hits, froc_figures, marks_of
from epvs_cohort.compare.matching import MATCH_VOXELS, MatchFigures, match_lesions
from epvs_cohort.compare.resamples import Figures
from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.protocol import CountTarget

Score = Literal["peak_heat", "mean_heat"]
#: Of a lesion: a pair, a marked one without partner, a located one without partner.
Outcome = Literal["true_positive", "false_negative", "false_positive"]
CENTRES: Final[Mapping[CountTarget, tuple[str, str, str]]] = {
    "roi": ("x_mm", "y_mm", "z_mm"),
    "ac_slice": ("ac_x_mm", "ac_y_mm", "ac_z_mm"),
}


@dataclass(frozen=True)
class Reach:
    """How near two lesions must lie to be one: at most ``radius``, in voxels of the prepared grid or in mm.

    Scans are moved to the prepared grid rigidly, so that a distance in mm is the same there as in the scan.

    Raises
    ------
    UsageError
        The radius is not finite, or negative.
    """

    radius: float = MATCH_VOXELS
    unit: Literal["voxels", "mm"] = "voxels"

    def __post_init__(self) -> None:
        """Check the radius."""
        if not (np.isfinite(self.radius) and self.radius >= 0):
            raise UsageError(
                f"lesions within {self.radius:g} {self.unit}: a finite number from 0 is legal",
                hint="--radius, --radius-mm and --rescan-radius-mm say how near lesions must lie",
            )

    @property
    def words(self) -> str:
        """For people.

        >>> Reach().words
        '3 voxels of the prepared grid'
        """
        return f"{self.radius:g} " + ("voxels of the prepared grid" if self.unit == "voxels" else "mm")


@dataclass(frozen=True)
class Located:
    """Lesions of one scan that the program located.

    Attributes
    ----------
    centres : ndarray, shape (M, 3)
        Native RAS mm; where the slice of the commissure is counted, of the cross-sections with it.
    numbers : ndarray, shape (M,)
        In the table of lesions.
    score : ndarray, shape (M,)
        How sure of each the program is.
    """

    centres: FloatArray
    numbers: FloatArray
    score: FloatArray


@dataclass(frozen=True)
class MarkedScan:
    """One scan with what people marked and what the program located.

    Attributes
    ----------
    marked : ndarray, shape (N, 3)
        Native RAS mm: centres, or, where the slice of the commissure is counted, those of the cross-sections with it.
    located : Located
    grid_from_native : ndarray, shape (4, 4), or None
        Native RAS mm to voxel of the prepared grid; None where the scan was not prepared.
    counted : bool
        Whether the scan has a count.
    """

    key: str
    subject: str
    marked: FloatArray
    located: Located
    grid_from_native: FloatArray | None
    counted: bool


@dataclass(frozen=True)
class LesionRow:
    """A pair, a marked lesion that was not located, or a located one that is none: one row of the table of lesions."""

    scan: str
    outcome: Outcome
    point: int | None
    lesion: int | None
    distance: float | None
    score: float | None
    x_mm: float
    y_mm: float
    z_mm: float


@dataclass(frozen=True)
class ScanOutcome:
    """Lesions of one scan: numbers, rows, and by how many pairs each located one lets the matching grow."""

    scan: MarkedScan
    figures: MatchFigures
    rows: tuple[LesionRow, ...]
    hits: FloatArray


def outcome_of(scan: MarkedScan, reach: Reach) -> ScanOutcome:
    """Match the lesions of one scan one to one: as many pairs in reach as can be, of the least total distance."""
    marked, located = (_placed(scan, points, reach) for points in (scan.marked, scan.located.centres))
    pairs = match_lesions(marked, located, reach.radius)
    partner = {
        int(found): (int(true), float(d))
        for true, found, d in zip(pairs.true, pairs.found, pairs.distance, strict=True)
    }
    rows = [
        _row(scan, "true_positive" if n in partner else "false_positive", partner.get(n, (None, None)), n)
        for n in range(len(located))
    ]
    rows += [
        _row(scan, "false_negative", (n, None), None)
        for n in range(len(marked))
        if n not in set(map(int, pairs.true))
    ]
    return ScanOutcome(
        scan,
        MatchFigures(len(marked), len(located), len(pairs.true)),
        tuple(rows),
        entering_hits(marked, located, scan.located.score, reach.radius),
    )


def _placed(scan: MarkedScan, points: FloatArray, reach: Reach) -> FloatArray:
    """Points in the unit of the reach; a scan that was not prepared has no located lesion to be near to."""
    if scan.grid_from_native is None and reach.unit == "voxels" and len(scan.located.centres):
        raise ConfigError(
            f"scan {scan.key!r}: has lesions and no grid_from_native in the table of counts, so voxels of its prepared "
            "grid are not known",
            hint="count the scans again, or give the distance in mm",
        )
    if reach.unit == "mm" or scan.grid_from_native is None:
        return points
    return apply_affine(scan.grid_from_native, points)


def _row(
    scan: MarkedScan,
    outcome: Outcome,
    pair: tuple[int | None, float | None],
    located: int | None,
) -> LesionRow:
    point, distance = pair
    place = (
        scan.located.centres[located]
        if located is not None
        else scan.marked[point if point is not None else 0]
    )
    return LesionRow(
        scan=scan.key,
        outcome=outcome,
        point=None if point is None else point + 1,
        lesion=None if located is None else int(scan.located.numbers[located]),
        distance=distance,
        score=None if located is None else float(scan.located.score[located]),
        x_mm=float(place[0]),
        y_mm=float(place[1]),
        z_mm=float(place[2]),
    )


def numbers_by_scan(
    lesions: pd.DataFrame, keys: Collection[str], columns: Sequence[str], table: str = "the table of lesions"
) -> dict[str, FloatArray]:
    """Columns of a table of lesions as numbers, (M, C), by scan, in the order of the table.

    Parameters
    ----------
    keys : collection of str
        Scans that are wanted; those without a lesion are not in the result.
    table : str
        What an error calls the table.

    Raises
    ------
    ConfigError
        A number is not known, or not finite.

    >>> two = pd.DataFrame({"scan": ["b", "a", "b"], "lesion": [1, 1, 2], "x_mm": [0.5, 1.5, 2.5]})
    >>> {scan: rows.tolist() for scan, rows in numbers_by_scan(two, ["b"], ["x_mm"]).items()}
    {'b': [[0.5], [2.5]]}
    """
    wanted = lesions[lesions["scan"].isin(set(keys))]
    values = wanted[list(columns)].to_numpy(dtype=np.float64)
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        scan, lesion = wanted["scan"].iloc[row], wanted["lesion"].iloc[row]
        raise ConfigError(
            f"scan {str(scan)!r}, lesion {lesion}: {columns[column]} is {values[row, column]} in {table}; a finite "
            "number is legal",
            hint="count the scan again, or reject it: --decisions",
        )
    if wanted.empty:
        return {}
    # In one pass: a slice of the table for each of thousands of scans takes most of the time of an evaluation.
    of_scan, names = pd.factorize(wanted["scan"])
    order = np.argsort(of_scan, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(of_scan, minlength=len(names)))[:-1])
    return {str(name): part for name, part in zip(names, parts, strict=True)}


def located_by_scan(
    lesions: pd.DataFrame, keys: Collection[str], target: CountTarget, score: Score
) -> Mapping[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Centres (M, 3) in native RAS mm, numbers and scores of the located lesions of some scans, by scan.

    Where the slice of the commissure is counted, they are the lesions that touch it, at the middle of their
    cross-section.

    Raises
    ------
    ConfigError
        A centre or a score is not known.
    """
    chosen = lesions[lesions["in_ac_slice"].eq(True)] if target == "ac_slice" else lesions
    found = numbers_by_scan(chosen, keys, [*CENTRES[target], "lesion", score])
    return {key: (values[:, :3], values[:, 3], values[:, 4]) for key, values in found.items()}


@dataclass(frozen=True)
class Lesions:
    """Lesions of a set of scans against what people marked."""

    outcomes: tuple[ScanOutcome, ...]

    @property
    def marks(self) -> Marks:
        """Located lesions of all scans by score."""
        return marks_of(
            [n for n, each in enumerate(self.outcomes) for _ in each.hits],
            [value for each in self.outcomes for value in each.scan.located.score],
            [value for each in self.outcomes for value in each.hits],
            [each.figures.true for each in self.outcomes],
        )

    @property
    def subjects(self) -> list[str]:
        """Of each scan."""
        return [each.scan.subject for each in self.outcomes]

    def curve(self) -> pd.DataFrame:
        """The free-response curve: threshold, sensitivity and false marks a scan."""
        curve = curve_of(self.marks, np.ones((1, len(self.outcomes))))
        return pd.DataFrame(
            {
                "threshold": curve.threshold,
                "sensitivity": curve.sensitivity[0],
                "false_positives_per_scan": curve.false_marks[0],
            }
        )

    def table(self) -> pd.DataFrame:
        """Every pair, missed and false lesion, in the order of the scans."""
        rows = [vars(row) for each in self.outcomes for row in each.rows]
        table = pd.DataFrame(rows, columns=list(LesionRow.__dataclass_fields__))
        return table.astype({"point": "Int32", "lesion": "Int32", "distance": "Float64", "score": "Float64"})


def lesion_figures(outcomes: Sequence[ScanOutcome], weights: FloatArray) -> Mapping[str, FloatArray]:
    """Figures on lesions under weights of the scans, shape (R, N), each of shape (R,); not a number where undefined.

    sensitivity (TPR), false_discovery_rate (FDR) and f1 are over all lesions in one sum, false_positives_per_scan
    (FPav of the paper's Table 1) over all scans; mean_sensitivity is the mean over scans with lesions, mean_f1 that
    over scans with lesions or marks (as in the VALDO challenge), mean_false_discovery_rate that
    over scans with marks; absolute_count_difference, VALDO's other measure, is the mean over counted scans of the
    difference between located and marked lesions.
    """
    true, found, matched = (
        np.array([getattr(each.figures, name) for each in outcomes], dtype=np.float64)
        for name in ("true", "found", "matched")
    )
    counted = np.array([each.scan.counted for each in outcomes], dtype=np.float64)
    pooled_true, pooled_found, pooled = weights @ true, weights @ found, weights @ matched
    return {
        "sensitivity": _share(pooled, pooled_true),
        "false_discovery_rate": _share(pooled_found - pooled, pooled_found),
        "false_positives_per_scan": (pooled_found - pooled) / weights.sum(axis=1),
        "f1": _share(2.0 * pooled, pooled_true + pooled_found),
        "mean_sensitivity": _mean(weights, matched, true),
        "mean_false_discovery_rate": _mean(weights, found - matched, found),
        "mean_f1": _mean(weights, 2.0 * matched, true + found),
        "absolute_count_difference": _share(weights @ (np.abs(found - true) * counted), weights @ counted),
    }


def scans_of_means(outcomes: Sequence[ScanOutcome]) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Of which scans the figures that leave some out are means, shape (N,): as `lesion_figures` defines them."""
    true, found = (
        np.array([getattr(each.figures, name) for each in outcomes], dtype=np.intp)
        for name in ("true", "found")
    )
    return {
        "mean_sensitivity": true > 0,
        "mean_false_discovery_rate": found > 0,
        "mean_f1": true + found > 0,
        "absolute_count_difference": np.array([each.scan.counted for each in outcomes], dtype=bool),
    }


def lesion_estimator(lesions: Lesions, limit: float) -> Figures:
    """All figures on lesions, those of the curve among them, for `resamples.estimates`."""
    marks = lesions.marks

    def figures(weights: FloatArray) -> Mapping[str, FloatArray]:
        return {**lesion_figures(lesions.outcomes, weights), **froc_figures(marks, weights, limit)}

    return figures


def _share(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _mean(weights: FloatArray, above: FloatArray, below: FloatArray) -> FloatArray:
    """Weighted mean over scans of a share, over those where it is defined."""
    defined = (below > 0).astype(np.float64)
    share = above / np.where(below > 0, below, 1.0)
    return _share(weights @ (share * defined), weights @ defined)
