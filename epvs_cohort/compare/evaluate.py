"""A table of counts against people's counts, their marks and a second visit: every figure with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from epvs_cohort.compare.covariates import Grouped, covariates_of, grouped_by
from epvs_cohort.compare.figures import (
    FigureRows,
    comparison_rows,
    difference_rows,
    figure_table,
    group_rows,
    lesion_rows,
)
from epvs_cohort.compare.groups import Grouping
from epvs_cohort.compare.marked import Lesions, Located, MarkedScan, Reach, Score, located_by_scan, outcome_of
from epvs_cohort.compare.readers import Comparison, ReaderCounts, comparisons, reading_name, rivalries
from epvs_cohort.compare.resamples import Drawing
from epvs_cohort.compare.second_visit import SECOND, SecondVisit, Visits, second_visit, visit_rows
from epvs_cohort.compare.sheet import (
    Note,
    decision_notes,
    lacking,
    scan_sheet,
    sheet_notes,
    status_notes,
    strangers,
)
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.manifest import Table
from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.geometry import FloatArray
from epvs_cohort.protocol import CountTarget

#: Up to how many false marks a scan the area under the free-response curve reaches.
FROC_LIMIT: Final = 2.0
#: Words for count targets.
TARGETS: Final[Mapping[CountTarget, str]] = {
    "roi": "the whole region of interest",
    "ac_slice": "the slice of the anterior commissure",
}


@dataclass(frozen=True)
class EvaluateSettings:
    """How a table is evaluated.

    Attributes
    ----------
    count_target : {"roi", "ac_slice"}, optional
        What the readers counted and marked; None takes the table's word, and says so.
    reach : Reach
        How near a located lesion must lie to a marked one.
    visit_reach : Reach
        How near lesions of two visits must lie in MNI space, where what both registrations differ by comes on top.
    score : str
        Column of the table of lesions that orders marks for the free-response curve.
    froc_limit : float
        False marks a scan that the area under the curve reaches to.
    groupings : tuple of Grouping
    without_flagged : bool
    all_marked : bool
        Every scan that readers counted was marked too: one without points has no lesion.

    Raises
    ------
    UsageError
        ``froc_limit`` is not finite, or not above 0.
    """

    count_target: CountTarget | None = None
    reach: Reach = field(default_factory=Reach)
    visit_reach: Reach = field(default_factory=Reach)
    score: Score = "peak_heat"
    froc_limit: float = FROC_LIMIT
    groupings: tuple[Grouping, ...] = ()
    without_flagged: bool = False
    all_marked: bool = False
    drawing: Drawing = field(default_factory=Drawing)

    def __post_init__(self) -> None:
        """Check the limit."""
        if not (np.isfinite(self.froc_limit) and self.froc_limit > 0):
            raise UsageError(
                f"--froc-limit {self.froc_limit:g}: a finite number of false marks a scan above 0 is legal"
            )


@dataclass(frozen=True)
class EvaluateInput:
    """What is compared.

    Attributes
    ----------
    cohort : Cohort
        The tables that `run` wrote.
    readers : ReaderCounts
    points : mapping of str to ndarray, shape (N, 3), optional
        Marked lesions by scan, native RAS mm; where the slice is counted, the middles of cross-sections.
    rescan : Cohort, optional
        The tables of a second visit, with ``rescan_pairs`` where keys and subjects do not tell the pairs.
    """

    cohort: Cohort
    readers: ReaderCounts
    points: Mapping[str, FloatArray] | None = None
    rescan: Cohort | None = None
    rescan_pairs: tuple[tuple[str, str], ...] | None = None
    decisions: Mapping[str, Decision] | None = None
    participants: Table | None = None


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes
    ----------
    about : mapping
        Program, protocol, model and the rest that the table of counts carries.
    notes : tuple of Note
        What is to be said by name.
    figures : DataFrame
        Columns `figures.FIGURE_COLUMNS`: one row a figure.
    scans : DataFrame
        Index scan: what entered for each scan, and why some did not.
    comparisons : tuple of Comparison
        Counts that were compared, the machine with its reference first.
    reference : str
    origins : tuple of str
        Scanners of the scans and the notes of their reading, each once.
    lesions : Lesions or None
    second : SecondVisit or None
    """

    about: Mapping[str, Any]
    settings: EvaluateSettings
    notes: tuple[Note, ...]
    figures: pd.DataFrame
    scans: pd.DataFrame
    comparisons: tuple[Comparison, ...]
    reference: str
    origins: tuple[str, ...]
    lesions: Lesions | None
    second: SecondVisit | None


@dataclass
class _Work:
    given: EvaluateInput
    settings: EvaluateSettings
    sheet: pd.DataFrame
    notes: list[Note]
    rows: FigureRows = field(default_factory=list)

    @property
    def target(self) -> CountTarget:
        target: CountTarget = self.given.cohort.about["count_target"]
        return target

    def subjects(self, keys: Iterable[str]) -> list[str]:
        return [str(subject) for subject in self.sheet.loc[list(keys), "subject"]]


