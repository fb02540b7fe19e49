"""Second visits: which scans are pairs, which are not and why, and lesions matched in MNI space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.compare.marked import Reach
from epvs_cohort.compare.rescan import lesion_pair_figures, match_in_mni, pair_scans, read_pairs
from epvs_cohort.compare.second_visit import SecondVisit, Visits, second_visit
from epvs_cohort.compare.sheet import scan_sheet
from epvs_cohort.data.decisions import Decision
from epvs_cohort.errors import ConfigError, ManifestError, UsageError
from tests.compare.cohorts import Row, write_cohort

SPACING = (0.49, 0.49, 0.8)


def visits(tmp_path: Path, first: list[Row], second: list[Row], **about: object) -> Visits:
    one = write_cohort(tmp_path / "first.parquet", first)
    two = write_cohort(tmp_path / "second.parquet", second, **about)  # type: ignore[arg-type]
    reject = {"r": Decision("reject", "motion")}
    sheets = (scan_sheet(each.scans, reject, without_flagged=False) for each in (one, two))
    return Visits(one, two, *sheets)


def told(visit: SecondVisit) -> dict[str, tuple[str, ...]]:
    return {note.words: note.names for note in visit.notes}


def test_scans_of_one_key_are_pairs_and_others_are_named(tmp_path: Path) -> None:
    both = visits(
        tmp_path,
        [Row("a", 3.0), Row("b", 5.0), Row("c", 1.0), Row("r", 2.0), Row("f", None, status="failed")],
        [Row("a", 4.0), Row("b", 5.5), Row("d", 9.0), Row("r", 2.0), Row("f", 7.0)],
    )
    visit = second_visit(both, None, Reach())
    assert visit.how == "by the key of the scan"
    assert visit.keys == (("a", "a"), ("b", "b"))
    # Second minus first: the second visit stands first.
    assert visit.counts.ratings.tolist() == [[4.0, 3.0], [5.5, 5.0]]
    assert told(visit) == {
        "scans of the first table without a second scan": ("c",),
        "scans of the second table without a first scan": ("d",),
        "pairs left out, because a scan of the pair is left out": (
            "r: first visit: reject: motion; second visit: reject: motion",
        ),
        "pairs left out, because a scan of the pair has no count": (
            "f: first visit: failed: f.nii.gz: truncated",
        ),
    }


def test_where_no_key_is_shared_subjects_tell_but_several_scans_are_never_guessed_among(
    tmp_path: Path,
) -> None:
    both = visits(
        tmp_path,
        [Row("1-base", 3.0, "1"), Row("2-base", 5.0, "2"), Row("3-base", 1.0, "3"), Row("x", 2.0)],
        [Row("1-late", 4.0, "1"), Row("2-late", 5.0, "2"), Row("3-late", 2.0, "3"), Row("3-later", 2.5, "3")],
    )
    visit = second_visit(both, None, Reach())
    assert visit.how == "by subject"
    assert visit.keys == (("1-base", "1-late"), ("2-base", "2-late"))
    assert told(visit)["subjects with several scans, which are not paired: name the pairs"] == (
        "3: 3-base and 3-late, 3-later",
    )
    assert told(visit)["scans of the first table without a second scan"] == ("x",)
    given = pair_scans(both.first_sheet, both.second_sheet, [("3-base", "3-later"), ("x", "1-late")])
    assert given.keys == (("3-base", "3-later"), ("x", "1-late"))
    assert {note.words: note.names for note in given.notes} == {
        "scans of the first table without a second scan": ("1-base", "2-base"),
        "scans of the second table without a first scan": ("2-late", "3-late"),
    }
    with pytest.raises(UsageError, match="no scan '4-late' in the second table"):
        pair_scans(both.first_sheet, both.second_sheet, [("3-base", "4-late")])


def test_scans_of_different_people_are_never_paired_unless_named(tmp_path: Path) -> None:
    first = [Row(key, 2.0, n) for key, n in zip("abc", "123", strict=True)]
    second = [Row("a", 2.5, "1"), Row("b", 2.5, "2"), Row("c", 3.0, "9")]
    both = visits(tmp_path, first, second)
    found = second_visit(both, None, Reach())
    assert found.keys == (("a", "a"), ("b", "b"))
    (names,) = (n for words, n in told(found).items() if "different subjects" in words)
    assert names == ("c: subjects 3 and 9",)
    named = pair_scans(both.first_sheet, both.second_sheet, [("a", "b"), ("c", "a")])
    (names,) = (note.names for note in named.notes if "different subjects" in note.words)
    assert names == ("a and b: subjects 1 and 2", "c and a: subjects 3 and 1")
    others = [Row(key, 2.0, "x") for key in "abc"]
    with pytest.raises(UsageError, match=r"no scan .* is a pair.* a: subjects 1 and x"):
        second_visit(visits(tmp_path / "others", first, others), None, Reach())


def test_a_pair_of_one_table_counts_once(tmp_path: Path) -> None:
    rows = [Row(key, 2.0, "1") for key in "abcd"]
    one = visits(tmp_path, rows, rows)
    both = Visits(one.first, one.first, one.first_sheet, one.first_sheet)
    assert both.one_table
    assert not one.one_table
    for pairs, words in (
        ([("a", "b"), ("b", "a")], "stands the other way round already"),
        ([("a", "a")], "one scan of one table is no pair"),
    ):
        with pytest.raises(UsageError, match=words):
            second_visit(both, pairs, Reach())
    found = second_visit(both, [("a", "b"), ("b", "c")], Reach())
    assert told(found) == {"scans of the table in no pair": ("d",)}


def test_a_session_that_is_left_out_does_not_make_a_subject_have_several(tmp_path: Path) -> None:
    first = [Row("1-base", 3.0, "1"), Row("2-base", 5.0, "2")]
    second = [Row("1-late", 4.0, "1"), Row("r", 4.0, "1"), Row("2-late", 5.0, "2")]
    found = second_visit(visits(tmp_path, first, second), None, Reach())
    assert found.keys == (("1-base", "1-late"), ("2-base", "2-late"))
    assert told(found) == {}


def test_one_image_counted_twice_is_no_second_visit(tmp_path: Path) -> None:
    rows = [Row(key, 3.0, sha256=key * 3) for key in "abc"]
    other = [Row("a", 3.0, sha256="new"), Row("b", 3.0, sha256="newer"), rows[2]]
    visit = second_visit(visits(tmp_path, rows, other), None, Reach())
    assert visit.keys == (("a", "a"), ("b", "b"))
    assert told(visit) == {"pairs left out, because both are one image": ("c",)}
    with pytest.raises(UsageError, match="0 pairs have two counts of two images") as raised:
        second_visit(visits(tmp_path / "again", rows, rows), None, Reach())
    assert "a, b, c" in raised.value.hint


def test_a_lesion_without_a_place_in_mni_space_is_named(tmp_path: Path) -> None:
    rows = [Row("a", 1.0, lesions=[[1.0, 2, 3]]), Row("b", 1.0, lesions=[[1.0, 2, 3]])]
    both = visits(tmp_path, rows, rows)
    both.second.lesions.loc[1, "mni_y_mm"] = np.nan
    words = "scan 'b', lesion 1: mni_y_mm is nan in the table of lesions of the second visit"
    with pytest.raises(ConfigError, match=words):
        second_visit(both, None, Reach())


def test_other_targets_are_refused_and_other_models_named(tmp_path: Path) -> None:
    rows = [Row("a", 3.0), Row("b", 2.0)]
    with pytest.raises(ConfigError, match="its counts are of ac_slice, those of the first table of roi"):
        second_visit(visits(tmp_path, rows, rows, target="ac_slice"), None, Reach())
    visit = second_visit(visits(tmp_path / "other", rows, rows, model_id="other"), None, Reach())
    (names,) = told(visit).values()
    assert names == (f"model_id: {'m' * 16} and other",)


def test_no_pair_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scan of the two tables is a pair"):
        second_visit(visits(tmp_path, [Row("a", 1.0, "1")], [Row("b", 1.0, "2")]), None, Reach())


def test_lesions_are_matched_within_voxels_of_the_grid_or_mm() -> None:
    first = np.array([[0.0, 0, 0], [10, 0, 0], [20, 0, 0]])
    second = np.array([[0.0, 0, 2.3], [11.4, 0, 0], [22, 0, 0], [50, 0, 0]])
    in_voxels = match_in_mni(first, second, Reach(), SPACING)
    assert (in_voxels.first, in_voxels.second, in_voxels.matched) == (3, 4, 2)
    assert sorted(in_voxels.distance_mm) == pytest.approx([1.4, 2.3])
    assert match_in_mni(first, second, Reach(2.0, "mm"), SPACING).matched == 2
    assert match_in_mni(first, second, Reach(2.4, "mm"), SPACING).matched == 3


def test_agreement_of_lesions_by_hand() -> None:
    pairs = [
        match_in_mni(np.array([[0.0, 0, 0], [9, 9, 9]]), np.array([[1.0, 0, 0]]), Reach(1.0, "mm"), SPACING),
        match_in_mni(np.zeros((0, 3)), np.zeros((1, 3)), Reach(), SPACING),
    ]
    found = {name: float(value[0]) for name, value in lesion_pair_figures(pairs, np.ones((1, 2))).items()}
    assert found == pytest.approx(
        {"found_again": 1 / 2, "found_before": 1 / 2, "lesion_agreement": 2 / 4, "mean_distance_mm": 1.0}
    )
    nothing = lesion_pair_figures(pairs[1:], np.ones((1, 1)))
    assert np.isnan([nothing["found_again"][0], nothing["mean_distance_mm"][0]]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan,other\na,b\n", "no column rescan; found scan, other"),
        ("scan,rescan\n", "no pair in it"),
        ("scan,rescan\na,\n", "line 2: rescan is empty"),
        ("scan,rescan\na,b\na,c\n", "line 2: scan 'a' stands twice"),
    ],
)
def test_pairs_that_cannot_be_told_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=words):
        read_pairs(path)
