"""Generators of scans, good and bad: each bad one with the error it must cause and words its message must hold."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from epvs_cohort.errors import ScanError, TooLargeError, UnreadableError, UnsuitableImageError

Array = npt.NDArray[np.generic]

SHAPE = (12, 14, 10)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.6, 0, -20], [0, 0, 0.8, 5], [0, 0, 0, 1]])


def volume(shape: tuple[int, ...] = SHAPE, dtype: str = "int16") -> Array:
    """Random intensities that hardly compress, all distinct from 0."""
    return np.random.default_rng(7).integers(1, 30000, shape).astype(dtype)


def write_nifti(path: Path, data: Array | None = None, affine: Array = AFFINE) -> Path:
    """Write data as they are, no scaling, sform and qform set."""
    nib.Nifti1Image(volume() if data is None else data, affine).to_filename(path)
    return path


def nifti_bytes(data: Array | None = None, affine: Array = AFFINE) -> bytearray:
    """An uncompressed NIfTI-1 file; the header takes 352 bytes."""
    return bytearray(nib.Nifti1Image(volume() if data is None else data, affine).to_bytes())


def patched(**fields: object) -> bytes:
    """A NIfTI-1 file with header fields overwritten, whatever they do to it."""
    raw = nifti_bytes()
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    return bytes(raw)


@dataclass(frozen=True)
class Slice:
    """One DICOM file of ``write_dicom``; positions in LPS mm."""

    number: int
    z_mm: float
    series: str = "1.2.3.4"
    echo_ms: float = 20.0
    size: tuple[int, int] = (14, 12)
    samples: int = 1
    frames: int = 1
    row: tuple[float, ...] = (1.0, 0.0, 0.0)
    column: tuple[float, ...] = (0.0, 1.0, 0.0)


def write_slice(folder: Path, one: Slice) -> Path:
    """Write one MR slice; pixel (row, column) holds 1000 * number + 20 * row + column."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "MR", one.series, 5
    data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "SECRET-77", "19400229"
    data.SeriesDescription = "SECRET free text"
    data.Manufacturer, data.ManufacturerModelName, data.MagneticFieldStrength = "GE", "Signa", 1.5
    data.AcquisitionDate = "20051224"
    data.EchoTime, data.InstanceNumber, data.SliceThickness = one.echo_ms, one.number, 3.0
    data.ImagePositionPatient = [-30.0, -40.0, one.z_mm]
    data.ImageOrientationPatient = [*one.row, *one.column]
    data.PixelSpacing = [0.9, 0.8]
    data.Rows, data.Columns = one.size
    data.SamplesPerPixel = one.samples
    data.PhotometricInterpretation = "MONOCHROME2" if one.samples == 1 else "RGB"
    if one.samples > 1:
        data.PlanarConfiguration = 0
    if one.frames > 1:
        data.NumberOfFrames = one.frames
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    rows, columns = np.indices(one.size)
    pixels = (1000 * one.number + 20 * rows + columns).astype("<u2")
    data.PixelData = np.repeat(pixels[..., None], one.samples * one.frames, axis=-1).tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"slice{one.number:03d}.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, *slices: Slice) -> Path:
    """Write slices into one folder; without any, six at even steps of 3 mm."""
    for one in slices or [Slice(number, 3.0 * number) for number in range(6)]:
        write_slice(folder, one)
    return folder


@dataclass(frozen=True)
class Bad:
    """A bad input: its name within a folder, how it is made, what it must cause."""

    name: str
    make: Callable[[Path], object]
    error: type[ScanError]
    says: tuple[str, ...]


def _holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _nifti(data: Array, affine: Array = AFFINE) -> Callable[[Path], object]:
    return lambda path: write_nifti(path, data, affine)


def _with(value: float) -> Array:
    data = volume(dtype="float32").astype(np.float32)
    data[3, 4, 5] = value
    return data


def _placed(row: int, column: int, value: float) -> bytes:
    name = f"srow_{'xyz'[row]}"
    values = AFFINE[row].astype(np.float32)
    values[column] = value
    return patched(sform_code=1, **{name: values})


def _flipped(content: bytes, at: int) -> bytes:
    raw = bytearray(content)
    raw[at] ^= 0xFF
    return bytes(raw)


