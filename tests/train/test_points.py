"""Which scans the weight of method (f) is tuned on, and what is known of a scan's lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.errors import CountsError
from epvs_cohort.train.points import lesions_of, read_points, tuning_scans
from epvs_cohort.train.samples import Sample


def sample(n: int, count: float) -> Sample:
    return Sample(f"s{n:03d}", f"{n:03d}", Path("store") / f"{n}", count, 1)


#: Fifty scans counted 0, then a hundred with lesions, of which the even ones are marked.
SAMPLES = [sample(n, 0.0 if n < 50 else 4.0) for n in range(150)]
POINTS = {each.key: np.ones((4, 3)) for each in SAMPLES[50::2]}


def test_scans_with_lesions_come_first_and_from_all_of_them() -> None:
    chosen = tuning_scans(SAMPLES, POINTS, 40)
    assert len(chosen) == 40
    assert all(each.key in POINTS for each in chosen), "the first by key were counted 0 and tune nothing"
    assert (chosen[0].key, chosen[-1].key) == ("s050", "s146")
    assert chosen == tuning_scans(SAMPLES, POINTS, 40)


def test_scans_without_lesions_fill_what_is_left() -> None:
    chosen = tuning_scans(SAMPLES, dict(list(POINTS.items())[:3]), 5)
    assert [each.key for each in chosen] == ["s000", "s025", "s050", "s052", "s054"]


def test_where_no_lesion_is_marked_there_is_nothing_to_tune_on() -> None:
    assert tuning_scans(SAMPLES[:50], POINTS, 40) == ()
    assert tuning_scans(SAMPLES, {}, 40) == ()
    assert tuning_scans(SAMPLES, {"s050": np.zeros((0, 3))}, 40) == ()


def test_not_known_is_not_the_same_as_none() -> None:
    assert lesions_of(SAMPLES[51], POINTS) is None
    none = lesions_of(SAMPLES[0], POINTS)
    assert none is not None
    assert none.shape == (0, 3)
    assert lesions_of(SAMPLES[0], {}) is None


def test_marks_of_several_readers_are_no_truth(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("scan,reader,x_mm,y_mm,z_mm\na,A,1,2,3\na,B,1.5,2,3\n")
    with pytest.raises(CountsError, match=r"marks of 2 readers \('A', 'B'\)"):
        read_points(path, "roi")
    path.write_text("scan,reader,x_mm,y_mm,z_mm\na,A,1,2,3\na,A,1.5,2,3\n")
    assert len(read_points(path, "roi")["a"]) == 2


def test_a_place_is_marked_once_in_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("scan,x_mm,y_mm,z_mm\na,1,2,3\nb,1,2,3\na,1.0,2,3\n")
    with pytest.raises(CountsError, match=r"line 4: scan 'a' has a mark at 1\.0, 2, 3 already"):
        read_points(path, "roi")
