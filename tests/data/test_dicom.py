from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import UID, BasicTextSRStorage, DeflatedExplicitVRLittleEndian, MRImageStorage

from epvs_cohort.data.dicom import find_series, is_dicom, may_be_dicom
from epvs_cohort.data.identity import FileState, sha256_of
from epvs_cohort.data.images import describe, read_image
from epvs_cohort.errors import UnreadableError, UnsuitableImageError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import AcquisitionFacts, Image
from tests.data.bad_input import Slice, write_nifti, write_series, write_slice

DEFAULT = InputSettings()


def world_of(image: Image, voxel: tuple[int, int, int]) -> list[float]:
    return [float(value) for value in apply_affine(image.affine, voxel)]


def test_dicom_series_pixels_lie_where_their_headers_say(tmp_path: Path) -> None:
    # Numbers run against the positions, so that neither name nor number can pass for the order of slices.
    folder = write_series(tmp_path / "d", *(Slice(number, 30.0 - 3.0 * number) for number in range(6)))
    image = read_image(folder, DEFAULT)
    assert image.data.shape == (12, 14, 6)
    assert image.data.dtype == np.uint16
    # Highest number lies lowest: slice 5 at z = 15. Pixel of row 3, column 2 there.
    assert int(image.data[2, 3, 0]) == 5 * 1000 + 20 * 3 + 2
    # LPS (-30 + 2 * 0.8, -40 + 3 * 0.9, 15) in RAS.
    assert world_of(image, (2, 3, 0)) == pytest.approx([28.4, 37.3, 15.0])
    assert image.facts == AcquisitionFacts("GE Signa 1.5T", "2005-12-24")
    assert "SECRET" not in repr((image.facts, image.notes))


def test_dicom_agrees_with_what_itk_makes_of_the_series(shared_data: Path, tmp_path: Path) -> None:
    # ITK plods for seconds through what stands behind the pixels of the first file.
    folder = tmp_path / "series"
    folder.mkdir()
    for file in sorted((shared_data / "real" / "dicom_pd").iterdir())[1:]:
        (folder / file.name).symlink_to(file)
    image = read_image(folder, DEFAULT)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    reference = sitk.ReadImage(names)
    np.testing.assert_array_equal(np.asarray(image.data), sitk.GetArrayFromImage(reference).T)
    corner = reference.TransformIndexToPhysicalPoint((255, 255, 0))
    assert world_of(image, (255, 255, 0)) == pytest.approx([-corner[0], -corner[1], corner[2]], abs=0.01)
    assert image.facts.scanner == "GE Medical Systems SIGNA 1.5T"
    assert image.notes == ()


def test_oblique_slices_keep_their_geometry(tmp_path: Path) -> None:
    tilt = np.radians(20.0)
    row, column = (1.0, 0.0, 0.0), (0.0, float(np.cos(tilt)), float(np.sin(tilt)))
    slices = [Slice(number, 3.0 * number, row=row, column=column) for number in range(4)]
    image = read_image(write_series(tmp_path / "d", *slices), DEFAULT)
    # Slices are stacked along z while their normal is tilted: a sheared lattice, as a tilted gantry gives.
    assert world_of(image, (0, 0, 3)) == pytest.approx([30.0, 40.0, 9.0])
    assert world_of(image, (0, 10, 0)) == pytest.approx([30.0, 40.0 - 9.0 * np.cos(tilt), 9.0 * np.sin(tilt)])
    assert any("oblique to one another" in note for note in image.notes)


def test_uneven_steps_within_tolerance_are_noted(tmp_path: Path) -> None:
    places = (0.0, 3.0, 6.3, 9.0, 12.0)
    folder = write_series(tmp_path / "d", *(Slice(n, z) for n, z in enumerate(places)))
    series = find_series(folder)
    assert any("2.7 to 3.3 mm" in note for note in series.notes)
    assert series.affine[2, 2] == pytest.approx(3.0)


def test_other_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    (folder / "README").write_text("not a slice")
    (folder / ".DS_Store").write_bytes(b"junk")
    write_nifti(folder / "converted.nii.gz")
    assert len(find_series(folder).files) == 6
    assert describe(folder).shape == (12, 14, 6)


def test_names_without_extension_are_slices_too(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    for file in sorted(folder.iterdir()):
        file.rename(folder / file.stem.replace("slice", "IM-0001-0"))
    assert len(find_series(folder).files) == 6


def test_padding_behind_the_pixels_is_ignored(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    clean = read_image(folder, DEFAULT)
    with (folder / "slice000.dcm").open("ab") as handle:
        handle.write(bytes(200_000))
    padded = read_image(folder, DEFAULT)
    np.testing.assert_array_equal(padded.data, clean.data)
    assert padded.notes == ("slice000.dcm goes on for 200000 bytes behind its pixels; they are ignored",)


def test_a_slice_without_magic_number_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    (folder / "slice003.dcm").write_bytes(b"")
    with pytest.raises(UnreadableError, match=r"slice003\.dcm"):
        find_series(folder)


def test_what_looks_like_dicom(tmp_path: Path) -> None:
    assert is_dicom(write_slice(tmp_path, Slice(1, 0.0)))
    assert not is_dicom(write_nifti(tmp_path / "a.nii"))
    assert not is_dicom(tmp_path / "missing")
    for name, expected in {
        "a.dcm": True,
        "IM01": True,
        "1.2.840.113": True,
        "a.IMA": True,
        "a.txt": False,
    }.items():
        assert may_be_dicom(Path(name)) is expected, name


def test_a_slice_whose_name_is_not_utf8_is_named_not_left_out(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    (folder / "slice005.dcm").rename(folder / os.fsdecode(b"bad\xff.dcm"))
    with pytest.raises(UnreadableError, match=r"bad\\xff\.dcm: .* not UTF-8") as caught:
        read_image(folder, DEFAULT)
    caught.value.message.encode()
    (folder / os.fsdecode(b"bad\xff.dcm")).write_bytes(b"")
    with pytest.raises(UnreadableError, match=r"bad\\xff\.dcm: named as a DICOM file"):
        read_image(folder, DEFAULT)


def test_other_files_whose_name_is_not_utf8_do_no_harm(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "d")
    (folder / os.fsdecode(b"notes\xff")).write_bytes(b"text")
    assert read_image(folder, DEFAULT).data.shape == (12, 14, 6)
    assert FileState.of(folder).size > 0
    assert len(sha256_of(folder)) == 64


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [(BasicTextSRStorage, False), (MRImageStorage, True), (UID("1.2.3.4.5"), True), (UID(""), True)],
)
def test_a_deflated_file_is_refused_unless_it_is_no_image(
    tmp_path: Path, kind: UID, is_refused: bool
) -> None:
    folder = write_series(tmp_path / "d")
    file = folder / "report.dcm"
    data = pydicom.dcmread(folder / "slice000.dcm")
    del data.PixelData
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(file, enforce_file_format=bool(kind))
    if is_refused:
        with pytest.raises(UnsuitableImageError, match="a deflated DICOM file"):
            find_series(folder)
    else:
        assert file not in find_series(folder).files
