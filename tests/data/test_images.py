from __future__ import annotations

import gzip
import os
import pickle
import time
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epvs_cohort.data import sniff
from epvs_cohort.data.images import describe, read_image, read_labels
from epvs_cohort.errors import ScanError, TooLargeError, UnreadableError, UnsuitableImageError
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import Image
from tests.data.bad_input import (
    AFFINE,
    BAD,
    SHAPE,
    Array,
    nifti_bytes,
    patched,
    volume,
    write_nifti,
)

DEFAULT = InputSettings()
FIRST = InputSettings(four_d="first")


def quality_of(image: Image) -> dict[str, float | None]:
    return {value.measure: value.value for value in image.quality}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_file_and_finding(name: str, tmp_path: Path) -> None:
    bad = BAD[name]
    path = tmp_path / bad.name
    bad.make(path)
    with pytest.raises(bad.error) as caught:
        read_image(path, DEFAULT)
    assert type(caught.value) is bad.error
    assert caught.value.message.startswith(str(path))
    for words in bad.says:
        assert words in caught.value.message
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.message, again.hint) == (caught.value.message, caught.value.hint)


def test_missing_permission_is_named(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("permissions are those of POSIX systems")
    path = write_nifti(tmp_path / "a.nii")
    path.chmod(0)
    superuser = os.geteuid() == 0
    if superuser:
        # The superuser may read anything, so be nobody for a moment; the folder above stays closed too.
        os.seteuid(65534)
    try:
        with pytest.raises(UnreadableError, match="permission"):
            read_image(path, DEFAULT)
    finally:
        if superuser:
            os.seteuid(0)


def test_broken_link_is_named(tmp_path: Path) -> None:
    link = tmp_path / "a.nii.gz"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreadableError, match="symbolic link"):
        read_image(link, DEFAULT)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32"])
def test_integers_stay_as_they_are(name: str, dtype: str, tmp_path: Path) -> None:
    data = (volume() % 100).astype(dtype)
    path = tmp_path / name
    raw = bytes(nifti_bytes(data))
    path.write_bytes(gzip.compress(raw) if name.lower().endswith("gz") else raw)
    image = read_image(path, DEFAULT)
    assert image.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.data, data)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64"])
def test_all_else_becomes_float32(dtype: str, tmp_path: Path) -> None:
    data = volume().astype(dtype)
    path = tmp_path / "a.nii"
    nib.Nifti1Image(data, AFFINE, dtype=np.dtype(dtype)).to_filename(path)
    image = read_image(path, DEFAULT)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data, data.astype(np.float32))


def test_scaling_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(patched(scl_slope=0.25, scl_inter=-100.0)))
    image = read_image(path, DEFAULT)
    assert image.data.dtype == np.float32
    expected = volume().astype(np.float64) * 0.25 - 100.0
    np.testing.assert_allclose(image.data.astype(np.float64), expected, rtol=1e-6)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_no_slope_means_no_scaling(slope: float, tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(patched(scl_slope=slope, scl_inter=np.nan))
    np.testing.assert_array_equal(read_image(path, DEFAULT).data, volume())


def test_big_endian_and_nifti2_and_mgh_and_several_gzip_members(tmp_path: Path) -> None:
    big = nib.Nifti1Image(volume(), AFFINE, header=nib.Nifti1Header(endianness=">"), dtype=np.int16)
    big.to_filename(tmp_path / "big.nii")
    nib.Nifti2Image(volume(), AFFINE).to_filename(tmp_path / "two.nii")
    free = nib.MGHImage(volume(), AFFINE)
    free.set_data_dtype(np.int16)
    free.to_filename(tmp_path / "free.mgz")
    raw = bytes(nifti_bytes())
    (tmp_path / "members.nii.gz").write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    for name in ("big.nii", "two.nii", "free.mgz", "members.nii.gz"):
        image = read_image(tmp_path / name, DEFAULT)
        assert image.data.dtype == np.dtype("=i2"), name
        np.testing.assert_array_equal(image.data, volume(), err_msg=name)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("extension", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_itk_formats_agree_with_nifti_in_world_coordinates(extension: str, tmp_path: Path) -> None:
    rotation = np.array([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.5, 0.6, 0.8]
    affine[:3, 3] = [10, -20, 5]
    source = write_nifti(tmp_path / "a.nii", volume(), affine)
    other = tmp_path / f"b{extension}"
    sitk.WriteImage(sitk.ReadImage(str(source)), str(other))
    image = read_image(other, DEFAULT)
    np.testing.assert_array_equal(image.data, volume())
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)


def test_four_dimensions(tmp_path: Path) -> None:
    data = volume((6, 7, 8, 3))
    for path in (write_nifti(tmp_path / "a.nii", data), write_nifti(tmp_path / "a.nii.gz", data)):
        image = read_image(path, FIRST)
        np.testing.assert_array_equal(image.data, data[..., 0])
        assert any("first of 3 volumes" in note for note in image.notes)
    single = write_nifti(tmp_path / "b.nii", data[..., :1])
    np.testing.assert_array_equal(read_image(single, DEFAULT).data, data[..., 0])


def test_four_dimensions_of_metaimage(tmp_path: Path) -> None:
    data = volume((3, 6, 7, 8))
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=False), str(path))
    with pytest.raises(UnsuitableImageError, match="3 volumes"):
        read_image(path, DEFAULT)
    np.testing.assert_array_equal(read_image(path, FIRST).data, data[0].T)
    # The limit holds for all volumes, since ITK loads them all.
    with pytest.raises(TooLargeError):
        read_image(path, InputSettings(four_d="first", max_gib=2 * 4 * 336 / 2**30))


