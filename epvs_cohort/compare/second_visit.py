"""A second visit of the same people: its table beside the first one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from epvs_cohort.compare.figures import FigureRows, What, comparison_rows, rows_of
from epvs_cohort.compare.marked import Reach
from epvs_cohort.compare.readers import Comparison
from epvs_cohort.compare.resamples import Drawing
from epvs_cohort.compare.rescan import (
    LesionPairs,
    Pairs,
    lesion_pair_figures,
    match_in_mni,
    mni_by_scan,
    pair_name,
    pair_scans,
)
from epvs_cohort.compare.sheet import Note
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.protocol import CountTarget

SECOND, FIRST = "second visit", "first visit"

#: What both visits should have been counted with alike.
_SAME: Final = ("model_id", "protocol_id", "method", "version")


@dataclass(frozen=True)
class Visits:
    """Tables of two visits, and the sheets of their scans (`sheet.scan_sheet`)."""

    first: Cohort
    second: Cohort
    first_sheet: pd.DataFrame
    second_sheet: pd.DataFrame

    @property
    def one_table(self) -> bool:
        """Whether both are the results of one run, which then holds both visits."""
        run = self.first.about.get("run_id")
        return run is not None and run == self.second.about.get("run_id")


@dataclass(frozen=True)
class SecondVisit:
    """Pairs of scans and what agrees in them.

    Attributes
    ----------
    how : str
        By what scans were paired.
    keys : tuple of (str, str)
        Of the pairs in which both scans have a count.
    counts : Comparison
        Counts of the second and of the first visit, in that order: differences are second minus first.
    lesions : tuple of LesionPairs
    notes : tuple of Note
    """

    how: str
    keys: tuple[tuple[str, str], ...]
    counts: Comparison
    lesions: tuple[LesionPairs, ...]
    notes: tuple[Note, ...]

    def table(self) -> pd.DataFrame:
        """One row a pair."""
        counts = self.counts.ratings
        return pd.DataFrame(
            {
                "scan": [key for key, _ in self.keys],
                "rescan": [other for _, other in self.keys],
                "count_first": counts[:, 1],
                "count_second": counts[:, 0],
                "lesions_first": [each.first for each in self.lesions],
                "lesions_second": [each.second for each in self.lesions],
                "lesions_matched": [each.matched for each in self.lesions],
            }
        )


def second_visit(visits: Visits, given: Sequence[tuple[str, str]] | None, reach: Reach) -> SecondVisit:
    """Pair the scans of two visits, and match their lesions in MNI space.

    Raises
    ------
    ConfigError
        The tables count different things.
    UsageError
        No pair has two counts of two images.
    """
    target = _target(visits)
    pairs = pair_scans(visits.first_sheet, visits.second_sheet, given, one_table=visits.one_table)
    keys, notes = _counted(visits, pairs)
    of_visits = ((FIRST, visits.first.lesions), (SECOND, visits.second.lesions))
    centres = [
        mni_by_scan(lesions, own, target, f"the table of lesions of the {visit}")
        for own, (visit, lesions) in zip(zip(*keys, strict=True), of_visits, strict=True)
    ]
    none = np.zeros((0, 3))
    spacing = visits.first.about["protocol"]["grid"]["spacing_mm"]
    lesions = tuple(
        match_in_mni(centres[0].get(a, none), centres[1].get(b, none), reach, spacing) for a, b in keys
    )
    ratings = np.array(
        [[visits.second_sheet.at[b, "count"], visits.first_sheet.at[a, "count"]] for a, b in keys],
        dtype=np.float64,
    )
    compared = Comparison("rescan", (SECOND, FIRST), tuple(a for a, _ in keys), ratings)
    return SecondVisit(pairs.how, keys, compared, lesions, (*_differences(visits), *pairs.notes, *notes))


def visit_rows(visit: SecondVisit, subjects: Sequence[str], drawing: Drawing) -> FigureRows:
    """Figures on counts and lesions of the pairs."""
    what = What("rescan lesions", SECOND, FIRST)
    return [
        *comparison_rows(visit.counts, subjects, drawing),
        *rows_of(what, subjects, lambda weights: lesion_pair_figures(visit.lesions, weights), drawing),
    ]


def _target(visits: Visits) -> CountTarget:
    first, second = (cohort.about["count_target"] for cohort in (visits.first, visits.second))
    if first != second:
        raise ConfigError(
            f"--rescan: its counts are of {second}, those of the first table of {first}: they are never compared"
        )
    target: CountTarget = first
    return target


def _differences(visits: Visits) -> list[Note]:
    """Settings that the two visits were not counted with alike."""
    pairs = {name: (visits.first.about.get(name), visits.second.about.get(name)) for name in _SAME}
    differ = tuple(f"{name}: {one} and {other}" for name, (one, other) in pairs.items() if one != other)
    words = (
        "the two visits were counted with different settings, so their agreement is not of the scans alone"
    )
    return [Note(words, differ)] if differ else []


def _counted(visits: Visits, pairs: Pairs) -> tuple[tuple[tuple[str, str], ...], list[Note]]:
    """Pairs of which no scan is left out, in which both have a count and the images are two."""
    images = [
        dict(zip(map(str, cohort.scans["scan"]), cohort.scans["input_sha256"], strict=True))
        for cohort in (visits.first, visits.second)
    ]
    kept, excluded, uncounted, same = [], [], [], []
    for pair in pairs.keys:
        if why := _reasons(visits, pair, "excluded"):
            excluded.append(f"{pair_name(pair)}: {why}")
        elif why := _reasons(visits, pair, "uncounted"):
            uncounted.append(f"{pair_name(pair)}: {why}")
        elif isinstance(images[0][pair[0]], str) and images[0][pair[0]] == images[1][pair[1]]:
            same.append(pair_name(pair))
        else:
            kept.append(pair)
    left_out = {
        "pairs left out, because a scan of the pair is left out": excluded,
        "pairs left out, because a scan of the pair has no count": uncounted,
        "pairs left out, because both are one image": same,
    }
    notes = [Note(words, tuple(names)) for words, names in left_out.items() if names]
    if len(kept) < 2:
        raise UsageError(
            f"--rescan: {len(kept)} pairs have two counts of two images; at least 2 are needed",
            hint="; ".join(f"{note.text}: {', '.join(note.names[:5])}" for note in notes),
        )
    return tuple(kept), notes


def _reasons(visits: Visits, pair: tuple[str, str], column: str) -> str:
    """What is wrong with the scans of a pair, each with its visit; empty where nothing is."""
    sheets = ((FIRST, visits.first_sheet), (SECOND, visits.second_sheet))
    found = [(visit, str(sheet.at[key, column])) for key, (visit, sheet) in zip(pair, sheets, strict=True)]
    return "; ".join(f"{visit}: {why}" for visit, why in found if why)
