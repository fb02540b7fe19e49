"""A whole evaluation of a small table: who is in which figure, who is named, and what is never compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.compare.evaluate import EvaluateInput, evaluate
from epvs_cohort.compare.evaluation_files import RECORD_FILE, check_folder, write_evaluation
from epvs_cohort.compare.readers import reader_counts
from epvs_cohort.data.counts import Reading
from epvs_cohort.data.decisions import Decision
from epvs_cohort.errors import ConfigError, CountsError, UsageError
from epvs_cohort.report.evaluation import write_evaluation_page
from tests.compare.cohorts import AT, COUNTS, ROWS, SETTINGS, Row, readings, told, value, write_cohort


def test_figures_are_of_the_scans_that_both_counted(given: EvaluateInput) -> None:
    found = evaluate(given, SETTINGS)
    compared = found.comparisons[0]
    assert compared.scans == ("a", "b", "c", "d", "f")
    errors = np.array([0.2, -0.6, 0.4, 1.0, 0.0])
    assert value(found, "machine", "bias") == pytest.approx(errors.mean())
    assert value(found, "machine", "mae") == pytest.approx(np.abs(errors).mean())
    assert value(found, "machine", "mse") == pytest.approx((errors**2).mean())
    rows = found.figures[found.figures["kind"] == "machine"]
    assert (rows.loc[rows["by"] == "", "scans"] == 5).all()
    # Scans d and f are of one person.
    assert (rows.loc[rows["by"] == "", "subjects"] == 4).all()


def test_everything_that_is_not_as_it_should_be_is_named(given: EvaluateInput) -> None:
    notes = told(evaluate(given, SETTINGS))
    assert notes["without a count"] == ("e: failed: e.nii.gz: truncated",)
    assert notes["flagged, and counted in as any other scan"] == ("b: roi_snr 2 below 5",)
    assert notes["with a count by a reader, but not in the table of counts"] == ("z",)
    assert notes["in the table of counts without a count by a reader, and left out"] == ("g",)
    assert notes["with a marked lesion, but not in the table of counts"] == ("z",)
    assert notes["marked, but without a count: their lesions count as missed"] == ("e",)
    (several,) = (names for words, names in notes.items() if words.startswith("subjects with several scans"))
    assert several == ("4: d, f",)
    (alone,) = (names for words, names in notes.items() if words.startswith("without a subject"))
    assert alone == ("g",)


def test_marks_that_no_reader_counted_are_named(given: EvaluateInput) -> None:
    words = "another number of marks than any reader counted; they are taken as they are"
    assert words not in told(evaluate(given, SETTINGS))
    assert given.points is not None
    # a was counted 2 and marked 2; one more may be a slip of the pen.
    near, far = (
        {**given.points, "a": np.vstack([given.points["a"], added])}
        for added in ([[9.0, 9.0, 9.0]], [[9.0, 9.0, 9.0], [19.0, 9.0, 9.0]])
    )
    assert words not in told(evaluate(replace(given, points=near), SETTINGS))
    assert told(evaluate(replace(given, points=far), SETTINGS))[words] == ("a",)


def test_scans_without_points_have_no_lesion_only_where_readers_said_so(given: EvaluateInput) -> None:
    found = evaluate(given, SETTINGS)
    assert found.lesions is not None
    # c was counted 0; f was counted 4, so its points are missing; g was not looked at.
    assert [each.scan.key for each in found.lesions.outcomes] == ["a", "b", "c", "d", "e"]
    (unmarked,) = (
        names for words, names in told(found).items() if words.startswith("in no figure on lesions")
    )
    assert unmarked == ("f", "g")
    # a: 2 of 2; b: 3 of 4; d: 3 of 4 and 2 false; e failed: 0 of 2.
    assert value(found, "lesions", "sensitivity") == pytest.approx(8 / 12)
    assert value(found, "lesions", "false_discovery_rate") == pytest.approx(2 / 10)
    assert value(found, "lesions", "false_positives_per_scan") == pytest.approx(2 / 5)
    assert value(found, "lesions", "mean_sensitivity") == pytest.approx((1 + 3 / 4 + 3 / 4 + 0) / 4)
    assert value(found, "lesions", "absolute_count_difference") == pytest.approx((0 + 1 + 0 + 1) / 4)
    rows = found.figures[(found.figures["kind"] == "lesions") & (found.figures["by"] == "")]
    rows = rows.set_index("figure")
    # c has no lesion, c and e nothing located, c neither, and e has no count.
    scans = {"sensitivity": 5, "mean_sensitivity": 4, "mean_false_discovery_rate": 3, "mean_f1": 4}
    scans["absolute_count_difference"] = 4
    assert rows["scans"][list(scans)].to_dict() == scans
    assert rows["subjects"]["mean_sensitivity"] == 4
    everyone = evaluate(given, replace(SETTINGS, all_marked=True))
    assert everyone.lesions is not None
    assert [each.scan.key for each in everyone.lesions.outcomes] == ["a", "b", "c", "d", "e", "f"]


def test_rejected_scans_are_left_out_everywhere_and_counted(given: EvaluateInput) -> None:
    decisions = {"d": Decision("reject", "motion", "AB"), "a": Decision("doubt"), "y": Decision("accept")}
    found = evaluate(replace(given, decisions=decisions), SETTINGS)
    assert found.comparisons[0].scans == ("a", "b", "c", "f")
    assert found.lesions is not None
    assert "d" not in [each.scan.key for each in found.lesions.outcomes]
    notes = told(found)
    assert notes["rejected, and left out"] == ("d: reject: motion (AB)",)
    assert notes["in doubt, and kept"] == ("a: doubt",)
    assert notes["with a decision, but not in the table of counts"] == ("y",)
    left_out = found.scans.set_index("scan")["left_out"]
    assert left_out["d"] == "reject: motion (AB)"
    second = replace(
        given.cohort,
        scans=given.cohort.scans.assign(scan=[f"{row.scan}2" for row in ROWS]),
        about={**given.cohort.about, "run_id": "second"},
    )
    about_both = replace(given, decisions={"a2": Decision("accept")}, rescan=second)
    assert "with a decision, but not in the table of counts" not in told(
        evaluate(replace(about_both, rescan_pairs=(("a", "a2"), ("b", "b2"))), SETTINGS)
    )
    none = evaluate(replace(given, decisions={"a": Decision("accept")}), SETTINGS)
    assert "no scan is rejected" in told(none)


def test_decisions_that_are_about_no_scan_end_the_evaluation(given: EvaluateInput) -> None:
    strange = {"x": Decision("reject"), "y": Decision("accept")}
    with pytest.raises(CountsError, match="none of the 2 scans with a decision is in the table of counts"):
        evaluate(replace(given, decisions=strange), SETTINGS)
    by_subject = {"sub-1": Decision("reject"), "b": Decision("accept")}
    notes = told(evaluate(replace(given, decisions=by_subject), SETTINGS))
    assert notes["with a decision, but not in the table of counts"] == ("sub-1 (sub-1 is a subject, with a)",)
    assert "no scan is rejected" in notes
    assert "no scan is rejected" in told(evaluate(replace(given, decisions={}), SETTINGS))


def test_scans_of_the_second_visit_are_named_too(given: EvaluateInput, tmp_path: Path) -> None:
    rows = [
        Row("a", 2.0, "1", sha256="a"),
        Row("b", 3.0, "2", status="flagged", sha256="b"),
        Row("c", None, "3", status="failed"),
        Row("d", 5.0, "4", sha256="d"),
        Row("x", 1.0, "7", sha256="x"),
    ]
    second = replace(write_cohort(tmp_path / "second.parquet", rows), n_asked=9)
    decisions = {"x": Decision("reject", "motion"), "d": Decision("doubt")}
    asked = replace(given, rescan=second, decisions=decisions)
    found = evaluate(asked, replace(SETTINGS, without_flagged=True))
    notes = told(found)
    assert "no scan is rejected" not in notes
    assert "with a decision, but not in the table of counts" not in notes
    assert notes["second visit: rejected, and left out"] == ("x: reject: motion",)
    assert notes["second visit: in doubt, and kept"] == ("d: doubt",)
    assert notes["second visit: without a count"] == ("c: failed: c.nii.gz: truncated",)
    assert notes["second visit: flagged, and left out as asked"] == ("b: roi_snr 2 below 5",)
    assert "second visit: the run is not finished: 4 scans have no row yet, and are in no figure" in notes
    (both,) = (names for words, names in notes.items() if words.startswith("decided about by a key"))
    assert both == ("d",)
    assert found.second is not None
    assert found.second.keys == (("a", "a"), ("d", "d"))
    one_table = replace(asked, rescan=given.cohort, rescan_pairs=(("a", "d"), ("c", "f")))
    decided = replace(one_table, decisions={"b": Decision("reject")})
    assert not any(
        "second visit: rejected" in words or "by a key" in words
        for words in told(evaluate(decided, SETTINGS))
    )


def test_flagged_scans_may_be_left_out(given: EvaluateInput) -> None:
    found = evaluate(given, replace(SETTINGS, without_flagged=True))
    assert found.comparisons[0].scans == ("a", "c", "d", "f")
    assert told(found)["flagged, and left out as asked"] == ("b: roi_snr 2 below 5",)
    assert "status" not in set(found.figures["by"])


def test_readers_are_compared_on_scans_that_the_machine_failed_on(given: EvaluateInput) -> None:
    two = [*readings({"a": 2, "b": 4, "e": 3}, "A"), *readings({"d": 4, "e": 5, "f": 1}, "B")]
    found = evaluate(replace(given, readers=reader_counts(two, {}), points=None), SETTINGS)
    between = next(each for each in found.comparisons if each.kind == "inter-reader")
    assert (between.scans, between.ratings.tolist()) == (("e",), [[3.0, 5.0]])
    assert not any("counted by both A and B" in words for words in told(found))
    assert found.comparisons[0].scans == ("a", "b", "d", "f")
    without = evaluate(
        replace(given, readers=reader_counts(two, {}), points=None, decisions={"e": Decision("reject")}),
        SETTINGS,
    )
    assert "no scan was counted by both A and B" in told(without)


def test_a_scan_with_a_later_reading_only_is_compared_and_named(given: EvaluateInput) -> None:
    late = [*readings(COUNTS, "A"), Reading("g", "A", 2, 3)]
    found = evaluate(replace(given, readers=reader_counts(late, {}), points=None), SETTINGS)
    assert found.comparisons[0].scans == ("a", "b", "c", "d", "f", "g")
    notes = told(found)
    assert notes["counted by a reader without a first reading: the lowest there is is taken"] == (
        "g: A, reading 2",
    )
    assert found.scans.set_index("scan")["left_out"]["g"] == ""


def test_readers_who_counted_no_scan_together_are_named(given: EvaluateInput) -> None:
    apart = [*readings({"a": 2, "b": 4, "c": 1}, "A"), *readings({"d": 4, "f": 4}, "B")]
    found = evaluate(replace(given, readers=reader_counts(apart, {}), points=None), SETTINGS)
    assert "no scan was counted by both A and B" in told(found)
    assert "inter-reader" not in set(found.figures["kind"])


def test_a_table_without_lesions_and_with_equal_counts_is_evaluated_all_the_same(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "none.parquet", [Row("a", 0.0, "1"), Row("b", 0.0, "1")])
    asked = EvaluateInput(cohort, reader_counts(readings({"a": 0, "b": 0}), {}), {})
    found = evaluate(asked, SETTINGS)
    undefined = found.figures[found.figures["figure"].isin(["icc_a1", "sensitivity", "froc_area", "r2"])]
    assert len(undefined) == 4
    assert undefined["value"].isna().all()
    assert value(found, "lesions", "false_positives_per_scan") == 0.0
    # Two scans of one person have no interval.
    assert found.figures["low"].isna().all()
    write_evaluation_page(tmp_path / "page", found, {"table": "none.parquet"})


def test_other_targets_are_never_compared(given: EvaluateInput) -> None:
    with pytest.raises(
        ConfigError, match=r"\(ac_slice\), the table's of the whole region of interest \(roi\)"
    ):
        evaluate(given, replace(SETTINGS, count_target="ac_slice"))
    unsaid = evaluate(given, replace(SETTINGS, count_target=None))
    assert any("taken to be of the whole region" in words for words in told(unsaid))
    assert not any("taken to be" in words for words in told(evaluate(given, SETTINGS)))


def test_keys_of_other_scans_are_refused_and_subjects_recognised(given: EvaluateInput) -> None:
    by_subject = reader_counts(readings({"sub-4": 3, "sub-1": 2}), {})
    with pytest.raises(
        CountsError, match=r"'sub-1' \(sub-1 is a subject, with a\), those of the table as 'a'"
    ):
        evaluate(replace(given, readers=by_subject), SETTINGS)
    one = reader_counts(readings({"a": 3}), {})
    with pytest.raises(UsageError, match="1 scans are counted by the program and by a reader"):
        evaluate(replace(given, readers=one), SETTINGS)


@pytest.mark.parametrize("column", ["x_mm", "peak_heat"])
def test_a_lesion_without_a_place_or_a_score_is_named(given: EvaluateInput, column: str) -> None:
    lesions = given.cohort.lesions
    lesions.loc[(lesions["scan"] == "b") & (lesions["lesion"] == 2), column] = np.nan
    with pytest.raises(ConfigError, match=f"scan 'b', lesion 2: {column} is nan in the table of lesions"):
        evaluate(given, SETTINGS)
    rejected = evaluate(replace(given, decisions={"b": Decision("reject")}), SETTINGS)
    assert rejected.lesions is not None


def test_located_lesions_of_a_scan_without_a_count_are_said_to_be_compared(given: EvaluateInput) -> None:
    scans = given.cohort.scans
    scans.loc[scans["scan"] == "a", "count"] = np.nan
    found = evaluate(given, SETTINGS)
    notes = told(found)
    assert notes["without a count"] == ("a: no count in the table", "e: failed: e.nii.gz: truncated")
    assert notes["marked, but without a count: their lesions count as missed"] == ("e",)
    assert notes["marked, and without a count, but with located lesions, which are compared"] == ("a",)
    assert value(found, "lesions", "sensitivity") == pytest.approx(8 / 12)


def test_in_the_slice_cross_sections_are_compared(tmp_path: Path) -> None:
    rows = [Row("a", 2.0, "1", lesions=AT[:2]), Row("b", 1.0, "2", lesions=AT[:1])]
    cohort = write_cohort(tmp_path / "slice.parquet", rows, "ac_slice")
    points = {"a": np.array(AT[:2]), "b": np.array(AT[:1])}
    asked = EvaluateInput(cohort, reader_counts(readings({"a": 2, "b": 1}), {}), points)
    found = evaluate(asked, replace(SETTINGS, count_target="ac_slice"))
    # The lesions' own centres lie 5 mm above: they would match nothing.
    assert value(found, "lesions", "sensitivity") == 1.0


def test_readers_stand_beside_the_machine(given: EvaluateInput) -> None:
    # Without e, which the machine failed on: all figures are then of the same scans.
    counts = {key: count for key, count in COUNTS.items() if key != "e"}
    again = {key: count + (key == "b") for key, count in counts.items()}
    three = [
        *readings(counts, "A"),
        *readings(again, "A2"),
        *readings({k: c + 1 for k, c in counts.items()}, "B"),
    ]
    found = evaluate(replace(given, readers=reader_counts(three, {"A2": "A"}), points=None), SETTINGS)
    rows = found.figures[found.figures["by"] == ""]
    kinds = rows.groupby(["kind", "first", "second"], sort=False).size().index.tolist()
    assert kinds == [
        ("machine", "machine", "mean of readers"),
        ("machine", "machine", "A"),
        ("machine", "machine", "B"),
        ("inter-reader", "A", "B"),
        ("intra-reader", "A", "A, reading 2"),
        ("difference", "machine with A", "A, reading 2 with A"),
        ("difference", "machine with A", "B with A"),
        ("difference", "machine with B", "A with B"),
    ]
    ours = rows[(rows["kind"] == "machine") & (rows["second"] == "A") & (rows["figure"] == "icc_a1")]
    theirs = rows[(rows["kind"] == "intra-reader") & (rows["figure"] == "icc_a1")]
    gap = rows[(rows["second"] == "A, reading 2 with A") & (rows["figure"] == "icc_a1")]
    assert gap["value"].iloc[0] == pytest.approx(ours["value"].iloc[0] - theirs["value"].iloc[0])
    assert (gap["low"] <= gap["value"]).all()


def test_files_hold_what_was_found_and_replace_an_earlier_evaluation(
    given: EvaluateInput, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    check_folder(out)
    found = evaluate(given, SETTINGS)
    write_evaluation(out, found, {"table": "counts.parquet"})
    names = {path.name for path in out.iterdir()}
    assert names == {
        f"{name}.{end}" for name in ("figures", "scans", "lesions", "froc") for end in ("csv", "parquet")
    } | {RECORD_FILE}
    pd.testing.assert_frame_equal(pd.read_parquet(out / "figures.parquet"), found.figures, check_dtype=False)
    scans = pd.read_csv(out / "scans.csv").set_index("scan")
    told_of = ["count", "count by reader", "lesions_matched"]
    assert scans[told_of].to_dict("index")["a"] == {"count": 2.2, "count by reader": 2, "lesions_matched": 2}
    assert scans["lesions_marked"].dropna().index.tolist() == ["a", "b", "c", "d", "e"]
    check_folder(out)
    write_evaluation(out, evaluate(replace(given, points=None), SETTINGS), {"table": "counts.parquet"})
    assert not (out / "lesions.csv").exists()
    with pytest.raises(UsageError, match=r"none of them is evaluation\.json"):
        check_folder(tmp_path)
