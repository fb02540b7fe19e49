"""The page of an evaluation: says what was found, stands alone, trusts no name, and its charts are files too."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from epvs_cohort.compare.evaluate import EvaluateInput, EvaluateSettings, Evaluation, evaluate
from epvs_cohort.compare.readers import Comparison, reader_counts
from epvs_cohort.compare.resamples import Drawing
from epvs_cohort.data.counts import Reading
from epvs_cohort.report.charts import Words, chart, linear_axis
from epvs_cohort.report.evaluation import write_evaluation_page
from epvs_cohort.report.evaluation_charts import MOST_DOTS, file_names, scatter, standalone
from tests.compare.cohorts import Row, write_cohort

HOSTILE = '"><script>alert(1)</script>'
AT = [[float(20 * n), 0.0, 0.0] for n in range(4)]
INPUTS = {"table": "/data/<b>counts.parquet", "counts": "readers.csv"}


@pytest.fixture
def given(tmp_path: Path) -> EvaluateInput:
    rows = [Row(f"s{n}", n + 0.5, str(n), lesions=AT[:n], sha256=str(n)) for n in range(4)]
    rows.append(Row(HOSTILE, 2.0, "9", status="flagged", lesions=AT[:2], covariates={"site": HOSTILE}))
    counts = [Reading(row.scan, reader, 1, n) for n, row in enumerate(rows) for reader in ("A", HOSTILE)]
    points = {row.scan: np.array(AT[: n + 1]) for n, row in enumerate(rows)}
    second = [replace(row, sha256="other", count=(row.count or 0.0) + 0.1) for row in rows]
    return EvaluateInput(
        write_cohort(tmp_path / "counts.parquet", rows),
        reader_counts(counts, {}),
        points,
        write_cohort(tmp_path / "second.parquet", second),
    )


def made(given: EvaluateInput) -> Evaluation:
    return evaluate(given, EvaluateSettings("roi", drawing=Drawing(1, 100)))


def charts(text: str) -> dict[str, ET.Element]:
    found = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]
    return {root.attrib["aria-labelledby"].split("-title")[0]: root for root in found}


def test_page_shows_every_part_and_no_script(given: EvaluateInput, tmp_path: Path) -> None:
    page = write_evaluation_page(tmp_path / "out", made(given), INPUTS)
    text = page.read_text()
    assert page.name == "evaluation.html"
    assert "<script" not in text
    assert "<b>counts" not in text
    assert "http" not in re.sub(r"http-equiv", "", text)
    for heading in ("Counts", "Readers", "By status", "Lesions", "Second visit", "How it is measured"):
        assert f"<h2>{heading}</h2>" in text
    drawn = charts(text)
    assert {
        "scatter-machine-mean-of-readers",
        "bland-altman-machine-mean-of-readers",
        "froc",
        "scatter-rescan",
        "bland-altman-rescan",
    } <= set(drawn)
    assert all(root[1].text for root in drawn.values())


def test_charts_of_the_page_are_files_of_their_own_and_stale_ones_go(
    given: EvaluateInput, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    text = write_evaluation_page(out, made(given), INPUTS).read_text()
    names = {path.stem for path in (out / "figures").iterdir()}
    assert names == set(charts(text))
    for path in (out / "figures").iterdir():
        root = ET.fromstring(path.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        (sheet,) = (each.text or "" for each in root if each.tag.endswith("style"))
        assert ".line.strong { stroke: #0067a8; }" in sheet
        assert "var(" not in sheet
    write_evaluation_page(out, made(replace(given, points=None, rescan=None)), INPUTS)
    assert {path.stem for path in (out / "figures").iterdir()} == names - {
        "froc",
        "scatter-rescan",
        "bland-altman-rescan",
    }


def test_without_a_marked_lesion_there_is_no_curve(given: EvaluateInput, tmp_path: Path) -> None:
    nothing = {key: np.zeros((0, 3)) for key in ("s1", "s2", "s3")}
    text = write_evaluation_page(tmp_path / "out", made(replace(given, points=nothing)), INPUTS).read_text()
    assert "No scan has a marked lesion, so there is no free-response curve." in text
    assert "froc" not in charts(text)
    assert not (tmp_path / "out" / "figures" / "froc.svg").exists()
    assert re.search(r"\bnan\b", text) is None


def test_lines_of_bland_altman_lie_at_the_figures(given: EvaluateInput, tmp_path: Path) -> None:
    evaluation = made(given)
    root = charts(write_evaluation_page(tmp_path / "out", evaluation, INPUTS).read_text())[
        "bland-altman-machine-mean-of-readers"
    ]
    figures = evaluation.figures
    own = figures[
        (figures["kind"] == "machine") & (figures["by"] == "") & (figures["second"] == evaluation.reference)
    ]
    value = own.set_index("figure")["value"]
    lines = {
        each.attrib["class"]: [float(end.split(",")[1]) for end in each.attrib["points"].split()]
        for each in root.iter("polyline")
    }
    dots = [float(dot.attrib["cy"]) for dot in root.iter("circle")]
    differences = evaluation.comparisons[0].ratings @ [1.0, -1.0]
    # The height of a pixel row, from two dots, tells where the mean difference must lie.
    top, bottom = int(np.argmax(differences)), int(np.argmin(differences))
    slope = (dots[top] - dots[bottom]) / (differences[top] - differences[bottom])
    expected = dots[bottom] + slope * (value["bias"] - differences[bottom])
    assert lines["line mark"] == pytest.approx([expected, expected], abs=0.2)


def test_simulated_scans_are_said_to_be(given: EvaluateInput, tmp_path: Path) -> None:
    warning = "These scans are simulated."
    assert warning not in write_evaluation_page(tmp_path / "a", made(given), INPUTS).read_text()
    rows = [Row(key, 2.0, key, scanner="Simulated Virtual A 1.5T") for key in "ab"]
    cohort = write_cohort(tmp_path / "simulated.parquet", rows)
    counts = reader_counts([Reading("a", "", 1, 2), Reading("b", "", 1, 3)], {})
    simulated = made(EvaluateInput(cohort, counts))
    assert warning in write_evaluation_page(tmp_path / "b", simulated, INPUTS).read_text()


def test_of_very_many_scans_some_are_drawn_and_it_is_said() -> None:
    n = 2 * MOST_DOTS + 1
    counts = np.repeat(np.arange(n, dtype=np.float64)[:, None], 2, axis=1)
    drawn = scatter("x", Comparison("machine", ("machine", "A"), tuple(map(str, range(n))), counts), "Words.")
    assert drawn.svg.count("<circle") <= MOST_DOTS
    assert f"Of {n} scans one in 3 is drawn." in drawn.caption


def test_no_two_charts_share_a_name() -> None:
    readers = ["2", "李", "王", "A 2", "A.", "a", "A"]
    compared = [Comparison("machine", ("machine", name), (), np.zeros((0, 2))) for name in readers]
    assert file_names(compared) == [
        "machine-2", "machine", "machine-3", "machine-A-2", "machine-A", "machine-a-3", "machine-A-4",
    ]  # fmt: skip


def test_a_chart_on_its_own_needs_no_page() -> None:
    axis = linear_axis("x", [0.0, 1.0])
    text = standalone(chart(Words("c", "A title", "Words"), axis, axis, []))
    root = ET.fromstring(text.encode())
    assert root.attrib["viewBox"] == "0 0 640 300"
    assert "@media" not in text