def check_target(cohort: Cohort, asked: CountTarget | None) -> Note | None:
    """Check that a table counts what readers counted; a note where only the table's word is there to go by.

    Raises
    ------
    ConfigError
        They differ.
    """
    own: CountTarget = cohort.about["count_target"]
    if asked is None:
        return Note(
            f"the readers' counts are taken to be of {TARGETS[own]} ({own}), as the table's: --count-target says what "
            "readers counted"
        )
    if asked != own:
        raise ConfigError(
            f"the readers' counts are of {TARGETS[asked]} ({asked}), the table's of {TARGETS[own]} ({own}): they are "
            "never compared",
            hint=f"count the scans with a protocol of count target {asked}, or give the readers' counts of {own}",
        )
    return None


def evaluate(given: EvaluateInput, settings: EvaluateSettings) -> Evaluation:
    """Evaluate a table of counts.

    Raises
    ------
    ConfigError
        Count targets differ, or tables do not go together.
    UsageError
        A column to group by is unknown, or too few scans are left.
    """
    asked = check_target(given.cohort, settings.count_target)
    sheet = _sheet(given.cohort, given, settings)
    notes = [asked] if asked is not None else []
    notes += _unfinished(given.cohort)
    visits = None
    if given.rescan is not None:
        visits = Visits(given.cohort, given.rescan, sheet, _sheet(given.rescan, given, settings))
    other = None if visits is None or visits.one_table else visits.second_sheet
    notes += decision_notes(sheet, other, given.decisions) + sheet_notes(sheet)
    counted = [str(key) for key in given.readers.table.index]
    notes += strangers(sheet, counted, "count by a reader") + lacking(sheet, counted, "count by a reader")
    if later := given.readers.later():
        notes.append(Note("counted by a reader without a first reading: the lowest there is is taken", later))
    covariates, unmatched = covariates_of(given.cohort, sheet, given.participants)
    grouped = grouped_by(covariates, sheet, settings.groupings)
    work = _Work(given, settings, sheet, notes + unmatched)
    compared = _counts(work, grouped)
    lesions = None if given.points is None else _lesions(work, given.points, grouped)
    visit = None if visits is None else _second(work, visits)
    return Evaluation(
        about=given.cohort.about,
        settings=settings,
        notes=tuple(work.notes),
        figures=figure_table(work.rows),
        scans=scan_table(sheet, given.readers, compared[0].scans, lesions),
        comparisons=tuple(compared),
        reference=given.readers.reference,
        origins=_origins(given.cohort.scans),
        lesions=lesions,
        second=visit,
    )


def _unfinished(cohort: Cohort) -> list[Note]:
    if cohort.finished:
        return []
    left = cohort.n_asked - len(cohort.scans)
    return [Note(f"the run is not finished: {left} scans have no row yet, and are in no figure")]


def _sheet(cohort: Cohort, given: EvaluateInput, settings: EvaluateSettings) -> pd.DataFrame:
    return scan_sheet(cohort.scans, given.decisions, without_flagged=settings.without_flagged)


def _origins(scans: pd.DataFrame) -> tuple[str, ...]:
    notes = (note for cell in scans["notes"] if cell is not None for note in cell)
    return tuple(dict.fromkeys([*scans["scanner"].dropna(), *notes]))


def _counts(work: _Work, grouped: Sequence[Grouped]) -> list[Comparison]:
    sheet, readers, drawing = work.sheet, work.given.readers, work.settings.drawing
    inside = sheet[sheet["excluded"] == ""]
    # Scans that the machine has no count of stay: readers are compared on them with one another.
    machine = inside["count"].where(inside["uncounted"] == "")
    compared = comparisons(machine, readers)
    foremost = compared[0]
    if len(foremost.scans) < 2:
        raise UsageError(
            f"{len(foremost.scans)} scans are counted by the program and by a reader, and not left out; at least 2 "
            "are needed"
        )
    for each in compared:
        if not each.scans:
            work.notes.append(Note(f"no scan was counted by both {' and '.join(each.names)}"))
        work.rows += comparison_rows(each, work.subjects(each.scans), drawing)
    for rivalry in rivalries(machine, readers):
        work.rows += difference_rows(rivalry, work.subjects(rivalry.scans), drawing)
    work.rows += group_rows(foremost, work.subjects(foremost.scans), grouped, drawing)
    return compared


