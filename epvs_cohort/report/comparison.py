"""The page of a comparison of methods: table, free-response curves, differences, panels of some scans."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image as Pillow

from epvs_cohort.cohort.comparison import marked_scans
from epvs_cohort.compare.method_table import MEASURES, CurvePoint
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.data.files import write_whole
from epvs_cohort.data.names import shown
from epvs_cohort.data.store import folder_name
from epvs_cohort.protocol import Method
from epvs_cohort.report.charts import Axis, Series, Words, chart, linear_axis
from epvs_cohort.report.comparison_tables import (
    TABLES,
    UNLIKE_WORDS,
    Comparison,
    difference_rows,
    estimate_words,
    paper_words,
    statements,
    write_tables,
)
from epvs_cohort.report.page import render
from epvs_cohort.report.panels import NEAR_SLICES, examples, panel

PAGE_FILE: Final = "comparison.html"
PANELS_FOLDER: Final = "panels"

#: What a comparison may find in its folder and write anew.
WRITTEN: Final = frozenset(
    {
        PAGE_FILE,
        PANELS_FOLDER,
        "table.md",
        *(f"{name}.{kind}" for name in TABLES for kind in ("parquet", "csv")),
    }
)

#: Colours of methods in the style sheet; with more methods they come round again.
STYLES: Final = 10

#: The curves are shown up to this many times the false positives of the worst operating point.
_BEYOND: Final = 1.5


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write tables, panels and the page of a comparison.

    Parameters
    ----------
    folder : Path
        Created where it does not exist; files appear whole.
    comparison : Comparison

    Returns
    -------
    Path
        The page written, ``comparison.html``; it needs no other file and no network.

    Raises
    ------
    EpvsError
        A scan to be shown can no longer be read.
    """
    write_tables(folder, comparison)
    panels = _panels(folder / PANELS_FOLDER, comparison)
    text = render("comparison.html", _content(comparison, panels))
    write_whole(folder / PAGE_FILE, text.encode())
    return folder / PAGE_FILE


def _panels(folder: Path, comparison: Comparison) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = examples(comparison.scans)
    scans = {scan.key: scan for scan in marked_scans(comparison.order.parts.test, comparison.order.points)}
    drawn: list[dict[str, Any]] = []
    names: set[str] = set()
    for key in wanted:
        picture = panel(scans[key], comparison.trial)
        name = f"{folder_name(key)}.png"
        write_whole(folder / name, picture)
        names.add(name)
        with Pillow.open(io.BytesIO(picture)) as opened:
            width, height = opened.size
        words = f"{shown(key)}: {len(scans[key].points_mm)} true lesions"
        data = base64.b64encode(picture).decode("ascii")
        drawn.append({"words": words, "data": data, "width": width, "height": height})
    for stale in set(folder.glob("*.png")) - {folder / name for name in names}:
        stale.unlink()
    return drawn


def _content(comparison: Comparison, panels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    table = comparison.table
    return {
        "styles": STYLES,
        "statements": statements(comparison),
        "simulated": comparison.simulated,
        "heads": list(MEASURES.values()),
        "rows": [
            {
                "name": f"({row.method}) {METHODS[row.method].name}",
                "style": _style(row.method),
                "cells": [
                    _two_lines(estimate_words(measure, row.estimates[measure])) for measure in MEASURES
                ],
                "seconds": f"{row.seconds:.1f}",
                "paper": paper_words(row.method),
            }
            for row in table.rows
        ],
        "unlike": next((said for said in statements(comparison) if said.startswith(UNLIKE_WORDS)), ""),
        "reference": comparison.reference,
        "differences": [
            (row[0], [_two_lines(cell) for cell in row[1:]]) for row in difference_rows(comparison)
        ],
        "curves": _curves(comparison),
        "keys": [
            (_style(method), f"({method}) {METHODS[method].name}") for method in comparison.trial.methods
        ],
        "panels": panels,
        "near": f"{NEAR_SLICES:g}",
        "target": comparison.order.protocol.count_target,
    }


def _two_lines(words: str) -> tuple[str, str]:
    """An estimate and its interval, which is empty where there is none.

    >>> _two_lines("54.8 (50.0 to 60.0)"), _two_lines("54.8")
    (('54.8', '50.0 to 60.0'), ('54.8', ''))
    """
    value, _, interval = words.partition(" (")
    return value, interval.removesuffix(")")


def _style(method: Method) -> str:
    """Class of a method in the style sheet, by its place among all methods: the sheet need not know their letters."""
    return f"m-{list(METHODS).index(method) % STYLES}"


def _curves(comparison: Comparison) -> str:
    """Sensitivity over false positives a scan: a line a method, a ring where the count sets each scan's threshold."""
    table = comparison.table
    points = {
        row.method: (fpav.value, tpr.value)
        for row in table.rows
        if (fpav := row.estimates["fpav"]) is not None and (tpr := row.estimates["tpr"]) is not None
    }
    most = max(max((x for x, _ in points.values()), default=0.0) * _BEYOND, 1.0)
    x = linear_axis("false positives a scan (FPav)", [0.0, most], from_zero=True)
    y = Axis("sensitivity (TPR)", 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    series: list[Series] = []
    for method, curve in table.curves.items():
        series.append(Series(_within(curve, x.high), _style(method), "line"))
    for method, point in points.items():
        label = (
            f"({method}) {METHODS[method].name}: TPR {point[1]:.1%} at {point[0]:.2f} false positives a scan"
        )
        series.append(Series([point], f"ring {_style(method)}", "dots", [label]))
    said = "; ".join(
        f"({method}) {point[1]:.0%} at {point[0]:.1f} false positives a scan"
        for method, point in points.items()
    )
    words = Words(
        "froc",
        "Free-response curves",
        f"At the thresholds that the counts set: {said}. The tables hold the values."
        if points
        else "No test scan that could be used has a lesion, so that there is no sensitivity to show.",
    )
    return chart(words, x, y, series, (820, 480))


def _within(curve: Sequence[CurvePoint], most: float) -> list[tuple[float, float]]:
    """The highest sensitivity at up to so many false positives, by rising false positives.

    As a threshold falls components run together, so that false positives may become fewer again and lesions be lost.
    The line ends at the axis's end, or before it where no threshold was looked at that gives more false positives.
    """
    reached = sorted((point.fpav, point.tpr) for point in curve if point.tpr is not None)
    found: list[tuple[float, float]] = []
    for x, y in reached:
        if x <= most and (not found or y > found[-1][1]):
            found.append((x, y))
    if found:
        found.append((min(most, reached[-1][0]), found[-1][1]))
    return [
        corner
        for (x0, y0), (x1, y1) in itertools.pairwise(found)
        for corner in ((x0, y0), (x1, y0), (x1, y1))
    ]
