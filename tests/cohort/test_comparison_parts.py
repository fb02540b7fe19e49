"""What the scans of a comparison are split into, and what is said of marks that do not belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.cohort.comparison_parts import (
    Marks,
    Splitting,
    check_marks,
    check_parts,
    notes_of,
    split_scans,
)
from epvs_cohort.errors import CountsError
from epvs_cohort.train.points import Points
from epvs_cohort.train.samples import Matched, Sample

HOW = Splitting(None, 1)


def matched(n: int, *, empty: int = 0, without_image: tuple[str, ...] = ()) -> Matched:
    samples = tuple(
        Sample(f"s{k:02d}", f"{k:02d}", Path("x"), 0.0 if k < empty else 3.0, 1) for k in range(n)
    )
    return Matched(samples, without_image, ("uncounted",))


def marked(scans: Matched, *keys: str) -> Points:
    return {key: np.zeros((3, 3)) for key in keys or (each.key for each in scans.samples if each.count)}


def test_the_split_does_not_hang_on_the_scans_that_can_be_used() -> None:
    scans = matched(13, empty=2)
    whole = split_scans(scans, marked(scans), HOW)
    for left_out in scans.samples:
        parts = whole.only({each.key for each in scans.samples} - {left_out.key})
        assert parts.by_key == {key: part for key, part in whole.by_key.items() if key != left_out.key}


def test_test_scans_whose_lesions_are_not_known_are_left_out_and_named(tmp_path: Path) -> None:
    scans = matched(6)
    path = tmp_path / "split.csv"
    rows = zip(scans.samples, ("train", "train", "val", "val", "test", "test"), strict=True)
    path.write_text("scan,split\n" + "".join(f"{each.key},{part}\n" for each, part in rows))
    how = Splitting(path, 1)
    whole = split_scans(scans, marked(scans, "s05"), how)
    assert [each.key for each in whole.test] == ["s05"]
    said = notes_of(whole, whole, scans.samples, how)
    assert said[0].startswith("Split as split.csv says: 2 scans of 2 subjects to train")
    assert said[1] == "1 test scans have a count and no marked lesion, and are left out: s04."


def test_scans_counted_0_are_said_of_each_part() -> None:
    scans = matched(30, empty=10)
    whole = split_scans(scans, marked(scans), HOW)
    (said,) = notes_of(whole, whole, scans.samples, HOW)
    assert said == (
        "Split by subject (seed 1): 18 scans of 18 subjects to train (6 counted 0), 6 scans of 6 subjects to tune "
        "(2 counted 0), 6 scans of 6 subjects to test (2 counted 0)."
    )


def test_marks_that_do_not_belong_are_named() -> None:
    scans = matched(4, empty=1, without_image=("gone",))
    points = {**marked(scans, "s00", "s01", "gone", "uncounted", "stranger"), "s02": np.zeros((9, 3))}
    strange, passed, odd = check_marks(Marks(Path("p.csv"), points), scans)
    assert strange.endswith("neither found nor counted, and are passed over: stranger.")
    assert passed.endswith("no count, or no image, and are passed over: gone, uncounted.")
    assert odd.endswith("s00 (count 0, 3 marked), s02 (count 3, 9 marked).")
    assert check_marks(Marks(Path("p.csv"), marked(scans)), scans) == ()


def test_marks_of_none_of_the_scans_are_refused() -> None:
    scans = matched(4, empty=2)
    with pytest.raises(
        CountsError, match=r"p.csv: none of its 1 scans .* are s01_T2w; counted are s00, s01, s02"
    ):
        check_marks(Marks(Path("p.csv"), marked(scans, "s01_T2w")), scans)


def test_a_test_part_without_a_lesion_is_refused(tmp_path: Path) -> None:
    scans = matched(4, empty=2)
    path = tmp_path / "split.csv"
    rows = zip(scans.samples, ("test", "test", "train", "val"), strict=True)
    path.write_text("scan,split\n" + "".join(f"{each.key},{part}\n" for each, part in rows))
    points = marked(scans)
    parts = split_scans(scans, points, Splitting(path, 1))
    assert len(parts.test) == 2
    with pytest.raises(
        CountsError, match="2 test scans whose lesions are known are left, and no lesion is marked"
    ):
        check_parts(parts, points, training=False)


def test_too_few_to_train_are_said_where_something_is_trained() -> None:
    scans = matched(3)
    points = marked(scans)
    parts = split_scans(scans, points, HOW)
    check_parts(parts, points, training=False)
    with pytest.raises(CountsError, match="1 scans to train on and 1 to validate") as caught:
        check_parts(parts, points, training=True)
    assert "--split" in caught.value.hint
