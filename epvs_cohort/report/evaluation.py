"""The page of an evaluation: how counts and lesions agree with what people counted and marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from epvs_cohort.compare.bootstrap import Estimate
from epvs_cohort.compare.evaluate import TARGETS, Evaluation
from epvs_cohort.compare.figures import THIRDS
from epvs_cohort.compare.matching import pool_matches
from epvs_cohort.compare.readers import Comparison
from epvs_cohort.data.files import write_whole
from epvs_cohort.report.evaluation_charts import Drawn, bland_altman, file_names, froc, scatter, standalone
from epvs_cohort.report.page import Table, render
from epvs_cohort.simulate.bids import MANUFACTURER, STATEMENT

PAGE_FILE: Final = "evaluation.html"
FIGURES_FOLDER: Final = "figures"
#: Names of one note that are on the page; the record holds all.
MOST_NAMED: Final = 200

#: Columns of tables: head, figure, decimals.
_AGREEMENT: Final = (
    ("ICC(A,1)", "icc_a1", 3),
    ("ICC(C,1)", "icc_c1", 3),
    ("ICC(A,k)", "icc_ak", 3),
    ("ICC(C,k)", "icc_ck", 3),
)
_ERRORS: Final = (
    ("bias", "bias", 2),
    ("limits of agreement", "loa", 2),
    ("mean absolute", "mae", 2),
    ("MSE", "mse", 2),
)
_LINES: Final = (
    ("Pearson's r", "pearson", 3),
    ("Spearman's ρ", "spearman", 3),
    ("R²", "r2", 3),
    ("slope", "slope", 3),
)
_PAIR_TABLES: Final = {"agreement": _AGREEMENT, "differences": _ERRORS, "correlation": _LINES}
_OF_GROUPS: Final = (*_AGREEMENT[:2], *_ERRORS[:3])
_OF_THIRDS: Final = (_ERRORS[0], _ERRORS[2])
_LESIONS: Final = (
    ("Sensitivity (TPR): part of the marked lesions found", "sensitivity", 3),
    ("False discovery rate (FDR): part of the located ones that are none", "false_discovery_rate", 3),
    ("False marks a scan (FPav)", "false_positives_per_scan", 2),
    ("F1", "f1", 3),
    ("Mean sensitivity, over scans with lesions", "mean_sensitivity", 3),
    ("Mean false discovery rate, over scans with located lesions", "mean_false_discovery_rate", 3),
    ("Mean F1, over scans with either", "mean_f1", 3),
    ("Mean absolute difference of located and marked numbers", "absolute_count_difference", 2),
    ("Area under the free-response curve", "froc_area", 3),
    ("Sensitivity at 0.25 false marks a scan", "sensitivity_at_0.25", 3),
    ("at 0.5", "sensitivity_at_0.5", 3),
    ("at 1", "sensitivity_at_1", 3),
    ("at 2", "sensitivity_at_2", 3),
)
_LESIONS_BY: Final = (
    ("sensitivity", "sensitivity", 3),
    ("false discovery rate", "false_discovery_rate", 3),
    ("false marks a scan", "false_positives_per_scan", 2),
    ("F1", "f1", 3),
)
_PAIRS: Final = (
    ("Found again: part of the first visit's lesions with a partner", "found_again", 3),
    ("Found before: part of the second visit's", "found_before", 3),
    ("Lesion agreement: twice the partners over all lesions of both", "lesion_agreement", 3),
    ("Mean distance of partners, MNI mm", "mean_distance_mm", 2),
)


@dataclass(frozen=True)
class _Part:
    """Figures of one comparison: by name, and of how many scans."""

    first: str
    second: str
    group: str
    figures: dict[str, Estimate]
    scans: int
    sign: str

    @property
    def words(self) -> str:
        return self.group or f"{self.first} {self.sign} {self.second}"


@dataclass(frozen=True)
class _Parts:
    """The table of figures by what they are of: kind and covariate, in the order of the table."""

    of: Mapping[tuple[str, str], list[_Part]]

    @classmethod
    def read(cls, table: pd.DataFrame) -> _Parts:
        found: dict[tuple[str, str], dict[tuple[str, str, str], _Part]] = {}
        for row in table.to_dict("records"):
            first, second, group = str(row["first"]), str(row["second"]), str(row["group"])
            sign = "minus" if row["kind"] == "difference" else "–"
            parts = found.setdefault((str(row["kind"]), str(row["by"])), {})
            part = parts.setdefault(
                (first, second, group), _Part(first, second, group, {}, int(row["scans"]), sign)
            )
            value, low, high = (float(row[name]) for name in ("value", "low", "high"))
            known = None if np.isnan(low) else low
            part.figures[str(row["figure"])] = Estimate(value, known, high)
        return cls({what: list(parts.values()) for what, parts in found.items()})

    def chosen(self, *kinds: str, by: str = "") -> list[_Part]:
        return [part for kind in kinds for part in self.of.get((kind, by), [])]

    def compared(self, comparison: Comparison) -> Mapping[str, Estimate]:
        first, second = comparison.names
        parts = self.chosen(comparison.kind)
        return next(part.figures for part in parts if (part.first, part.second) == (first, second))


def write_evaluation_page(out: Path, evaluation: Evaluation, inputs: Mapping[str, str]) -> Path:
    """Write the page, which needs no other file, and each chart as an SVG file.

    Parameters
    ----------
    out : Path
        Folder of the evaluation; charts go to ``figures``.
    inputs : mapping of str to str
        Options and the files they named.

    Returns
    -------
    Path
        The page.
    """
    parts = _Parts.read(evaluation.figures)
    content = _content(evaluation, parts, inputs)
    folder = out / FIGURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    charts: list[Drawn] = [
        *content["count_charts"],
        *content["reader_charts"],
        *content["lesion_charts"],
        *content["visit_charts"],
    ]
    for stale in {path.name for path in folder.glob("*.svg")} - {f"{each.name}.svg" for each in charts}:
        (folder / stale).unlink()
    for each in charts:
        write_whole(folder / f"{each.name}.svg", standalone(each.svg).encode())
    page = out / PAGE_FILE
    write_whole(page, render("evaluation.html", content).encode())
    return page


def _content(evaluation: Evaluation, parts: _Parts, inputs: Mapping[str, str]) -> dict[str, Any]:
    foremost, *others = evaluation.comparisons
    pairs = [each for each in others if len(each.names) == 2 and len(each.scans) > 1]
    machine, readers = parts.chosen("machine"), parts.chosen("inter-reader", "intra-reader")
    return {
        "name": Path(inputs["table"]).name,
        "simulated": is_simulated(evaluation),
        "subtitle": _subtitle(evaluation, foremost),
        "tiles": _tiles(evaluation, parts, foremost),
        "about": _about(evaluation, inputs),
        "notes": [_note(note.text, note.names) for note in evaluation.notes],
        "reference": evaluation.reference,
        "counts": _tables("Machine and readers", machine, _PAIR_TABLES),
        "count_charts": _pair_charts(foremost, parts.compared(foremost), file_names([foremost])[0]),
        "readers": [
            *_tables("Readers with one another and themselves", readers, _PAIR_TABLES),
            *_tables("All readers together", parts.chosen("all readers"), {"": _AGREEMENT}),
        ],
        "differences": _tables("Difference of agreement", parts.chosen("difference"), {"": _AGREEMENT}),
        "reader_charts": [
            drawn
            for name, each in zip(file_names([foremost, *pairs])[1:], pairs, strict=True)
            for drawn in _pair_charts(each, parts.compared(each), name)
        ],
        "groups": _groups(parts),
        "thirds": _tables(
            "Errors by thirds of the count", parts.chosen("machine", by=THIRDS), {"": _OF_THIRDS}
        ),
        "resamples": evaluation.settings.drawing.n_resamples,
        **_lesion_content(evaluation, parts),
        **_visit_content(evaluation, parts),
    }


def _lesion_content(evaluation: Evaluation, parts: _Parts) -> dict[str, Any]:
    settings, lesions = evaluation.settings, evaluation.lesions
    found: dict[str, Any] = {
        "lesions": None,
        "lesion_charts": [],
        "reach": settings.reach.words,
        "score": settings.score.replace("_", " "),
        "limit": f"{settings.froc_limit:g}",
        "target": evaluation.about["count_target"],
    }
    if lesions is not None:
        total = pool_matches([each.figures for each in lesions.outcomes])
        caption = (
            f"{total.true} marked and {total.found} located lesions of {len(lesions.outcomes)} scans, {total.matched} "
            "of them pairs"
        )
        found["lesions"] = _list(caption, parts.chosen("lesions")[0], _LESIONS)
        if total.true:
            words = _froc_words(parts, settings.froc_limit)
            found["lesion_charts"] = [froc(lesions, settings.froc_limit, words)]
    return found


def _visit_content(evaluation: Evaluation, parts: _Parts) -> dict[str, Any]:
    visit = evaluation.second
    if visit is None:
        return {"visit": [], "visit_charts": [], "visit_lesions": None, "how_paired": "", "visit_reach": ""}
    first, second = (sum(getattr(each, name) for each in visit.lesions) for name in ("first", "second"))
    caption = f"{first} lesions of the first and {second} of the second visits of {len(visit.keys)} pairs"
    return {
        "visit": _tables("Second and first visit", parts.chosen("rescan"), _PAIR_TABLES),
        "visit_charts": _pair_charts(visit.counts, parts.compared(visit.counts), "rescan"),
        "visit_lesions": _list(caption, parts.chosen("rescan lesions")[0], _PAIRS),
        "how_paired": visit.how,
        "visit_reach": evaluation.settings.visit_reach.words,
    }


def is_simulated(evaluation: Evaluation) -> bool:
    """Whether scans of the table come from the simulator, as their scanner or a note says."""
    return any(words.startswith(f"{MANUFACTURER} ") or words == STATEMENT for words in evaluation.origins)


def _subtitle(evaluation: Evaluation, foremost: Comparison) -> str:
    scans = evaluation.scans
    target = TARGETS[evaluation.about["count_target"]]
    return (
        f"{len(scans)} scans in the table, {len(foremost.scans)} compared with counts by readers in {target}."
    )


def _tiles(evaluation: Evaluation, parts: _Parts, foremost: Comparison) -> list[dict[str, str]]:
    figures = parts.compared(foremost)
    scans = f"with {evaluation.reference}, {len(foremost.scans)} scans"
    tiles = [
        _tile("ICC(A,1) of counts", figures, "icc_a1", 3, scans),
        _tile("Bias", figures, "bias", 2, f"lesions a scan, machine minus {evaluation.reference}"),
        _tile("Mean absolute error", figures, "mae", 2, "lesions a scan"),
    ]
    for part in parts.chosen("lesions"):
        within = f"within {evaluation.settings.reach.words}"
        tiles.append(_tile("Lesions found", part.figures, "sensitivity", 3, within))
        tiles.append(
            _tile("Marks that are none", part.figures, "false_discovery_rate", 3, "false discovery rate")
        )
    for part in parts.chosen("rescan"):
        tiles.append(_tile("ICC(A,1) of two visits", part.figures, "icc_a1", 3, f"{part.scans} pairs"))
    return tiles


def _tile(name: str, figures: Mapping[str, Estimate], figure: str, digits: int, more: str) -> dict[str, str]:
    estimate = figures[figure]
    value = "–" if np.isnan(estimate.value) else _number(estimate.value, digits)
    return {"name": name, "value": value, "interval": _span(estimate, digits), "more": more}


def _about(evaluation: Evaluation, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
    about = evaluation.about
    model = about.get("model", {})
    said = [
        ("Model", f"{model.get('name', '')}, {about['model_id']}, method {about['method']}"),
        ("Trained on", about.get("trained_on", "")),
        ("Must not be used for", model.get("limits", "")),
        ("Protocol", f"{about['protocol'].get('name', '')}, {about['protocol_id']}"),
        ("Counted in", TARGETS[about["count_target"]]),
    ]
    files = [(name.replace("-", " ").capitalize(), value) for name, value in inputs.items()]
    return [(term, words) for term, words in [*files, *said] if words]


def _note(words: str, names: Sequence[str]) -> dict[str, Any]:
    more = len(names) - MOST_NAMED
    return {
        "words": words[:1].upper() + words[1:],
        "names": [*names[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])],
    }


def _tables(
    caption: str, chosen: Sequence[_Part], columns: Mapping[str, Sequence[tuple[str, str, int]]]
) -> list[Table]:
    """Figures as tables of some columns, one row each; columns that no row has are left out."""
    tables = []
    for name, own in columns.items() if chosen else ():
        kept = [column for column in own if any(_cell(part, *column[1:]) != "–" for part in chosen)]
        heads = ("group" if chosen[0].group else "compared", "scans", *(head for head, _, _ in kept))
        rows = [
            (part.words, str(part.scans), *(_cell(part, figure, digits) for _, figure, digits in kept))
            for part in chosen
        ]
        title = f"{caption}: {name}" if name else caption
        if kept:
            tables.append(Table(f"{title} as a table", title, heads, rows))
    return tables


def _list(caption: str, part: _Part, columns: Sequence[tuple[str, str, int]]) -> Table:
    """Figures of one comparison, a row each."""
    rows = [(head, _cell(part, figure, digits)) for head, figure, digits in columns]
    return Table(f"{caption} as a table", caption, ("figure", "value"), rows)


def _cell(part: _Part, figure: str, digits: int) -> str:
    """A figure with its interval; the limits of agreement together."""
    names = ("loa_low", "loa_high") if figure == "loa" else (figure,)
    found = [part.figures[name] for name in names if name in part.figures]
    if not found or any(np.isnan(each.value) for each in found):
        return "–"
    if figure == "loa":
        return " to ".join(_number(each.value, digits) for each in found)
    return interval_words(found[0], digits)


def interval_words(estimate: Estimate, digits: int) -> str:
    """A figure with its interval in brackets, where it has one.

    >>> interval_words(Estimate(0.5, -0.25, 1.0), 2)
    '0.50 (−0.25 to 1.00)'
    >>> interval_words(Estimate(0.5, -0.001, 1.0), 2)
    '0.50 (0.00 to 1.00)'
    """
    if np.isnan(estimate.value):
        return "not defined"
    span = _span(estimate, digits)
    return _number(estimate.value, digits) + (f" ({span})" if span else "")


def _span(estimate: Estimate, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{_number(estimate.low, digits)} to {_number(estimate.high, digits)}"


def _groups(parts: _Parts) -> list[dict[str, Any]]:
    columns = dict.fromkeys(by for _, by in parts.of if by not in ("", THIRDS))
    return [
        {
            "column": column,
            "tables": [
                *_tables(f"Counts by {column}", parts.chosen("machine", by=column), {"": _OF_GROUPS}),
                *_tables(f"Lesions by {column}", parts.chosen("lesions", by=column), {"": _LESIONS_BY}),
            ],
        }
        for column in columns
    ]


def _pair_charts(compared: Comparison, figures: Mapping[str, Estimate], name: str) -> list[Drawn]:
    agreement = f"{len(compared.scans)} scans, ICC(A,1) {interval_words(figures['icc_a1'], 3)}."
    limits = (
        f"Mean difference {interval_words(figures['bias'], 2)}, limits of agreement "
        f"{interval_words(figures['loa_low'], 2)} and {interval_words(figures['loa_high'], 2)}; the difference "
        f"changes by {interval_words(figures['slope_difference'], 3)} with each lesion of the mean."
    )
    return [scatter(name, compared, agreement), bland_altman(name, compared, figures, limits)]


def _froc_words(parts: _Parts, limit: float) -> str:
    figures = parts.chosen("lesions")[0].figures
    return (
        f"Mean sensitivity from 0 to {limit:g} false marks a scan: {interval_words(figures['froc_area'], 3)}. All "
        f"lesions of the table: {interval_words(figures['sensitivity'], 3)} found at "
        f"{interval_words(figures['false_positives_per_scan'], 2)} false marks a scan."
    )


def _number(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−")
