"""Real scans of real people: thick slices, skull-stripped, DICOM. One row each, none crashing."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from tests.cohort.conftest import TWO_PROCESSES


@pytest.fixture(scope="module")
def cohort(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    out = tmp_path_factory.mktemp("real") / "counts.parquet"
    return run_cohort(RunRequest(shared_data / "real", out, cluster=TWO_PROCESSES))


def flags(cohort: Cohort, key: str) -> str:
    return " ".join(cohort.scans.set_index("scan")["flags"][key])


def value(cohort: Cohort, key: str, measure: str) -> float:
    rows = cohort.qc[(cohort.qc["scan"] == key) & (cohort.qc["measure"] == measure)]
    return float(rows["value"].iloc[0])


def test_every_real_scan_has_one_row_and_none_fails(cohort: Cohort) -> None:
    assert sorted(cohort.scans["scan"]) == [
        "brain_only_t2_1mm",
        "dicom_pd",
        "head_t2_1mm",
        "head_t2_thick_5.5mm",
        "pair_visit1_t2",
        "pair_visit2_t2",
    ]
    assert set(cohort.scans["status"]) <= {"ok", "flagged"}
    assert cohort.scans["count"].notna().all()


def test_thick_slices_are_flagged_and_thin_ones_are_not(cohort: Cohort) -> None:
    for key in ("head_t2_thick_5.5mm", "dicom_pd", "pair_visit1_t2", "pair_visit2_t2"):
        assert "slice_thickness_mm" in flags(cohort, key), key
    for key in ("head_t2_1mm", "brain_only_t2_1mm"):
        assert "slice_thickness_mm" not in flags(cohort, key), key


def test_the_outline_has_the_size_of_basal_ganglia(cohort: Cohort) -> None:
    for key in cohort.scans["scan"]:
        both = sum(value(cohort, key, f"roi_volume_{side}_mm3") for side in ("left", "right"))
        assert 14_000 < both < 36_000, key


def test_two_visits_of_one_person_have_like_outlines(cohort: Cohort) -> None:
    for side in ("left", "right"):
        one, other = (
            value(cohort, key, f"roi_volume_{side}_mm3") for key in ("pair_visit1_t2", "pair_visit2_t2")
        )
        assert one == pytest.approx(other, rel=0.1)


def test_a_missing_skull_and_a_scanner_are_noticed(cohort: Cohort) -> None:
    assert value(cohort, "brain_only_t2_1mm", "skull_stripped") == 1
    assert value(cohort, "head_t2_1mm", "skull_stripped") == 0
    row = cohort.scans.set_index("scan").loc["dicom_pd"]
    assert row["scanner"] == "GE Medical Systems SIGNA 1.5T"
    assert row["acquisition_date"] == "2001-03-16"
