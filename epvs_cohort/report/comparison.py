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
from epvs_cohort.compare.method_table import MEASURES, PAPER, CurvePoint
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.data.files import write_whole
from epvs_cohort.data.names import shown
from epvs_cohort.data.store import folder_name
from epvs_cohort.report.charts import Axis, Series, Words, chart, linear_axis
from epvs_cohort.report.comparison_tables import (
    TABLES,
    Comparison,
    difference_rows,
    estimate_words,
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
        "statements": statements(comparison),
        "simulated": comparison.simulated,
        "heads": list(MEASURES.values()),
        "rows": [
            {
                "name": f"({row.method}) {METHODS[row.method].name}",
                "style": f"m-{row.method}",
                "cells": [
                    _two_lines(estimate_words(measure, row.estimates[measure])) for measure in MEASURES
                ],
                "seconds": f"{row.seconds:.1f}",
                "paper": [f"{value:.1f}" for value in PAPER[row.method]],
            }
            for row in table.rows
        ],
        "reference": comparison.reference,
        "differences": [
            (row[0], [_two_lines(cell) for cell in row[1:]]) for row in difference_rows(comparison)
        ],
        "curves": _curves(comparison),
        "keys": [
            (f"m-{method}", f"({method}) {METHODS[method].name}") for method in comparison.trial.methods
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


def _curves(comparison: Comparison) -> str:
    """Sensitivity over false positives a scan: a line a method, a ring where the count sets each scan's threshold."""
    table = comparison.table
    points = {row.method: (_value(row.estimates["fpav"]), _value(row.estimates["tpr"])) for row in table.rows}
    most = max(max((x for x, _ in points.values()), default=0.0) * _BEYOND, 1.0)
    x = linear_axis("false positives a scan (FPav)", [0.0, most], from_zero=True)
    y = Axis("sensitivity (TPR)", 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    series: list[Series] = []
    for method, curve in table.curves.items():
        series.append(Series(_within(curve, x.high), f"m-{method}", "line"))
    for method, point in points.items():
        label = (
            f"({method}) {METHODS[method].name}: TPR {point[1]:.1%} at {point[0]:.2f} false positives a scan"
        )
        series.append(Series([point], f"ring m-{method}", "dots", [label]))
    said = "; ".join(
        f"({method}) {point[1]:.0%} at {point[0]:.1f} false positives a scan"
        for method, point in points.items()
    )
    words = Words(
        "froc",
        "Free-response curves",
        f"At the thresholds that the counts set: {said}. The tables hold the values.",
    )
    return chart(words, x, y, series, (820, 480))


def _value(estimate: Any) -> float:
    return 0.0 if estimate is None else float(estimate.value)


def _within(curve: Sequence[CurvePoint], most: float) -> list[tuple[float, float]]:
    """The highest sensitivity at up to so many false positives, by rising false positives, up to the axis's end.

    As a threshold falls components run together, so that false positives may become fewer again and lesions be lost.
    """
    found: list[tuple[float, float]] = []
    for x, y in sorted((point.fpav, point.tpr) for point in curve):
        if x > most:
            break
        if not found or y > found[-1][1]:
            found.append((x, y))
    if found:
        found.append((most, found[-1][1]))
    return [
        corner
        for (x0, y0), (x1, y1) in itertools.pairwise(found)
        for corner in ((x0, y0), (x1, y0), (x1, y1))
    ]
