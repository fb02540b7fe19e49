from __future__ import annotations

import json
from pathlib import Path

import pytest

from epvs_cohort.data.images import read_image
from epvs_cohort.data.sidecar import iso_date, scanner_name
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import AcquisitionFacts
from tests.data.bad_input import write_nifti

DEFAULT = InputSettings()


def test_facts_come_from_the_side_car_and_nothing_else_does(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "sub-1_T2w.nii.gz")
    fields = {
        "Manufacturer": "Siemens",
        "ManufacturersModelName": "Prisma",
        "MagneticFieldStrength": 3,
        "AcquisitionDateTime": "2012-05-06T10:11:12.5",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "1940-01-01",
        "ImageComments": "SECRET",
    }
    (tmp_path / "sub-1_T2w.json").write_text(json.dumps(fields))
    image = read_image(path, DEFAULT)
    assert image.facts == AcquisitionFacts("Siemens Prisma 3T", "2012-05-06")
    assert "Doe" not in repr(image.notes) + repr(image.facts)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\udcff", '{"Manufacturer": NaN', "[" * 100_000])
def test_damaged_side_car_is_a_note(text: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii")
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    image = read_image(path, DEFAULT)
    assert image.facts == AcquisitionFacts()
    assert any("a.json" in note for note in image.notes)


@pytest.mark.parametrize("text", ["2001-13-01", "20010230", "1", "", None, 5, "2001", "200103161"])
def test_what_is_no_date_is_unknown(text: object) -> None:
    assert iso_date(text) is None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((None, None, None), None),
        (("GE", None, "1.5"), "GE 1.5T"),
        ((None, None, 15000), None),
        (("A\x1b[31m", "B", float("nan")), "B"),
        (("  A   B ", "C" * 200, 3.0), "A B " + "C" * 64 + " 3T"),
    ],
)
def test_scanner_names(parts: tuple[object, object, object], expected: str | None) -> None:
    assert scanner_name(*parts) == expected