def test_trailing_axes_of_one_volume_are_dropped(tmp_path: Path) -> None:
    data = volume((6, 7, 8))
    sitk.WriteImage(sitk.GetImageFromArray(data.T[None, None], isVector=False), str(tmp_path / "a.mha"))
    write_nifti(tmp_path / "a.nii", data[..., None, None])
    for name in ("a.mha", "a.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name, DEFAULT).data, data, err_msg=name)


def test_forms_that_disagree_are_measured_and_the_sform_wins(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(), AFFINE)
    moved = AFFINE.copy()
    moved[:3, 3] += [3.0, 4.0, 0.0]
    image.set_qform(moved, code=1)
    image.set_sform(AFFINE, code=2)
    image.to_filename(tmp_path / "a.nii")
    found = read_image(tmp_path / "a.nii", DEFAULT)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    assert quality_of(found)["sform_qform_distance"] == pytest.approx(5.0, abs=1e-4)
    assert any("disagree" in note and "sform is used" in note for note in found.notes)


def test_qform_alone_is_used(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.set_sform(None, code=0)
    image.to_filename(tmp_path / "a.nii")
    found = read_image(tmp_path / "a.nii", DEFAULT)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    assert quality_of(found) == {"orientation_known": 1.0}
    assert found.notes == ()


def test_neither_form_is_noted_as_unknown_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(patched(sform_code=0, qform_code=0))
    found = read_image(path, DEFAULT)
    assert quality_of(found) == {"orientation_known": 0.0}
    assert any("orientation unknown" in note for note in found.notes)
    np.testing.assert_allclose(found.grid.spacing_mm, (0.5, 0.6, 0.8), rtol=1e-6)
    np.testing.assert_allclose(found.affine, nib.load(path).affine)


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_claim_is_refused_without_allocation(*, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.nii.gz" if compressed else "a.nii")
    raw = patched(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        read_image(path, DEFAULT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_claim_just_within_and_just_beyond_the_limit(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii")
    needed = 4 * int(np.prod(SHAPE)) / 2**30
    assert read_image(path, InputSettings(max_gib=needed * 1.0001)).data.shape == SHAPE
    with pytest.raises(TooLargeError):
        read_image(path, InputSettings(max_gib=needed * 0.9999))


def test_gzip_bomb_is_inflated_no_further_than_its_header_claims(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(bytes(nifti_bytes()))
        for _ in range(200):
            handle.write(bytes(1 << 20))
    tracemalloc.start()
    start = time.process_time()
    image = read_image(path, DEFAULT)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(image.data, volume())
    assert peak < 8 * 2**20
    assert seconds < 0.5


def test_float64_is_converted_without_a_second_copy(tmp_path: Path) -> None:
    data = np.random.default_rng(1).random((128, 128, 128))
    path = tmp_path / "a.nii"
    nib.Nifti1Image(data, AFFINE).to_filename(path)
    tracemalloc.start()
    image = read_image(path, DEFAULT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(image.data.astype(np.float64), data, rtol=1e-6)
    assert peak < 4 * data.size + 20 * 2**20


def test_float64_beyond_float32_counts_as_infinite(tmp_path: Path) -> None:
    data = volume().astype(np.float64)
    data[0, 0, 0] = 1e300
    path = write_nifti(tmp_path / "a.nii", data)
    with pytest.raises(UnsuitableImageError, match="infinite"):
        read_image(path, DEFAULT)


def test_voxel_limits_come_from_the_settings(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii")
    with pytest.raises(UnsuitableImageError, match=r"0\.55 to 10 mm"):
        read_image(path, InputSettings(voxel_min_mm=0.55))


def test_labels_keep_integers_and_take_whole_floats(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[2:4, 3:5, 4:6] = 2035
    kept = read_labels(write_nifti(tmp_path / "a.nii.gz", labels))
    assert kept.data.dtype == np.int16
    cast = read_labels(write_nifti(tmp_path / "b.nii.gz", labels.astype(np.float32)))
    assert cast.data.dtype == np.int32
    np.testing.assert_array_equal(cast.data, labels)
    empty = read_labels(write_nifti(tmp_path / "c.nii", np.zeros(SHAPE, np.uint8)))
    assert not empty.data.any()


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 3e9])
def test_labels_that_are_no_whole_numbers_are_refused(value: float, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[1, 2, 3] = value
    with pytest.raises(UnsuitableImageError):
        read_labels(write_nifti(tmp_path / "a.nii", labels))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_describe_tells_what_reading_gives(name: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / name)
    told = describe(path)
    assert told.shape == SHAPE
    np.testing.assert_allclose(told.spacing_mm, (0.5, 0.6, 0.8), rtol=1e-6)
    assert told.float32_bytes == 4 * np.prod(SHAPE)


def corrupted(raw: bytes, changes: list[tuple[int, int]], cut: int | None) -> bytes:
    out = bytearray(raw)
    for at, value in changes:
        out[at % len(out)] = value
    return bytes(out[:cut])


PLAIN = bytes(nifti_bytes(volume((5, 6, 4))))
FORMS = {"a.nii": PLAIN, "a.nii.gz": gzip.compress(PLAIN, mtime=0)}
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=12)


@pytest.mark.parametrize("name", FORMS)
@given(changes=CHANGES, cut=st.none() | st.integers(0, 700))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_corruption_never_raises_anything_but_a_scan_error(
    name: str, changes: list[tuple[int, int]], cut: int | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(corrupted(FORMS[name], changes, cut))
    try:
        image = read_image(path, InputSettings(max_gib=0.01, four_d="first"))
    except ScanError as error:
        message = error.message
        assert message.startswith(str(path))
        return
    assert image.data.ndim == 3
    assert np.isfinite(image.data).all()
    assert np.isfinite(image.affine).all()


SCANS = {
    "head_t2_1mm.nii.gz": ((156, 175, 146), (1.0, 1.0, 1.0)),
    "brain_only_t2_1mm.nii.gz": ((124, 160, 140), (1.0, 1.0, 1.0)),
    "head_t2_thick_5.5mm.nii.gz": ((320, 320, 26), (0.75, 0.75, 5.5)),
    "pair_visit1_t2.nii.gz": ((406, 448, 36), (0.5134, 0.5134, 4.0)),
    "pair_visit2_t2.nii.gz": ((348, 384, 44), (0.599, 0.599, 3.3)),
    "dicom_pd": ((256, 256, 20), (0.8594, 0.8594, 7.0)),
}


NOTES = {
    "dicom_pd": (
        "tests_data_dicom_brain_001.dcm goes on for 2490368 bytes behind its pixels; they are ignored",
    )
}


@pytest.mark.parametrize("name", SCANS)
def test_real_scans_read_and_describe(name: str, shared_data: Path) -> None:
    path = shared_data / "real" / name
    shape, spacing = SCANS[name]
    image = read_image(path, DEFAULT)
    assert image.data.shape == shape
    np.testing.assert_allclose(image.grid.spacing_mm, spacing, rtol=1e-3)
    assert describe(path).shape == shape
    assert image.notes == NOTES.get(name, ())
    if path.is_file():
        reference = nib.load(path)
        np.testing.assert_array_equal(image.data, np.asarray(reference.dataobj).astype(image.data.dtype))
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-6)


def test_real_label_map_stored_as_float_reads_as_integers(shared_data: Path) -> None:
    labels = read_labels(shared_data / "anatomies" / "anatomy_01.nii.gz")
    assert labels.data.shape == (256, 256, 256)
    assert labels.data.dtype.kind == "i"
    assert {11, 12, 13, 50, 51, 52} <= set(np.unique(labels.data).tolist())


def write_large(path: Path) -> Array:
    data = np.tile(np.random.default_rng(3).integers(0, 1200, (256, 256, 16), dtype=np.int16), (1, 1, 8))
    nib.Nifti1Image(data, AFFINE).to_filename(path)
    return data


def test_reading_costs_little_more_than_inflating(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    write_large(path)

    def best_of_three(call: object) -> float:
        assert callable(call)
        seconds = []
        for _ in range(3):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        return min(seconds)

    inflating = best_of_three(lambda: gzip.decompress(path.read_bytes()))
    reading = best_of_three(lambda: read_image(path, DEFAULT))
    assert reading < 2.0 * inflating + 0.1


@pytest.mark.parametrize("inflate", ["isal", "zlib"])
def test_scans_are_read_alike_by_either_inflater(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inflate: str
) -> None:
    """Both give the same voxels, refuse a changed check sum, and a file that is cut off."""
    library = pytest.importorskip("isal.isal_zlib") if inflate == "isal" else zlib
    monkeypatch.setattr(sniff, "_inflater", library)
    path = tmp_path / "a.nii.gz"
    data = write_large(path)
    np.testing.assert_array_equal(read_image(path, DEFAULT).data, data)
    blob = bytearray(path.read_bytes())
    (tmp_path / "cut.nii.gz").write_bytes(blob[:-200_000])
    with pytest.raises(UnreadableError, match=r"cut off|truncated"):
        read_image(tmp_path / "cut.nii.gz", DEFAULT)
    blob[-6] ^= 0xFF
    (tmp_path / "sum.nii.gz").write_bytes(blob)
    with pytest.raises(UnreadableError, match="damaged"):
        read_image(tmp_path / "sum.nii.gz", DEFAULT)
