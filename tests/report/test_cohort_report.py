"""The report of a cohort, but for what a browser does: what it says, its files, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.bounds import DEFAULT_LIMITS
from epvs_cohort.cli.app import main
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.errors import OutputError, UsageError
from epvs_cohort.report.cohort_groups import _coefficient, group_labels, groupings
from epvs_cohort.report.cohort_methods import REFERENCES, cited, methods_text
from epvs_cohort.report.cohort_outliers import robust_z
from epvs_cohort.report.cohort_payload import payload, review
from epvs_cohort.report.cohort_report import ReportRequest, files_folder, write_report
from epvs_cohort.report.measure_words import flag_words, measure_words
from tests.report.made_up import HOSTILE, SCANNERS, MadeUp, write_made_up


def _report(folder: Path, plan: MadeUp, **changes: Any) -> Path:
    out = folder / "counts.parquet"
    cohort = write_made_up(out, plan)
    request = ReportRequest(out, folder / "report.html", OutputPaths.of(out).store, **changes)
    return write_report(cohort, request)


def _data(page: Path) -> dict[str, Any]:
    text = (files_folder(page) / "data.js").read_text()
    found: dict[str, Any] = json.loads(text.removeprefix("EPVS.receive(").removesuffix(");\n"))
    return found


def test_page_alone_says_what_failed_and_why_and_what_it_was_counted_with(tmp_path: Path) -> None:
    text = _report(tmp_path, MadeUp(scans=40)).read_text()
    assert "2 × unreadable" in text
    assert "2 × registration" in text
    assert "sub-0010_PDw: truncated file: 12 of 90 MB" in text
    assert "What to do: copy the file anew" in text
    assert "Longest voxel edge is 5.5 mm; at most 2 mm passes" in text
    assert "Trained on simulated windows only." in text
    assert "Not for people." in text
    for name in ("GP-Unet", "elastix:", "ITK:", "Dask:", "Desikan"):
        assert name in text


def test_numbers_of_scans_are_those_of_the_table(tmp_path: Path) -> None:
    text = _report(tmp_path, MadeUp(scans=40, asked_more=3)).read_text()
    tiles = dict(re.findall(r"<li><span>(.*?)</span><strong>(.*?)</strong>", text))
    # 4 fail; of the multiples of 7 none is a multiple of 10, so 5 are flagged.
    assert (tiles["Scans asked for"], tiles["Failed"], tiles["Counted, flagged"]) == ("43", "4", "5")
    assert tiles["Counted, ok"] == "31"
    assert "This run is not finished" in text


def test_scanner_that_counts_more_is_named_with_an_interval(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=400, failed_every=50, pictures=False))
    found = {each.column: each for each in groupings(cohort.scans, ["age", "sex"])}
    assert list(found) == ["scanner", "age", "sex"]
    assert found["scanner"].names == SCANNERS
    match = re.search(
        r"Difference (\S+) \(95 % interval (\S+) to (\S+)\): more than chance", found["scanner"].sentence
    )
    assert match is not None
    gap, low, high = (float(part) for part in match.groups())
    assert low < gap < high
    counts = cohort.scans.groupby("scanner")["count"].mean()
    assert gap == pytest.approx(counts[SCANNERS[1]] - counts[SCANNERS[0]], abs=0.06)
    assert "Highest mean count: Maker Two 1.5T" in found["scanner"].sentence


def test_welch_interval_is_that_of_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(3)
    one, other = rng.normal(10.0, 3.0, 30), rng.normal(8.0, 1.0, 17)
    frame = pd.DataFrame({"count": [*one, *other], "scanner": ["a"] * 30 + ["b"] * 17})
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    (grouping,) = groupings(frame, [])
    assert f"interval {interval.low:.1f} to {interval.high:.1f}" in grouping.sentence


def test_difference_with_age_held_equal_is_that_of_the_model() -> None:
    """Scanner b saw older people; of the difference of 8 lesions 6 are of their age."""
    rng = np.random.default_rng(4)
    scanner = np.array(["a", "b"] * 200)
    age = np.where(scanner == "b", 75.0, 60.0) + rng.normal(0, 5, 400)
    count = 2.0 * (scanner == "b") + 0.4 * age + rng.normal(0, 1, 400)
    frame = pd.DataFrame({"count": count, "scanner": scanner, "age": age, "sex": rng.choice(["F", "M"], 400)})
    words = groupings(frame, [])[0].sentence
    match = re.search(
        r"With age and sex held equal the difference is (\S+) \((\S+) to (\S+), 400 scans\)", words
    )
    assert match is not None
    gap, low, high = map(float, match.groups())
    assert float(re.findall(r"Difference (\S+)", words)[0]) == pytest.approx(8.0, abs=0.5)
    assert gap == pytest.approx(2.0, abs=0.35)
    assert low < 2.0 < high
    assert high - low < 1.5
    few = groupings(frame.drop(columns=["age", "sex"]), [])[0].sentence
    assert few.endswith("Nothing is adjusted for here: groups may differ in age, sex or disease.")
    same = groupings(frame.assign(sex=np.where(scanner == "b", "F", "M")).drop(columns="age"), [])[0].sentence
    assert same.endswith("cannot be held equal: they go with the groups of scanner.")


def test_coefficient_and_error_are_those_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(9)
    design = np.column_stack([np.ones(80), rng.integers(0, 2, 80), rng.normal(60, 9, 80)]).astype(float)
    values = design @ [1.0, 2.0, 0.1] + rng.normal(0, 1 + design[:, 1], 80)
    fit = sm.OLS(values, design).fit(cov_type="HC3")
    assert _coefficient(design, values) == pytest.approx((fit.params[1], fit.bse[1]), rel=1e-9)


def test_rejected_scans_are_in_no_comparison(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=60, pictures=False))
    reviewed = review(cohort, {"sub-0001_PDw": Decision("reject"), "sub-0003_PDw": Decision("doubt")})
    (of_scanner,) = (each for each in reviewed.groupings if each.column == "scanner")
    assert (of_scanner.of[0], of_scanner.of[2]) == (None, 0)
    assert "(29 scans)" in of_scanner.sentence


def test_flags_are_counted_by_measure(tmp_path: Path) -> None:
    text = _report(tmp_path, MadeUp(scans=40)).read_text()
    assert re.search(r"5 × <strong>Longest voxel edge</strong> .*\(at most 2 mm passes\)", text)


def test_numbers_are_banded_and_rare_texts_pooled() -> None:
    ages = group_labels(pd.Series([45.0, 52.0, 58.0, 59.9, 60.0, 71.0, 88.0, None]))
    assert list(ages) == [
        "40 to <50",
        "50 to <60",
        "50 to <60",
        "50 to <60",
        "60 to <70",
        "70 to <80",
        "80 to <90",
        "unknown",
    ]
    names = group_labels(pd.Series([f"site {n % 30}" for n in range(300)]))
    assert len(set(names)) == 12
    assert "others" in set(names)


def test_robust_distance_needs_values_and_spread() -> None:
    assert np.isnan(robust_z(np.ones(20))).all()
    assert np.isnan(robust_z(np.arange(5.0))).all()
    far = robust_z(np.array([*range(20), 200.0, np.nan]))
    assert far[20] > 20
    assert np.isnan(far[21])
    # 1.4826 times the median absolute deviation is the standard deviation of normal values.
    normal = robust_z(np.random.default_rng(1).normal(7.0, 3.0, 20000))
    assert float(normal.std()) == pytest.approx(1.0, abs=0.02)


def test_scan_far_from_the_others_is_named_first_with_the_reason(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=60, flagged_every=1000, pictures=False))
    far = (cohort.qc["scan"] == "sub-0023_PDw") & (cohort.qc["measure"] == "sharpness")
    cohort.qc.loc[far, "value"] = 0.9
    looks = review(cohort, {}).looks
    assert cohort.scans["scan"][looks[0].row] == "sub-0023_PDw"
    assert looks[0].reasons[0].startswith("Sharpness is 0.9; the cohort's median is 0.1")


def test_every_measure_with_a_bound_has_words() -> None:
    assert [name for name in DEFAULT_LIMITS if measure_words(name) == (name, "")] == []


def test_flag_words_name_the_bound_that_is_broken() -> None:
    assert flag_words("roi_snr", 3.0, "ratio", (5.0, None)) == "Signal to noise is 3; at least 5 passes"
    assert flag_words("affine_scale", 1.5, "ratio", (0.75, 1.25)).endswith("1.5; at most 1.25 passes")


def test_references_are_those_that_the_text_names(tmp_path: Path) -> None:
    text = methods_text(write_made_up(tmp_path / "counts.parquet", MadeUp(scans=10, pictures=False)))
    assert cited(text)[0] == REFERENCES["Fonov 2011"]
    assert {REFERENCES["Dubost 2017"], REFERENCES["Klein 2010"], REFERENCES["Rocklin 2015"]} <= set(
        cited(text)
    )
    assert cited("We counted (Dubost 2017).") == [REFERENCES["Dubost 2017"]]


def test_methods_tell_how_the_scans_of_this_run_were_outlined(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=10, pictures=False))
    assert (
        "outlined by two networks trained on label maps of heads in the manner of SynthSeg (Billot 2023)."
        in (methods_text(cohort))
    )
    assert "an affine map of the labels of the bundled atlas" in methods_text(cohort)
    assert "B-spline" not in methods_text(cohort)
    assert any("10.1016/j.media.2023.102789" in reference for reference in cited(methods_text(cohort)))
    measured = cohort.qc["measure"] == "roi_entropy_inside"
    brought = measured & cohort.qc["scan"].isin(["sub-0001_PDw", "sub-0002_PDw"])
    cohort.qc.loc[brought, "value"] = None
    mixed = methods_text(cohort)
    assert "(Fischl 2002) or masks, which the study brought (2 scans), else by two networks" in mixed
    assert "(Billot 2023) (7 scans)." in mixed
    cohort.qc.loc[measured, "value"] = None
    text = methods_text(cohort)
    assert "network" not in text.split("The count is")[0]
    assert "from an affine and a B-spline map of the template to the scan." in text


@pytest.mark.parametrize(
    ("method", "named", "silent"),
    [
        ("atlas", "outlined by the bundled atlas (Desikan 2006", "Billot"),
        ("aseg", "outlined by FreeSurfer's segmentation (Fischl 2002).", "Desikan"),
        ("mask", "outlined by masks that the study brought.", "Fischl"),
        ("network", "outlined by two networks", "B-spline"),
    ],
)
def test_methods_tell_the_outline_of_the_protocol(
    method: str, named: str, silent: str, tmp_path: Path
) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=3, pictures=False))
    cohort.about["protocol"]["roi"]["method"] = method
    text = methods_text(cohort)
    assert named in text
    assert silent not in text


def test_data_hold_every_scan_and_unknown_is_null(tmp_path: Path) -> None:
    page = _report(tmp_path, MadeUp(scans=30))
    data = _data(page)
    columns = {column["name"]: column for column in data["columns"]}
    assert len(columns["scan"]["values"]) == 30
    assert columns["count"]["values"][9] is None
    assert columns["count"]["unit"] == "lesions"
    assert columns["age"]["kind"] == "number"
    assert data["flags"][6] == ["Longest voxel edge is 5.5 mm; at most 2 mm passes"]
    measure = next(each for each in data["measures"] if each["name"] == "roi_snr")
    assert (measure["low"], measure["values"][9]) == (5, None)
    assert "grid_from_native" not in columns


def test_packs_are_bounded_and_every_scan_lies_in_its_own(tmp_path: Path) -> None:
    page = _report(tmp_path, MadeUp(scans=150))
    packs = sorted(files_folder(page).glob("pack-*.js"))
    assert len(packs) == 3
    data, held = _data(page), {}
    for number, path in enumerate(packs):
        start = f'EPVS.receivePack("pack-{number:04d}",'
        content = json.loads(path.read_text().removeprefix(start).removesuffix(");\n"))
        held.update(dict.fromkeys(map(int, content), number))
        assert len(content) <= 64
    assert [held[row] for row in range(150)] == data["packs"]


def test_nothing_of_a_hostile_name_is_markup(tmp_path: Path) -> None:
    decisions = {HOSTILE: Decision("reject", HOSTILE, "AB", HOSTILE)}
    for single in (False, True):
        page = _report(tmp_path, MadeUp(scans=20, hostile=True), decisions=decisions, single_file=single)
        text = page.read_text()
        assert "<img src=x" not in text
        assert "alert(2)</script>" not in text
        beside = [] if single else files_folder(page).iterdir()
        assert all("</script" not in path.read_text() for path in beside)


def test_report_made_again_replaces_its_own_folder_and_no_other(tmp_path: Path) -> None:
    page = _report(tmp_path, MadeUp(scans=150))
    _report(tmp_path, MadeUp(scans=10))
    assert sorted(path.name for path in files_folder(page).iterdir()) == [
        "data.js",
        "pack-0000.js",
        "sheet-0000.js",
    ]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (files_folder(page) / "data.js").unlink()
    (files_folder(page) / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="was not made by a report"):
        _report(tmp_path, MadeUp(scans=10))
    assert (files_folder(page) / "mine.txt").read_text() == "keep"


def test_one_file_holds_a_hundred_scans_and_no_more(tmp_path: Path) -> None:
    page = _report(tmp_path, MadeUp(scans=100), single_file=True)
    assert not files_folder(page).exists()
    assert "file:" not in re.findall(r'Content-Security-Policy" content="([^"]*)"', page.read_text())[0]
    with pytest.raises(UsageError, match=r"101 scans; at most 100 are legal"):
        _report(tmp_path, MadeUp(scans=101), single_file=True)


@pytest.mark.parametrize("name", ["report", "report.htm"])
def test_page_must_end_in_html(name: str, tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=3, pictures=False))
    with pytest.raises(UsageError, match=r"must be a file ending in \.html"):
        write_report(cohort, ReportRequest(tmp_path / "counts.parquet", tmp_path / name, tmp_path))


def test_disk_that_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=3, pictures=False))
    out = tmp_path / f"{'n' * 250}.html"
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        write_report(cohort, ReportRequest(tmp_path / "counts.parquet", out, tmp_path))
    assert [path for path in tmp_path.iterdir() if path.name.startswith((".", "n"))] == []


def test_decisions_of_a_file_are_in_the_data_and_counted(tmp_path: Path) -> None:
    decisions = {"sub-0001_PDw": Decision("reject", "motion", "AB"), "elsewhere": Decision("accept")}
    page = _report(tmp_path, MadeUp(scans=20), decisions=decisions)
    assert dict(_data(page)["decisions"])["sub-0001_PDw"] == {
        "verdict": "reject", "reason": "motion", "initials": "AB", "comment": ""
    }  # fmt: skip
    assert "0 accept, 0 doubt, 1 reject" in page.read_text()


def test_study_keeps_its_name_when_the_report_is_made_again(tmp_path: Path) -> None:
    first = _data(_report(tmp_path, MadeUp(scans=5)))["study"]
    assert _data(_report(tmp_path, MadeUp(scans=9)))["study"] == first
    (tmp_path / "other").mkdir()
    assert _data(_report(tmp_path / "other", MadeUp(scans=5)))["study"] != first


def test_cohort_in_which_all_failed_makes_a_page(tmp_path: Path) -> None:
    page = _report(tmp_path, MadeUp(scans=3, failed_every=1))
    assert "3 × unreadable" in page.read_text()
    assert _data(page)["measures"] == []


def test_command_writes_the_page_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_made_up(tmp_path / "counts.parquet", MadeUp(scans=12))
    (tmp_path / "decided.csv").write_text("scan,decision\nsub-0002_PDw,doubt\n")
    arguments = ["report", str(tmp_path / "counts.parquet"), "--decisions", str(tmp_path / "decided.csv")]
    monkeypatch.setattr("sys.argv", ["epvs-cohort", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    page = tmp_path / "counts.report.html"
    assert f"report: {page}" in capsys.readouterr().out
    assert dict(_data(page)["decisions"])["sub-0002_PDw"]["verdict"] == "doubt"


def test_payload_is_plain_json(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=12, pictures=False, covariates=False))
    json.dumps(payload(review(cohort, {}), study="s", packs=[0] * 12, placed=[None] * 12), allow_nan=False)
