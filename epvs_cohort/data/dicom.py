"""One image out of a folder of DICOM files, by a short list of header tags; pixels are read elsewhere.

Only the tags in ``_TAGS`` are ever read out of a file: none tells who the person is.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from epvs_cohort.data.names import is_utf8, not_utf8_words, shown
from epvs_cohort.data.sidecar import iso_date, scanner_name
from epvs_cohort.data.sniff import opened
from epvs_cohort.errors import UnreadableError, UnsuitableImageError
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray
from epvs_cohort.records import AcquisitionFacts

_TAGS = [
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "EchoTime",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "AcquisitionDate",
    "SeriesDate",
]
_DAMAGED = (
    BytesLengthException,
    InvalidDicomError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    # Sequences within sequences, deeper than the reader can follow.
    RecursionError,
    struct.error,
    zlib.error,
)
#: Bytes of tag, VR and length before the pixels (DICOM PS3.5, 7.1), for the uncompressed little-endian syntaxes.
_ELEMENT_HEADER = {str(ExplicitVRLittleEndian): 12, str(ImplicitVRLittleEndian): 8}

#: Trailing elements and padding of some thousand bytes are usual.
_PADDING = 1 << 16
_MAGIC_AT = 128
_MAGIC = b"DICM"
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

#: Steps between slices may differ from their median by this part before the series counts as gapped.
_STEP_TOLERANCE = 0.25
_STEP_NOTED = 0.05
_DOUBLED_MM = 1e-3

#: Images in one folder beyond this are not told apart: one is legal.
_MOST_GROUPS = 12

#: Direction cosines closer than this belong to one image.
_SAME_PLANE = 0.05


@dataclass(frozen=True)
class Series:
    """The files of one image in slice order, and where its voxels lie.

    Attributes
    ----------
    files : tuple of Path
        One slice each, in the order of axis K.
    shape : tuple of int
        (columns, rows, slices), the order (I, J, K).
    affine : ndarray, shape (4, 4)
        0-based voxel to RAS mm; from orientation, pixel spacing and the first and last position
        (DICOM PS3.3, C.7.6.2.1.1).
    padded : mapping of Path to int
        Files that go on behind their pixels, and how many bytes of them count.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    affine: FloatArray
    facts: AcquisitionFacts = AcquisitionFacts()
    notes: tuple[str, ...] = ()
    padded: Mapping[Path, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: tuple[str, str]
    label: str
    size: tuple[int, int]
    form: tuple[int, int, int]
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    facts: AcquisitionFacts
    end: int | None


def is_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM magic number; False where it cannot be read."""
    try:
        with opened(path) as handle:
            return handle.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except UnreadableError:
        return False


def may_be_dicom(path: Path) -> bool:
    """Whether the name of a file could be that of a DICOM slice: a DICOM extension, none, or a number."""
    suffix = path.suffix.lower()
    return suffix in DICOM_SUFFIXES or suffix == "" or suffix[1:].isdigit()


def find_series(folder: Path) -> Series:
    """Find the one image that a folder of DICOM files holds.

    Raises
    ------
    UnreadableError
        No DICOM image in it, or a damaged file among them.
    UnsuitableImageError
        Several images, slices that do not fit together, gaps, doubled slices, colour or several frames.
    """
    slices = _slices_in(folder)
    groups = _grouped(slices)
    if not groups:
        raise UnreadableError(f"{folder}: no DICOM image in this folder")
    if len(groups) > 1:
        listed = "; ".join(sorted(f"{g[0].label}, {len(g)} files from {g[0].path.name}" for g in groups))
        found = f"more than {_MOST_GROUPS}" if len(groups) > _MOST_GROUPS else str(len(groups))
        raise UnsuitableImageError(
            f"{folder}: {found} DICOM images in one folder, exactly one is legal: {listed}",
            hint="put each series (and each echo) in a folder of its own",
        )
    return _stacked(folder, slices)


def _grouped(slices: Sequence[_Slice]) -> list[list[_Slice]]:
    """Slices of one series, echo and plane together: a localizer holds three planes in one series."""
    groups: list[list[_Slice]] = []
    for one in slices:
        for group in groups:
            if _same_image(one, group[0]):
                group.append(one)
                break
        else:
            groups.append([one])
            if len(groups) > _MOST_GROUPS:
                break
    return groups


def _same_image(one: _Slice, other: _Slice) -> bool:
    if one.series != other.series or len(one.orientation) != len(other.orientation):
        return False
    return bool(np.allclose(one.orientation, other.orientation, rtol=0.0, atol=_SAME_PLANE))


def _slices_in(folder: Path) -> list[_Slice]:
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise UnreadableError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    slices: list[_Slice] = []
    for path in files:
        if not is_dicom(path):
            if path.suffix.lower() in DICOM_SUFFIXES:
                raise UnreadableError(
                    f"{shown(path)}: named as a DICOM file, but empty or without the DICOM magic number"
                )
            continue
        if not is_utf8(path.name):
            raise UnreadableError(
                f"{shown(path)}: a DICOM slice that cannot be taken, {not_utf8_words(path.name)}",
                hint="rename the file; without it a slice would be missing",
            )
        found = _slice_of(path)
        if found is not None:
            _check_end(found)
            slices.append(found)
    return slices


def _check_end(one: _Slice) -> None:
    size = one.path.stat().st_size
    if one.end is not None and size < one.end:
        raise UnreadableError(
            f"{one.path}: truncated: {size} bytes where its header says {one.end}",
            hint="copy or download the file again",
        )


def _slice_of(path: Path) -> _Slice | None:
    """Header of one file; None where it holds no pixels (a DICOMDIR, a report)."""
    try:
        with warnings.catch_warnings(), opened(path) as handle:
            warnings.simplefilter("ignore")
            if _is_passed_over(path):
                return None
            header = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=list(_TAGS))
            if "Rows" not in header or "Columns" not in header:
                return None
            if int(header.get("NumberOfFrames") or 1) > 1:
                raise UnsuitableImageError(
                    f"{path}: a DICOM file with {header.NumberOfFrames} frames; one slice a file is legal",
                    hint="convert it to NIfTI first, for example with dcm2niix",
                )
            return _Slice(
                path=path,
                series=(str(header.get("SeriesInstanceUID")), str(header.get("EchoTime"))),
                label=_label(header),
                size=(int(header.Columns), int(header.Rows)),
                form=(int(header.get("BitsAllocated") or 16), int(header.get("SamplesPerPixel") or 1), 1),
                spacing=_numbers(header.get("PixelSpacing")),
                orientation=_numbers(header.get("ImageOrientationPatient")),
                position=_numbers(header.get("ImagePositionPatient")),
                facts=_facts(header),
                end=_end_of_pixels(header, handle.tell()),
            )
    except _DAMAGED as error:
        raise UnreadableError(f"{path}: damaged DICOM header: {error}") from error


def _is_passed_over(path: Path) -> bool:
    """Whether a file is deflated and no image, as a report may be; a deflated image is refused.

    All of a deflated data set would be inflated, whatever its size, before a tag can be read.
    """
    meta = read_file_meta_info(path)
    if str(meta.get("TransferSyntaxUID")) != str(DeflatedExplicitVRLittleEndian):
        return False
    kind = UID(str(meta.get("MediaStorageSOPClassUID") or ""))
    # The name of a class that is not in the standard is its number.
    if kind.name != str(kind) and "Image" not in kind.name:
        return True
    raise UnsuitableImageError(
        f"{path}: a deflated DICOM file (transfer syntax {DeflatedExplicitVRLittleEndian}), which is not read here",
        hint="convert the series, for example with dcm2niix to NIfTI",
    )


def _numbers(value: object) -> tuple[float, ...]:
    if value is None or isinstance(value, str) or not isinstance(value, Iterable):
        return ()
    return tuple(float(str(part)) for part in value)


def _plane(header: pydicom.Dataset) -> str:
    return " ".join(f"{round(part, 2) + 0.0:g}" for part in _numbers(header.get("ImageOrientationPatient")))


def _label(header: pydicom.Dataset) -> str:
    return (
        f"series {header.get('SeriesNumber', 'without number')}, {header.get('Modality', 'unknown')}, "
        f"echo time {header.get('EchoTime', 'unknown')} ms, {header.Columns}x{header.Rows}, "
        f"plane ({_plane(header) or 'unknown'})"
    )


def _facts(header: pydicom.Dataset) -> AcquisitionFacts:
    name = scanner_name(
        header.get("Manufacturer"), header.get("ManufacturerModelName"), header.get("MagneticFieldStrength")
    )
    return AcquisitionFacts(
        name, iso_date(header.get("AcquisitionDate")) or iso_date(header.get("SeriesDate"))
    )


def _end_of_pixels(header: pydicom.Dataset, start: int) -> int | None:
    """Byte behind the pixels, whose element begins at ``start``; None where they are compressed."""
    element_header = _ELEMENT_HEADER.get(str(header.file_meta.get("TransferSyntaxUID")))
    if element_header is None:
        return None
    bits = int(header.get("BitsAllocated") or 16) * int(header.get("SamplesPerPixel") or 1)
    return start + element_header + int(header.Rows) * int(header.Columns) * bits // 8


def _stacked(folder: Path, slices: Sequence[_Slice]) -> Series:
    first = slices[0]
    if len(slices) < 2:
        raise UnsuitableImageError(f"{folder}: one DICOM slice ({first.path.name}); a volume has at least 2")
    if first.form[1] != 1:
        raise UnsuitableImageError(f"{first.path}: {first.form[1]} values a pixel (colour); 1 is legal")
    for one in slices:
        if (len(one.spacing), len(one.orientation), len(one.position)) != (2, 6, 3):
            raise UnsuitableImageError(f"{one.path}: no pixel spacing, orientation or position in its header")
    _check_alike(slices)
    _check_plane(first)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda one: float(np.dot(one.position, normal)))
    uneven = _check_steps(folder, ordered, normal)
    affine_lps = np.eye(4)
    affine_lps[:3, 0] = row * first.spacing[1]
    affine_lps[:3, 1] = column * first.spacing[0]
    start, end = np.array(ordered[0].position), np.array(ordered[-1].position)
    affine_lps[:3, 2] = (end - start) / (len(ordered) - 1)
    affine_lps[:3, 3] = start
    padded = {
        one.path: one.end for one in ordered if one.end and one.path.stat().st_size > one.end + _PADDING
    }
    beyond = tuple(
        f"{path.name} goes on for {path.stat().st_size - end} bytes behind its pixels; they are ignored"
        for path, end in padded.items()
    )
    return Series(
        files=tuple(one.path for one in ordered),
        shape=(*first.size, len(ordered)),
        affine=LPS_FROM_RAS @ affine_lps,
        facts=first.facts,
        notes=beyond + uneven,
        padded=padded,
    )


def _check_plane(one: _Slice) -> None:
    """Pixel spacing above 0, and direction cosines that are cosines: others would mirror or stretch the voxels."""
    row, column = np.array(one.orientation[:3]), np.array(one.orientation[3:])
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    legal = np.allclose(lengths, 1.0, atol=_SAME_PLANE) and abs(float(row @ column)) <= _SAME_PLANE
    if not (legal and min(one.spacing) > 0.0):
        raise UnsuitableImageError(
            f"{one.path}: pixel spacing {list(one.spacing)} and orientation {list(one.orientation)}; legal are "
            "spacings above 0, and two directions of length 1 at right angles"
        )


def _check_alike(slices: Sequence[_Slice]) -> None:
    sizes = Counter((one.size, one.form) for one in slices)
    usual = sizes.most_common(1)[0][0]
    middle = np.median([[*one.spacing, *one.orientation] for one in slices], axis=0)
    for one in slices:
        if (one.size, one.form) != usual:
            raise UnsuitableImageError(
                f"{one.path}: {one.size[0]}x{one.size[1]} pixels of {one.form[0]} bits, "
                f"while the series has {usual[0][0]}x{usual[0][1]} of {usual[1][0]} bits"
            )
        if not np.allclose([*one.spacing, *one.orientation], middle, rtol=1e-3, atol=1e-3):
            raise UnsuitableImageError(
                f"{one.path}: pixel spacing or orientation differs from the rest of the series"
            )


def _check_steps(folder: Path, ordered: Sequence[_Slice], normal: FloatArray) -> tuple[str, ...]:
    along = np.array([np.dot(one.position, normal) for one in ordered])
    steps = np.diff(along)
    if not np.isfinite(steps).all():
        raise UnsuitableImageError(f"{folder}: slice positions are not finite numbers")
    doubled = np.flatnonzero(steps < _DOUBLED_MM)
    if doubled.size:
        pair = f"{ordered[doubled[0]].path.name} and {ordered[doubled[0] + 1].path.name}"
        raise UnsuitableImageError(
            f"{folder}: {doubled.size} slices lie where another lies already, first {pair}; "
            "each place once is legal"
        )
    usual = float(np.median(steps))
    off = np.abs(steps - usual) / usual
    worst = int(np.argmax(off))
    if off[worst] > _STEP_TOLERANCE:
        pair = f"{ordered[worst].path.name} and {ordered[worst + 1].path.name}"
        raise UnsuitableImageError(
            f"{folder}: slices {steps[worst]:.3g} mm apart between {pair}, while {usual:.3g} mm is usual; "
            "even steps are legal",
            hint="a slice is missing, or two images lie in one folder",
        )
    if off[worst] > _STEP_NOTED:
        return (f"slice steps vary from {steps.min():.3g} to {steps.max():.3g} mm; even steps are assumed",)
    return ()