def _lesions(work: _Work, points: Mapping[str, FloatArray], grouped: Sequence[Grouped]) -> Lesions:
    settings = work.settings
    keys = _marked_keys(work, points)
    located_lesions = located_by_scan(work.given.cohort.lesions, keys, work.target, settings.score)
    grids = work.given.cohort.scans.set_index(work.sheet.index)["grid_from_native"]
    none = (np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    outcomes = []
    for key in keys:
        counted, subject = not work.sheet.at[key, "uncounted"], str(work.sheet.at[key, "subject"])
        scan = MarkedScan(
            key,
            subject,
            points.get(key, none[0]),
            Located(*located_lesions.get(key, none)),
            _grid(grids[key]),
            counted,
        )
        outcomes.append(outcome_of(scan, settings.reach))
    lesions = Lesions(tuple(outcomes))
    uncounted = [each for each in outcomes if not each.scan.counted]
    if missed := tuple(each.scan.key for each in uncounted if not each.figures.found):
        work.notes.append(Note("marked, but without a count: their lesions count as missed", missed))
    if located := tuple(each.scan.key for each in uncounted if each.figures.found):
        work.notes.append(
            Note("marked, and without a count, but with located lesions, which are compared", located)
        )
    if odd := _miscounted(keys, points, work.given.readers.table):
        work.notes.append(
            Note("another number of marks than any reader counted; they are taken as they are", odd)
        )
    empty = tuple(each.scan.key for each in outcomes if each.figures.true == 0)
    if empty:
        work.notes.append(Note("marked as without lesions: the mean sensitivity leaves them out", empty))
    work.rows += lesion_rows(lesions, grouped, settings.froc_limit, settings.drawing)
    return lesions


def _miscounted(
    keys: Sequence[str], points: Mapping[str, FloatArray], counts: pd.DataFrame
) -> tuple[str, ...]:
    """Marked scans whose marks are more than one off every reader's count."""
    known = counts.reindex([key for key in keys if key in points])
    marks = pd.Series({key: len(points[key]) for key in known.index}, dtype="float64")
    off = known.sub(marks, axis="index").abs().min(axis="columns")
    return tuple(str(key) for key in off.index[off > 1.0])


def _marked_keys(work: _Work, points: Mapping[str, FloatArray]) -> list[str]:
    """Scans of which it is known what lesions people marked: those with points, and those said to have none."""
    work.notes += strangers(work.sheet, points, "marked lesion")
    counts = work.given.readers.table
    none = set(
        counts.index if work.settings.all_marked else counts.index[counts.fillna(0.0).eq(0.0).all(axis=1)]
    )
    asked = [str(key) for key in work.sheet.index[work.sheet["excluded"] == ""]]
    marked = [key for key in asked if key in points or key in none]
    if not marked:
        raise UsageError("--points: no scan that is marked is left")
    if unmarked := tuple(key for key in asked if key not in set(marked)):
        why = "no point marked there, though not every reader is known to have counted 0"
        if work.settings.all_marked:
            why = "neither a point nor a count by a reader there"
        work.notes.append(Note(f"in no figure on lesions: {why}", unmarked))
    return marked


def _grid(cell: object) -> FloatArray | None:
    """Matrix of a cell of 16 numbers; None where it is null."""
    if not isinstance(cell, np.ndarray | list):
        return None
    return np.asarray(cell, dtype=np.float64).reshape(4, 4)


def _second(work: _Work, visits: Visits) -> SecondVisit:
    visit = second_visit(visits, work.given.rescan_pairs, work.settings.visit_reach)
    own = [] if visits.one_table else _unfinished(visits.second) + status_notes(visits.second_sheet)
    work.notes += [Note(f"{SECOND}: {note.words}", note.names) for note in (*own, *visit.notes)]
    work.rows += visit_rows(visit, work.subjects(visit.counts.scans), work.settings.drawing)
    return visit


def scan_table(
    sheet: pd.DataFrame, readers: ReaderCounts, used: Iterable[str], lesions: Lesions | None
) -> pd.DataFrame:
    """One row a scan: what it entered with, and why it did not.

    Returns
    -------
    DataFrame
        Columns scan, subject, session, status, flags, decision, count, left_out (empty where it is in the figures on
        counts), a column for each reading, mean_of_readers, and, where lesions were marked, lesions_marked,
        lesions_located, lesions_matched (null where it is in no figure on lesions).
    """
    table = sheet[["subject", "session", "status", "flags", "decision", "count"]].copy()
    reasons = sheet["excluded"].where(sheet["excluded"] != "", sheet["uncounted"])
    inside = sheet.index.isin(list(used))
    table["left_out"] = reasons.where(inside | (reasons != ""), "no count by a reader")
    for name in readers.readers:
        for number in readers.numbers(name):
            table[f"count by {reading_name(name, number)}"] = readers.of(name, number).reindex(sheet.index)
    table["mean_of_readers"] = readers.mean().reindex(sheet.index)
    if lesions is not None:
        for column, name in (("marked", "true"), ("located", "found"), ("matched", "matched")):
            values = {each.scan.key: getattr(each.figures, name) for each in lesions.outcomes}
            table[f"lesions_{column}"] = pd.array(
                [values.get(str(key)) for key in sheet.index], dtype="Int32"
            )
    return table.reset_index()
