"""Charts as inline SVG: no script, no font of their own; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from xml.etree import ElementTree as ET

Point = tuple[float, float]

#: Room for the tick labels and axis names around the plot, in units of the drawing.
_LEFT: Final = 80.0
_RIGHT: Final = 36.0
_TOP: Final = 14.0
_BOTTOM: Final = 50.0
#: Height of a capital letter, to centre text on a line.
_CAP: Final = 4.5
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes
    ----------
    name : str
        With its unit.
    low, high : float
        Ends; ``low`` < ``high``, and above 0 where ``log``.
    ticks : tuple of float
        Within the ends.
    log : bool
        Logarithmic.
    """

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1.

        >>> Axis("x", 1.0, 100.0, (1.0, 10.0, 100.0), log=True).share(10.0)
        0.5
        """
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes
    ----------
    points : sequence of (x, y)
        In the order of the line; all within the axes.
    style : str
        Class of the page's style sheet, such as ``strong``, ``faint``, ``mark`` or ``guide``.
    drawn : str
        As a line, as dots, or both.
    labels : sequence of str
        Text of each dot where a pointer rests on it; empty where there is none.
    """

    points: Sequence[Point]
    style: str = "strong"
    drawn: Literal["line", "dots", "both"] = "line"
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Words:
    """What a chart says to those who do not see it.

    Attributes
    ----------
    name : str
        Unique on the page; letters, digits and hyphens.
    title, description : str
    """

    name: str
    title: str
    description: str


