"""Charts: points lie where they should, ticks are round and apart, text is escaped."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvs_cohort.report.charts import Axis, Series, Words, chart, linear_axis, log_axis, number_words

WORDS = Words("c", "A title", "A description")
VALUES = st.floats(-1e7, 1e7, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-6)


def _places(svg: str, name: str = "circle") -> list[tuple[float, float]]:
    return [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in ET.fromstring(svg).iter(name)]


def test_points_lie_where_the_axes_say() -> None:
    axis = Axis("x", 0.0, 10.0, (0.0, 10.0))
    points = [(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)]
    first, middle, last = _places(chart(WORDS, axis, axis, [Series(points, drawn="dots")], (300, 200)))
    assert first[0] < middle[0] < last[0]
    assert first[1] > middle[1] > last[1]
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)


def test_a_single_point_of_a_line_is_seen() -> None:
    axis = Axis("x", 0.0, 10.0, (0.0, 10.0))
    assert len(_places(chart(WORDS, axis, axis, [Series([(3.0, 3.0)])]))) == 1
    assert _places(chart(WORDS, axis, axis, [Series([])])) == []


def test_chart_names_and_describes_itself() -> None:
    axis = Axis("<b>&", 0.0, 1.0, (0.0, 1.0))
    hostile = "</svg><script>alert(1)</script>"
    svg = chart(Words("c", hostile, hostile), axis, axis, [Series([(0, 0)], drawn="dots", labels=[hostile])])
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "c-title c-description"
    assert {root[0].attrib["id"], root[1].attrib["id"]} == {"c-title", "c-description"}
    assert "<script" not in svg
    assert [element.text for element in root.iter("title")] == [hostile, hostile]


@given(st.lists(VALUES, max_size=5), st.booleans())
def test_linear_axis_holds_all_and_is_round(values: list[float], from_zero: bool) -> None:
    axis = linear_axis("x", values, from_zero=from_zero)
    assert axis.low < axis.high
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
    assert 2 <= len(axis.ticks) <= 8
    if from_zero:
        assert 0.0 <= axis.share(0.0) <= 1.0
    steps = {f"{b - a:.6g}" for a, b in pairwise(axis.ticks)}
    assert len(steps) == 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_whole_axis_has_whole_ticks_and_ends_with_the_values(values: list[int]) -> None:
    axis = linear_axis("step", [float(value) for value in values], whole=True)
    assert axis.low == min(values)
    assert axis.high == max(max(values), min(values) + 1)
    assert axis.ticks
    assert all(tick == int(tick) and axis.low <= tick <= axis.high for tick in axis.ticks)


@given(st.floats(1e-8, 1e8), st.floats(1.0, 1e6))
def test_log_axis_holds_all(low: float, ratio: float) -> None:
    axis = log_axis("loss", [low, low * ratio])
    assert -1e-6 <= axis.share(low) <= axis.share(low * ratio) <= 1 + 1e-6
    assert 2 <= len(axis.ticks) <= 9
    assert list(axis.ticks) == sorted(axis.ticks)


@given(st.integers(1, 10**7))
def test_labels_of_the_horizontal_axis_do_not_overlap(last: int) -> None:
    x = linear_axis("step", [0.0, float(last)], whole=True)
    root = ET.fromstring(chart(WORDS, x, Axis("y", 0.0, 1.0, (0.0, 1.0)), [], (480, 300)))
    labels = [
        (float(text.attrib["x"]), text.text or "")
        for text in root.iter("text")
        if text.attrib["class"] == "tick" and text.attrib["text-anchor"] == "middle"
    ]
    assert labels
    for (left, one), (right, other) in pairwise(labels):
        # 7 units are about the width of a digit at the chart's size of letters.
        assert right - left > 7 * (len(one) + len(other)) / 2
    end, text = labels[-1]
    assert end + 7 * len(text) / 2 <= 480


def test_numbers_are_written_as_people_do() -> None:
    assert [number_words(value) for value in (0.0, 0.30000000000000004, -2000.0, 1e-5)] == [
        "0", "0.3", "−2,000", "1×10⁻⁵",
    ]  # fmt: skip