def _mha(**changes: bytes) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        sitk.WriteImage(sitk.GetImageFromArray(volume()), str(path))
        raw = path.read_bytes()
        for name, value in changes.items():
            start = raw.index(name.encode() + b" = ")
            raw = raw[:start] + name.encode() + b" = " + value + raw[raw.index(b"\n", start) :]
        path.write_bytes(raw)

    return make


def _cut(make: Callable[[Path], object], part: float) -> Callable[[Path], object]:
    def shortened(path: Path) -> None:
        make(path)
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * part)])

    return shortened


def _series(*slices: Slice) -> Callable[[Path], object]:
    return lambda path: write_series(path, *slices)


def _cut_slice(path: Path) -> None:
    write_series(path)
    one = path / "slice002.dcm"
    one.write_bytes(one.read_bytes()[:-100])


def _bgr(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(volume((4, 5, 6, 3), "uint8"), isVector=True), str(path))


_PLAIN = bytes(nifti_bytes())
_GZIP = gzip.compress(_PLAIN, mtime=0)
_COLOUR = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
_HUGE = (3, 30000, 30000, 30000, 1, 1, 1, 1)
_EVEN = tuple(Slice(number, 3.0 * number) for number in range(6))

BAD: dict[str, Bad] = {
    "missing": Bad("gone.nii.gz", lambda path: None, UnreadableError, ("no such file",)),
    "empty": Bad("a.nii.gz", _holding(b""), UnreadableError, ("empty", "0 bytes")),
    "text": Bad("a.nii", _holding(b"Subject;count\n1;2\n"), UnreadableError, ("plain text", "NIfTI")),
    "text_as_gz": Bad(
        "a.nii.gz", _holding(b"hello\n" * 99), UnreadableError, ("plain text", "gzip-compressed NIfTI")
    ),
    "gzip_as_plain": Bad("a.nii", _holding(_GZIP), UnreadableError, ("holds gzip-compressed NIfTI",)),
    "plain_as_gzip": Bad("a.nii.gz", _holding(_PLAIN), UnreadableError, ("but holds NIfTI",)),
    "mgh_as_nifti": Bad("a.nii", _holding(b"\0\0\0\x01" + bytes(400)), UnreadableError, ("holds MGH",)),
    "gzip_of_text": Bad(
        "a.nii.gz", _holding(gzip.compress(b"hello")), UnreadableError, ("gzip-compressed plain text",)
    ),
    "picture": Bad("a.png", _holding(b"\x89PNG\r\n\x1a\n" + bytes(50)), UnreadableError, ("PNG", ".nii.gz")),
    "zip": Bad("a.nii.gz", _holding(b"PK\x03\x04" + bytes(50)), UnreadableError, ("zip archive",)),
    "lfs_pointer": Bad(
        "a.nii.gz",
        _holding(b"version https://git-lfs.github.com/spec/v1\n"),
        UnreadableError,
        ("Git LFS",),
    ),
    "pair": Bad("a.nii", _holding(patched(magic=b"ni1")), UnreadableError, (".hdr/.img pair",)),
    "analyze": Bad("a.nii", _holding(patched(magic=b"")), UnreadableError, ("Analyze",)),
    "cut_header": Bad("a.nii.gz", _holding(gzip.compress(_PLAIN[:350])), UnreadableError, ("truncated",)),
    "cut_plain": Bad("a.nii", _holding(_PLAIN[:-500]), UnreadableError, ("truncated", str(len(_PLAIN)))),
    "cut_gzip": Bad("a.nii.gz", _holding(_GZIP[: len(_GZIP) // 2]), UnreadableError, ("cut off",)),
    "cut_gzip_trailer": Bad("a.nii.gz", _holding(_GZIP[:-3]), UnreadableError, ("cut off",)),
    "short_gzip": Bad("a.nii.gz", _holding(gzip.compress(_PLAIN[:-500])), UnreadableError, ("truncated",)),
    "corrupt_gzip": Bad(
        "a.nii.gz", _holding(_flipped(_GZIP, len(_GZIP) // 2)), UnreadableError, ("damaged gzip",)
    ),
    "bad_check_sum": Bad(
        "a.nii.gz", _holding(_flipped(_GZIP, len(_GZIP) - 7)), UnreadableError, ("damaged gzip",)
    ),
    "2d": Bad("a.nii", _nifti(volume((20, 30))), UnsuitableImageError, ("20x30", "3D")),
    "one_slice": Bad("a.nii", _nifti(volume((20, 30, 1))), UnsuitableImageError, ("20x30x1", "at least 2")),
    "4d": Bad("a.nii", _nifti(volume((6, 7, 8, 3))), UnsuitableImageError, ("3 volumes", "3D")),
    "5d": Bad("a.nii", _nifti(volume((6, 7, 8, 1, 3))), UnsuitableImageError, ("5 dimensions",)),
    "no_axis": Bad("a.nii", _holding(patched(dim=[3, 12, 0, 10, 1, 1, 1, 1])), UnreadableError, ("12x0x10",)),
    "negative_axis": Bad(
        "a.nii", _holding(patched(dim=[3, 12, -1, 10, 1, 1, 1, 1])), UnreadableError, ("-1",)
    ),
    "many_axes": Bad(
        "a.nii", _holding(patched(dim=[7, 2, 2, 2, 2, 2, 2, 2])), UnsuitableImageError, ("7 dimensions",)
    ),
    "rgb": Bad("a.nii", _nifti(_COLOUR), UnsuitableImageError, ("RGB", "integers")),
    "complex": Bad("a.nii", _nifti(volume().astype("complex64")), UnsuitableImageError, ("complex64",)),
    "unknown_type": Bad("a.nii", _holding(patched(datatype=77)), UnreadableError, ("77",)),
    "zero": Bad(
        "a.nii.gz", _nifti(np.zeros(SHAPE, np.int16)), UnsuitableImageError, ("all voxels are zero",)
    ),
    "constant": Bad(
        "a.nii.gz", _nifti(np.full(SHAPE, 7, np.int16)), UnsuitableImageError, ("all voxels are 7",)
    ),
    "nan": Bad("a.nii", _nifti(_with(np.nan)), UnsuitableImageError, ("1 of 1680 voxels",)),
    "infinite": Bad("a.nii", _nifti(_with(np.inf)), UnsuitableImageError, ("1 of 1680 voxels",)),
    "infinite_slope": Bad("a.nii", _holding(patched(scl_slope=np.inf)), UnreadableError, ("slope",)),
    "affine_nan": Bad("a.nii", _holding(_placed(0, 0, np.nan)), UnsuitableImageError, ("NaN",)),
    "affine_inf": Bad("a.nii", _holding(_placed(1, 3, np.inf)), UnsuitableImageError, ("infinity",)),
    "affine_zero": Bad(
        "a.nii", _holding(_placed(2, 2, 0.0)), UnsuitableImageError, ("voxels of", "0.1 to 10 mm")
    ),
    "affine_flat": Bad(
        "a.nii",
        _holding(patched(sform_code=1, srow_x=[1, 1, 0, 0], srow_y=[0, 0, 1, 0], srow_z=[0, 0, 0.005, 0])),
        UnsuitableImageError,
        ("singular",),
    ),
    "affine_far": Bad("a.nii", _holding(_placed(0, 3, 1e9)), UnsuitableImageError, ("first voxel",)),
    "voxels_in_metres": Bad(
        "a.nii",
        _nifti(volume(), np.diag([1e-3, 1e-3, 1e-3, 1])),
        UnsuitableImageError,
        ("0.001", "0.1 to 10 mm"),
    ),
    "voxels_huge": Bad("a.nii", _nifti(volume(), np.diag([1, 1, 40.0, 1])), UnsuitableImageError, ("40.0",)),
    "bad_offset": Bad("a.nii", _holding(patched(vox_offset=np.nan)), UnreadableError, ("byte",)),
    "bad_quaternion": Bad(
        "a.nii",
        _holding(patched(sform_code=0, qform_code=1, quatern_b=5.0)),
        UnreadableError,
        ("qform",),
    ),
    "huge": Bad("a.nii", _holding(patched(dim=_HUGE)), TooLargeError, ("30000x30000x30000", "2 GiB")),
    "huge_gzip": Bad(
        "a.nii.gz", _holding(gzip.compress(patched(dim=_HUGE))), TooLargeError, ("30000x30000x30000",)
    ),
    "overclaim_gzip": Bad(
        "a.nii.gz",
        _holding(gzip.compress(patched(dim=[3, 700, 700, 700, 1, 1, 1, 1]))),
        UnreadableError,
        ("truncated", "at most"),
    ),
    "mgz_cut": Bad(
        "a.mgz",
        _cut(lambda path: nib.MGHImage(volume(), AFFINE).to_filename(path), 0.6),
        UnreadableError,
        ("cut off",),
    ),
    "mha_cut": Bad("a.mha", _cut(_mha(), 0.8), UnreadableError, ()),
    "mha_huge": Bad("a.mha", _mha(DimSize=b"30000 30000 30000"), TooLargeError, ("30000x30000x30000",)),
    "mha_2d": Bad(
        "a.mha",
        lambda path: sitk.WriteImage(sitk.GetImageFromArray(volume((9, 8))), str(path)),
        UnsuitableImageError,
        ("8x9",),
    ),
    "mha_colour": Bad("a.mha", _bgr, UnsuitableImageError, ("3 values a voxel",)),
    "mha_spacing": Bad("a.mha", _mha(ElementSpacing=b"1 1 500"), UnsuitableImageError, ("500",)),
    "mhd_alone": Bad(
        "a.mhd",
        _holding(
            b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = gone.raw\n"
        ),
        UnreadableError,
        (),
    ),
    "nrrd_cut": Bad(
        "a.nrrd",
        _cut(lambda path: sitk.WriteImage(sitk.GetImageFromArray(volume()), str(path)), 0.8),
        UnreadableError,
        (),
    ),
    "nrrd_text": Bad("a.nrrd", _holding(b"NRRD0004\ntype: nonsense\n"), UnreadableError, ()),
    "dicom_slice": Bad(
        "slice001.dcm", lambda path: write_slice(path.parent, Slice(1, 0.0)), UnreadableError, ("DICOM",)
    ),
    "dicom_none": Bad("d", lambda path: path.mkdir(), UnreadableError, ("no DICOM image",)),
    "dicom_one": Bad("d", _series(Slice(1, 0.0)), UnsuitableImageError, ("one DICOM slice",)),
    "dicom_gap": Bad(
        "d", _series(*_EVEN[:3], *_EVEN[4:]), UnsuitableImageError, ("6 mm apart", "slice002.dcm")
    ),
    "dicom_doubled": Bad("d", _series(*_EVEN, Slice(9, 6.0)), UnsuitableImageError, ("slice009.dcm", "once")),
    "dicom_two_series": Bad(
        "d",
        _series(*_EVEN, Slice(9, 0.0, series="1.2.9")),
        UnsuitableImageError,
        ("2 DICOM images", "exactly one"),
    ),
    "dicom_two_echoes": Bad(
        "d",
        _series(*_EVEN, *(Slice(10 + i, 3.0 * i, echo_ms=90.0) for i in range(6))),
        UnsuitableImageError,
        ("90",),
    ),
    "dicom_localizer": Bad(
        "d",
        _series(*_EVEN, Slice(9, 0.0, column=(0.0, 0.0, 1.0))),
        UnsuitableImageError,
        ("plane (1 0 0 0 0 1)",),
    ),
    "dicom_odd_size": Bad(
        "d",
        _series(*_EVEN[:5], Slice(5, 15.0, size=(14, 11))),
        UnsuitableImageError,
        ("slice005.dcm", "11x14"),
    ),
    "dicom_tilted": Bad(
        "d",
        _series(*_EVEN[:5], Slice(5, 15.0, column=(0.0, 0.9998, 0.02))),
        UnsuitableImageError,
        ("slice005.dcm",),
    ),
    "dicom_colour": Bad(
        "d",
        _series(*(Slice(i, 3.0 * i, samples=3) for i in range(4))),
        UnsuitableImageError,
        ("3 values a pixel",),
    ),
    "dicom_frames": Bad("d", _series(Slice(0, 0.0, frames=4)), UnsuitableImageError, ("4 frames",)),
    "dicom_cut": Bad("d", _cut_slice, UnreadableError, ("slice002.dcm",)),
}
