"""Charts of an evaluation: counts over counts with the identity line, Bland–Altman, the free-response curve."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final, Literal

import numpy as np

from epvs_cohort.compare.bootstrap import Estimate
from epvs_cohort.compare.marked import Lesions
from epvs_cohort.compare.readers import Comparison
from epvs_cohort.report.charts import Axis, Point, Series, Words, chart, linear_axis
from epvs_cohort.report.page import style

#: Dots of one chart; of more scans every second, third and so on is drawn, and it is said.
MOST_DOTS: Final = 2000
_SIZE: Final = (460, 420)

Look = Literal["strong", "faint", "mark", "guide"]


@dataclass(frozen=True)
class Drawn:
    """A chart and what is said below it.

    Attributes
    ----------
    name : str
        Of its file, without ending; letters, digits and hyphens.
    key : sequence of (str, str)
        Style and what is drawn in it.
    """

    name: str
    title: str
    svg: str
    caption: str
    key: Sequence[tuple[str, str]] = ()


def scatter(name: str, compared: Comparison, words: str) -> Drawn:
    """Counts of the first over those of the second, with the identity line.

    Parameters
    ----------
    words : str
        Figures, for the caption.
    """
    first, second = compared.names
    values = [float(value) for value in compared.ratings.ravel()]
    x, y = (linear_axis(f"count, {side}", values, from_zero=True) for side in (second, first))
    rows, said = _thinned(compared)
    labels = [f"{scan}: {first} {a:z.2f}, {second} {b:g}" for scan, a, b in rows]
    title = f"{first[:1].upper()}{first[1:]} over {second}"
    series = [
        Series([(x.low, x.low), (x.high, x.high)], "guide"),
        Series([(b, a) for _, a, b in rows], "strong", "dots", labels),
    ]
    return Drawn(
        f"scatter-{name}",
        title,
        chart(Words(f"scatter-{name}", title, words), x, y, series, _SIZE),
        words + said,
        (("guide", "both counts are the same"),),
    )


def bland_altman(name: str, compared: Comparison, figures: Mapping[str, Estimate], words: str) -> Drawn:
    """Differences over means of two counts, with the mean difference, the limits of agreement and their intervals.

    Parameters
    ----------
    figures : mapping of str to Estimate
        Of this comparison.
    """
    first, second = compared.names
    rows, said = _thinned(compared)
    points = [((a + b) / 2, a - b) for _, a, b in rows]
    levels: list[tuple[float | None, Look]] = []
    looks: tuple[tuple[str, Look], ...] = (("bias", "mark"), ("loa_low", "guide"), ("loa_high", "guide"))
    for figure, look in looks:
        estimate = figures[figure]
        levels += [(estimate.low, "faint"), (estimate.high, "faint"), (estimate.value, look)]
    known = [(value, look) for value, look in levels if value is not None and np.isfinite(value)]
    x = linear_axis(f"mean of {first} and {second}", [at for at, _ in points], from_zero=True)
    reach = [*(value for _, value in points), *(value for value, _ in known)]
    y = linear_axis(f"{first} minus {second}", reach, from_zero=True)
    title = f"Bland–Altman: {first} and {second}"
    labels = [
        f"{scan}: mean {at:z.2f}, difference {value:+z.2f}"
        for (scan, _, _), (at, value) in zip(rows, points, strict=True)
    ]
    series = [Series(points, "strong", "dots", labels)]
    series += [Series([(x.low, value), (x.high, value)], look) for value, look in known]
    return Drawn(
        f"bland-altman-{name}",
        title,
        chart(Words(f"bland-altman-{name}", title, words), x, y, series, _SIZE),
        words + said,
        (
            ("mark-line", "mean difference"),
            ("guide", "limits of agreement, mean ± 1.96 SD"),
            ("faint", "their 95 % intervals"),
        ),
    )


def froc(lesions: Lesions, limit: float, words: str) -> Drawn:
    """Free-response curve as a staircase, its end marked: the lesions of the table, at the threshold of the count.

    Where no lesion is marked there is no curve to draw.
    """
    curve = lesions.curve()
    at = curve["false_positives_per_scan"].to_numpy(dtype=np.float64)
    height = curve["sensitivity"].to_numpy(dtype=np.float64)
    points: list[Point] = [(0.0, 0.0)]
    for rate, sensitivity in zip(at, height, strict=True):
        last = points[-1]
        if rate != last[0] and sensitivity != last[1]:
            points.append((float(rate), last[1]))
        points.append((float(rate), float(sensitivity)))
    points = _straight(points)
    x = linear_axis("false marks a scan", [0.0, limit, points[-1][0]], from_zero=True)
    y = Axis("part of the lesions found", 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    title = "Free-response curve"
    end = points[-1]
    series = [
        Series([(limit, 0.0), (limit, 1.0)], "guide"),
        Series(points),
        Series([end], "mark", "dots", [f"{end[0]:.2f} false marks a scan, {end[1]:.1%} found"]),
    ]
    return Drawn(
        "froc",
        title,
        chart(Words("froc", title, words), x, y, series, _SIZE),
        words,
        (
            ("strong", "lesions above a falling score"),
            ("mark", "all lesions of the table"),
            ("guide", f"the area reaches to here ({limit:g})"),
        ),
    )


def _straight(points: Sequence[Point]) -> list[Point]:
    """The same line without the points in the midst of a straight part."""
    kept: list[Point] = []
    for point in points:
        while len(kept) > 1 and (
            kept[-1][0] == kept[-2][0] == point[0] or kept[-1][1] == kept[-2][1] == point[1]
        ):
            kept.pop()
        kept.append(point)
    return kept


def _thinned(compared: Comparison) -> tuple[list[tuple[str, float, float]], str]:
    """Scan and both counts of what is drawn, and words where it is not all."""
    every = -(-len(compared.scans) // MOST_DOTS)
    rows = [
        (scan, float(a), float(b)) for scan, (a, b) in zip(compared.scans, compared.ratings, strict=True)
    ][::every]
    said = f" Of {len(compared.scans)} scans one in {every} is drawn." if every > 1 else ""
    return rows, said


def standalone(svg: str) -> str:
    """A chart as a file of its own: the page's light colours, written out for viewers that know no variables."""
    head, rest = svg.split(">", 1)
    colours, sheet = (
        style().split("@media", 1)[0],
        style().split("min-width: 24rem; }", 1)[1].split("\n.key", 1)[0],
    )
    for name, value in re.findall(r"(--[a-z]+): (#[0-9a-f]+)", colours):
        sheet = sheet.replace(f"var({name})", value)
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{head} xmlns="http://www.w3.org/2000/svg">'
        f"<style>{sheet.strip()}</style>{ground}{rest}"
    )


def file_names(compared: Sequence[Comparison]) -> list[str]:
    """A name for the charts of each comparison, made of who is compared; a number where two would be alike.

    Names that differ in capitals alone are alike, too: on some file systems they are one file.

    >>> file_names([Comparison("machine", ("machine", "A. B."), (), np.zeros((0, 2)))])
    ['machine-A-B']
    """
    found: list[str] = []
    for each in compared:
        words = [*([each.kind] if each.kind not in each.names else []), *each.names]
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")
        taken = {other.casefold() for other in found}
        free = (
            each for each in chain([name], (f"{name}-{n}" for n in count(2))) if each.casefold() not in taken
        )
        found.append(next(free))
    return found
