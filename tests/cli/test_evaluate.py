"""The command evaluate as a person meets it: files in, tables and page out, and what it refuses."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Call
from tests.compare.cohorts import Row, write_cohort

AT = [[float(20 * n), 0.0, 0.0] for n in range(4)]


@pytest.fixture
def call(command: Call) -> Call:
    """Exit code, standard output and standard error of ``evaluate``."""
    return functools.partial(command, "evaluate")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Four counted scans of two visits, readers, points, and decisions."""
    rows = [
        Row(f"sub-{n}_T2w", n + 0.4, str(n), lesions=AT[:n], covariates={"age": 60 + 5 * n}) for n in range(4)
    ]
    write_cohort(tmp_path / "counts.parquet", rows)
    write_cohort(
        tmp_path / "second.parquet", [Row(row.scan, (row.count or 0) + 0.2, row.subject) for row in rows]
    )
    write_cohort(tmp_path / "slice.parquet", rows, "ac_slice")
    named = {name: tmp_path / f"{name}.parquet" for name in ("counts", "second", "slice", "old")}
    write_cohort(named["old"], rows)
    table = pq.read_table(named["old"])
    pq.write_table(table.drop_columns(["flags", "notes"]), named["old"])
    named["spelt"] = tmp_path / ".." / tmp_path.name / "counts.parquet"
    texts = {
        "readers": "scan,count,reader\n"
        + "".join(f"{row.scan},{n},{r}\n" for n, row in enumerate(rows) for r in ("A", "A2")),
        "points": "scan,lesion,x_mm,y_mm,z_mm\n"
        + "".join(
            f"{row.scan},{k},{x},{y},{z}\n"
            for n, row in enumerate(rows)
            for k, (x, y, z) in enumerate(AT[:n])
        ),
        "decisions": "scan,decision,reason\nsub-3_T2w,reject,motion\n",
        "pairs": "scan,rescan\nsub-0_T2w,sub-1_T2w\nsub-2_T2w,sub-3_T2w\n",
    }
    for name, text in texts.items():
        named[name] = tmp_path / f"{name}.csv"
        named[name].write_text(text)
    for n, row in enumerate(rows):
        points = [{"position": [-x, -y, z]} for x, y, z in AT[:n]]
        markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
        (tmp_path / f"{row.scan}.mrk.json").write_text(json.dumps({"markups": [markup]}))
    named["out"] = tmp_path / "out"
    return named


def figure(out: Path, kind: str, name: str) -> float:
    table = pd.read_csv(out / "figures.csv", keep_default_na=False)
    rows = table[(table["kind"] == kind) & (table["figure"] == name) & (table["by"] == "")]
    return float(rows["value"].iloc[0])