def linear_axis(name: str, values: Sequence[float], *, whole: bool = False, from_zero: bool = False) -> Axis:
    """Axis with round ticks that holds all values.

    Parameters
    ----------
    name : str
    values : sequence of float
        Finite; may be empty.
    whole : bool
        Ticks are whole numbers, and the axis ends where the values end; else its ends are ticks.
    from_zero : bool
        Zero is in it.

    >>> linear_axis("count", [1.0, 9.3]).ticks
    (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    >>> linear_axis("epoch", [1.0, 2.0], whole=True).ticks
    (1.0, 2.0)
    """
    found = [*values, 0.0] if from_zero or not values else list(values)
    low, high = min(found), max(found)
    if low == high:
        pad = 1.0 if whole else max(abs(low) * 0.1, 0.1)
        low, high = (low, high + pad) if from_zero or whole else (low - pad, high + pad)
    step = _round_step((high - low) / 5.0)
    if whole:
        step = max(1.0, step)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return Axis(name, low, high, tuple(n * step for n in range(first, last + 1)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(n * step, 12) for n in range(first, last + 1))
    return Axis(name, ticks[0], ticks[-1], ticks)


def log_axis(name: str, values: Sequence[float]) -> Axis:
    """Logarithmic axis from power of ten to power of ten; over less than two decades also 2 and 5 are ticks.

    >>> log_axis("loss", [3.0, 800.0]).ticks
    (1.0, 10.0, 100.0, 1000.0)
    """
    first, last = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    last = max(last, first + 1)
    steps = (1.0, 2.0, 5.0) if last - first < 3 else (1.0,)
    every = max(1, math.ceil((last - first) / 6))
    ticks = [m * 10.0**n for n in range(first, last, every) for m in steps]
    return Axis(name, 10.0**first, 10.0**last, (*ticks, 10.0**last), log=True)


def chart(
    words: Words, x: Axis, y: Axis, series: Sequence[Series], size: tuple[int, int] = (640, 300)
) -> str:
    """Draw a chart.

    Parameters
    ----------
    words : Words
    x, y : Axis
    series : sequence of Series
        Later ones lie over earlier ones.
    size : tuple of int
        Width and height of the drawing.

    Returns
    -------
    str
        An ``<svg>`` element; all text in it is escaped.
    """
    root = ET.Element(
        "svg",
        {
            "viewBox": f"0 0 {size[0]} {size[1]}",
            "role": "img",
            "aria-labelledby": f"{words.name}-title {words.name}-description",
            "class": "chart",
            "style": f"max-width:{size[0]}px",
        },
    )
    ET.SubElement(root, "title", {"id": f"{words.name}-title"}).text = words.title
    ET.SubElement(root, "desc", {"id": f"{words.name}-description"}).text = words.description
    plot = _Plot(root, x, y, size)
    plot.draw_axes()
    for each in series:
        plot.draw(each)
    return ET.tostring(root, encoding="unicode", method="html")


class _Plot:
    def __init__(self, root: ET.Element, x: Axis, y: Axis, size: tuple[int, int]) -> None:
        self._root, self._x, self._y, self._size = root, x, y, size

    def _at(self, point: Point) -> Point:
        width, height = self._size[0] - _LEFT - _RIGHT, self._size[1] - _TOP - _BOTTOM
        return (_LEFT + width * self._x.share(point[0]), _TOP + height * (1.0 - self._y.share(point[1])))

    def draw_axes(self) -> None:
        x, y = self._x, self._y
        bottom, left = self._at((x.low, y.low))[1], _LEFT
        for tick in y.ticks:
            height = self._at((x.low, tick))[1]
            self._line((left, height), (self._size[0] - _RIGHT, height), "grid")
            self._text(number_words(tick), (left - 8, height + _CAP), "end")
        for tick in _apart(x, self._size[0]):
            at = self._at((tick, y.low))[0]
            self._line((at, bottom), (at, bottom + 5), "axis")
            self._text(number_words(tick), (at, bottom + 20), "middle")
        self._line((left, bottom), (self._size[0] - _RIGHT, bottom), "axis")
        middle = (_TOP + bottom) / 2
        self._text(x.name, ((left + self._size[0] - _RIGHT) / 2, self._size[1] - 8.0), "middle", "name")
        name = self._text(y.name, (16.0, middle), "middle", "name")
        name.set("transform", f"rotate(-90 16 {middle:g})")

    def draw(self, series: Series) -> None:
        places = [self._at(point) for point in series.points]
        if series.drawn != "dots" and len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            ET.SubElement(self._root, "polyline", {"points": path, "class": f"line {series.style}"})
        if series.drawn == "line" and len(places) != 1:
            return
        for number, (a, b) in enumerate(places):
            dot = ET.SubElement(
                self._root,
                "circle",
                {"cx": f"{a:.1f}", "cy": f"{b:.1f}", "r": "4", "class": f"dot {series.style}"},
            )
            if number < len(series.labels):
                ET.SubElement(dot, "title").text = series.labels[number]

    def _line(self, start: Point, end: Point, style: str) -> None:
        ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
        ET.SubElement(self._root, "line", {"class": style, **{name: f"{value:.1f}" for name, value in ends}})

    def _text(self, text: str, at: Point, anchor: str, style: str = "tick") -> ET.Element:
        element = ET.SubElement(
            self._root,
            "text",
            {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor, "class": style},
        )
        element.text = text
        return element


def number_words(value: float) -> str:
    """Tick label: thousands are set apart, minus is a minus sign, the very large and small are powers of ten.

    >>> number_words(120000.0), number_words(-0.25), number_words(0.001), number_words(2.5e9)
    ('120,000', '−0.25', '0.001', '2.5×10⁹')
    """
    size = abs(value)
    if size and not 1e-4 <= size < 1e8:
        digits, power = f"{value:.6e}".split("e")
        text = f"{float(digits):g}×10{str(int(power)).translate(_SUPERSCRIPT)}"
    else:
        text = f"{value:,.0f}" if size >= 1000 else f"{value:.10g}"
    return text.replace("-", "−")


def _round_step(least: float) -> float:
    """Smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= least * (1 - 1e-9))


def _apart(axis: Axis, width: int) -> list[float]:
    """Ticks whose labels do not run into one another: from the left, each that has room."""
    kept: list[float] = []
    letter, free = 8.0 / (width - _LEFT - _RIGHT), -math.inf
    for tick in axis.ticks:
        half = (len(number_words(tick)) / 2 + 0.5) * letter
        if axis.share(tick) - half >= free:
            kept.append(tick)
            free = axis.share(tick) + half
    return kept
