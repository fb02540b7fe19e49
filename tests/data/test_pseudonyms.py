"""Pseudonyms: the same for the same secret, useless without it, and the files are still read in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.data.discover import discover
from epvs_cohort.data.images import read_image
from epvs_cohort.data.pseudonyms import Secret, check_place, pseudonymised, read_secret
from epvs_cohort.errors import UsageError
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import Scan
from tests.data.bad_input import write_nifti, write_series

SECRET = b"0123456789abcdef0123456789abcdef"


def _secret(folder: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    path = folder / "study.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_pseudonyms_depend_on_secret_kind_and_name_alone(tmp_path: Path) -> None:
    secret = read_secret(_secret(tmp_path))
    other = Secret(secret.path, b"f" * 32)
    names = [secret.pseudonym("scan", "a"), secret.pseudonym("scan", "b"), secret.pseudonym("subject", "a")]
    assert len({*names, other.pseudonym("scan", "a")}) == 4
    assert secret.pseudonym("scan", "a") == Secret(Path("elsewhere"), SECRET).pseudonym("scan", "a")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"short\n", 0o600, "5 bytes; legal are 16 to 4096"),
        (b"", 0o600, "empty"),
        (b"x" * 5000, 0o600, "legal are 16 to 4096"),
        (SECRET, 0o644, "others may read it"),
        (SECRET, 0o620, "others may read it"),
    ],
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes, mode: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_secret(_secret(tmp_path, content, mode))


def test_a_missing_secret_is_refused_with_a_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        read_secret(tmp_path / "gone")
    assert "openssl rand" in caught.value.hint


def test_scans_are_read_alike_by_their_links(tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "Doe_Jane"
    folder.mkdir(parents=True)
    write_nifti(folder / "Jane_T2.nii.gz")
    (folder / "Jane_T2.json").write_text('{"Manufacturer": "Vendor"}')
    write_series(folder / "Jane_dicom")
    scans = discover(tmp_path / "scans").scans
    renamed = pseudonymised(scans, read_secret(_secret(tmp_path)))
    assert [scan.key for scan in renamed] == sorted(scan.key for scan in renamed)
    secret = read_secret(tmp_path / "study.key")
    by_key = {scan.key: scan for scan in renamed}
    for scan in scans:
        under = by_key[secret.pseudonym("scan", scan.key)]
        assert "Jane" not in f"{under} {[path.name for path in under.path.parent.rglob('*')]}"
        mine, other = (read_image(path, InputSettings()) for path in (scan.path, under.path))
        np.testing.assert_array_equal(mine.data, other.data)
        np.testing.assert_array_equal(mine.affine, other.affine)
        assert mine.facts == other.facts
    again = pseudonymised(scans, secret)
    assert again == renamed


def test_side_files_subjects_and_sessions_are_renamed_too(tmp_path: Path) -> None:
    for name in ("jane.nii.gz", "jane_mask.nii.gz"):
        write_nifti(tmp_path / name)
    (tmp_path / "jane.lta").write_text("x")
    scan = Scan(
        "jane",
        tmp_path / "jane.nii.gz",
        subject="jane",
        session="1931",
        mask=tmp_path / "jane_mask.nii.gz",
        aseg_to_scan=tmp_path / "jane.lta",
        covariates={"age": 70},
    )
    (under,) = pseudonymised([scan], read_secret(_secret(tmp_path)))
    assert under.mask is not None
    assert under.mask.resolve() == tmp_path / "jane_mask.nii.gz"
    assert under.aseg_to_scan is not None
    assert under.aseg_to_scan.name == "aseg_to_scan.lta"
    assert (under.subject, under.session) != (None, None)
    assert "jane" not in str(under)
    assert under.covariates == {"age": 70}


def test_a_scan_that_changes_its_place_leads_to_the_new_one(tmp_path: Path) -> None:
    secret = read_secret(_secret(tmp_path))
    first, second = write_nifti(tmp_path / "a.nii"), write_nifti(tmp_path / "b.nii")
    (under,) = pseudonymised([Scan("one", first)], secret)
    assert under.path.resolve() == first
    (again,) = pseudonymised([Scan("one", second)], secret)
    assert (again.path, again.path.resolve()) == (under.path, second)


def test_a_header_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text(
        "NDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = jane.raw\n"
    )
    with pytest.raises(UsageError, match="voxels lie in other files"):
        pseudonymised([Scan("a", tmp_path / "a.mhd")], read_secret(_secret(tmp_path)))


def test_a_missing_scan_still_ends_as_one_that_fails(tmp_path: Path) -> None:
    (under,) = pseudonymised([Scan("a", tmp_path / "gone.nii")], read_secret(_secret(tmp_path)))
    with pytest.raises(Exception, match="a symbolic link to a file that does not exist") as caught:
        read_image(under.path, InputSettings())
    assert "gone" not in str(caught.value)


def test_links_that_are_right_are_not_touched_and_others_replaced(tmp_path: Path) -> None:
    secret = read_secret(_secret(tmp_path))
    folder = write_series(tmp_path / "d")
    (under,) = pseudonymised([Scan("d", folder)], secret)
    numbers = {link.name: link.lstat().st_ino for link in under.path.iterdir()}
    made = under.path.stat().st_mtime_ns
    pseudonymised([Scan("d", folder)], secret)
    assert {link.name: link.lstat().st_ino for link in under.path.iterdir()} == numbers
    assert under.path.stat().st_mtime_ns == made
    (folder / "slice002.dcm").unlink()
    pseudonymised([Scan("d", folder)], secret)
    assert [link.resolve() for link in sorted(under.path.iterdir())] == sorted(folder.iterdir())


def test_the_table_keeps_the_names_of_earlier_starts(tmp_path: Path) -> None:
    secret = read_secret(_secret(tmp_path))
    image = write_nifti(tmp_path / "a.nii")
    for scan in (Scan("one", image, subject="jane"), Scan("two", image), Scan("one", image, subject="jane")):
        pseudonymised([scan], secret)
    lines = secret.table.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["scan", "one", "two"]
    assert secret.table.stat().st_mode & 0o777 == 0o600
    secret.table.write_text("my own notes\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        pseudonymised([Scan("two", image)], secret)
    assert "not overwritten" in caught.value.hint
    assert secret.table.read_text() == "my own notes\n"


def test_a_secret_among_the_scans_is_refused(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "below").mkdir(parents=True)
    (tmp_path / "other").symlink_to(scans / "below")
    for place in (scans, scans / "below", tmp_path / "other"):
        with pytest.raises(UsageError, match="legal is a place outside of it"):
            check_place(read_secret(_secret(place)), scans)
        (place / "study.key").unlink()
    check_place(read_secret(_secret(tmp_path)), scans)
    check_place(read_secret(tmp_path / "study.key"), write_nifti(tmp_path / "a.nii"))