def test_one_command_writes_tables_page_and_charts(call: Call, files: dict[str, Path]) -> None:
    code, out, err = call(
        files["counts"], "--counts", files["readers"], "--same-reader", "A2=A", "--count-target", "roi",
        "--points", files["points"], "--rescan", files["second"], "--rescan-radius-mm", 3,
        "--by", "age=65,70", "--resamples", 100, "--decisions", files["decisions"], "--out", files["out"],
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "rejected, and left out (1): sub-3_T2w: reject: motion" in out
    assert str(files["out"] / "evaluation.html") in out
    assert figure(files["out"], "machine", "bias") == pytest.approx(0.4)
    assert figure(files["out"], "intra-reader", "bias") == 0.0
    assert figure(files["out"], "rescan", "bias") == pytest.approx(0.2)
    assert figure(files["out"], "lesions", "sensitivity") == 1.0
    record = json.loads((files["out"] / "evaluation.json").read_text())
    assert record["inputs"]["same-reader"] == "A2=A"
    assert record["settings"]["reach"] == {"radius": 3.0, "unit": "voxels"}
    assert record["settings"]["visit_reach"] == {"radius": 3.0, "unit": "mm"}
    page = (files["out"] / "evaluation.html").read_text()
    assert "By age" in page
    assert (files["out"] / "figures" / "bland-altman-machine-A.svg").exists()


@pytest.mark.parametrize("pattern", ["*.mrk.json", "{scan}.mrk.json"])
def test_markups_of_slicer_count_as_points(call: Call, files: dict[str, Path], pattern: str) -> None:
    points = files["out"].parent / pattern
    code, _, _ = call(
        files["counts"], "--counts", files["readers"], "--points", points, "--out", files["out"]
    )
    assert code == 0
    assert figure(files["out"], "lesions", "sensitivity") == 1.0
    assert figure(files["out"], "lesions", "false_discovery_rate") == 0.0


def test_no_figure_is_told_as_minus_nothing(call: Call, files: dict[str, Path]) -> None:
    rows = [Row(f"sub-{n}_T2w", n - 0.0002, str(n)) for n in range(4)]
    write_cohort(files["counts"], rows)
    code, out, _ = call(files["counts"], "--counts", files["readers"], "--out", files["out"])
    assert (code, "0.000 (0.000 to 0.000)" in out) == (0, True)
    assert "-0.000" not in out
    assert "−0.00 " not in (files["out"] / "evaluation.html").read_text()


def test_decisions_that_the_run_was_given_need_no_file(call: Call, files: dict[str, Path]) -> None:
    decided = {
        "decision": "reject",
        "decision_reason": "motion",
        "decision_initials": "",
        "decision_comment": "",
    }
    rows = [Row(f"sub-{n}_T2w", float(n), str(n), covariates=decided if n == 3 else {}) for n in range(4)]
    write_cohort(files["counts"], rows)
    code, out, _ = call(files["counts"], "--counts", files["readers"], "--out", files["out"])
    assert code == 0
    assert "sub-3_T2w" in out
    table = pd.read_csv(files["out"] / "figures.csv", keep_default_na=False)
    assert table.loc[table["kind"] == "machine", "scans"].max() == 3
    # A file that is named goes before it.
    files["decisions"].write_text("scan,decision\nsub-3_T2w,accept\n")
    arguments = (
        "--counts",
        files["readers"],
        "--decisions",
        files["decisions"],
        "--out",
        files["out"] / "all",
    )
    assert call(files["counts"], *arguments)[0] == 0
    table = pd.read_csv(files["out"] / "all" / "figures.csv", keep_default_na=False)
    assert table.loc[table["kind"] == "machine", "scans"].max() == 4


def test_the_same_arguments_give_the_same_tables(call: Call, files: dict[str, Path]) -> None:
    asked = (files["counts"], "--counts", files["readers"], "--points", files["points"], "--resamples", 100)
    for name in ("one", "two"):
        assert call(*asked, "--out", files["out"] / name)[0] == 0
    one, two = (sorted((files["out"] / name).glob("*.csv")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_one_table_may_hold_both_visits_where_pairs_are_named(call: Call, files: dict[str, Path]) -> None:
    asked = (
        files["counts"],
        "--counts",
        files["readers"],
        "--rescan",
        files["counts"],
        "--out",
        files["out"],
    )
    code, _, err = call(*asked)
    assert (code, "every scan would be its own pair" in err) == (2, True)
    assert call(*asked, "--rescan-pairs", files["pairs"])[0] == 0
    assert figure(files["out"], "rescan", "bias") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{slice}", "--counts", "{readers}", "--count-target", "roi"], 3, "they are never compared"),
        (["{counts}", "--counts", "{points}"], 3, "no column count"),
        (["{counts}", "--counts", "{missing}"], 3, "cannot be read"),
        (["{missing}", "--counts", "{readers}"], 2, "missing"),
        (["{readers}", "--counts", "{readers}"], 2, "readers.csv: no table of counts"),
        (
            ["{old}", "--counts", "{readers}"],
            2,
            "old.parquet: the table of counts has no column flags, notes",
        ),
        (
            ["{counts}", "--counts", "{readers}", "--froc-limit", "inf"],
            2,
            "--froc-limit inf: a finite number",
        ),
        (
            ["{counts}", "--counts", "{readers}", "--points", "{points}", "--radius", "inf"],
            2,
            "lesions within inf voxels: a finite number from 0 is legal",
        ),
        (["{counts}", "--counts", "{readers}", "--rescan", "{spelt}"], 2, "every scan would be its own pair"),
        (["{counts}", "--counts", "{readers}", "--by", "sex"], 2, "no such column"),
        (["{counts}", "--counts", "{readers}", "--by", "age=70,60"], 2, "rising numbers"),
        (["{counts}", "--counts", "{readers}", "--same-reader", "A"], 2, "NAME=READER"),
        (["{counts}", "--counts", "{readers}", "--same-reader", "Z=A"], 3, "reader 'Z': not in the table"),
        (["{counts}", "--counts", "{readers}", "--all-marked"], 2, "legal with --points only"),
        (["{counts}", "--counts", "{readers}", "--radius", "2"], 2, "--points or --rescan only"),
        (
            [
                "{counts}",
                "--counts",
                "{readers}",
                "--points",
                "{points}",
                "--radius",
                "2",
                "--radius-mm",
                "1",
            ],
            2,
            "one of them is legal",
        ),
        (["{counts}", "--counts", "{readers}", "--rescan-radius-mm", "3"], 2, "legal with --rescan only"),
        (["{counts}", "--counts", "{readers}", "--rescan-pairs", "{pairs}"], 2, "legal with --rescan only"),
        (["{counts}", "--counts", "{readers}", "--rescan", "{slice}"], 3, "they are never compared"),
        (["{counts}", "--counts", "{readers}", "--decisions", "{readers}"], 3, "no column decision"),
        (["{counts}", "--counts", "{readers}", "--points", "nowhere*.mrk.json"], 3, "no such file"),
    ],
)
def test_what_cannot_be_compared_is_said_and_nothing_is_written(
    arguments: list[str], code: int, words: str, call: Call, files: dict[str, Path]
) -> None:
    names = {f"{{{name}}}": path for name, path in files.items()} | {
        "{missing}": files["out"].parent / "missing.parquet"
    }
    found, _, err = call(*(names.get(each, each) for each in arguments), "--out", files["out"])
    assert (found, words in err) == (code, True), err
    assert "Traceback" not in err
    assert not files["out"].exists()
