"""MetaImage, NRRD and DICOM made hostile."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.data.bad_input import Slice, volume, write_series
from tests.hostile.cases import Case, file_case

_VOXELS = volume((4, 5, 6)).astype("<i2").tobytes()
_META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "ElementSpacing": "1 1 1",
    "DimSize": "4 5 6",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
_NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 5 6",
    "space directions": "(1,0,0) (0,1,0) (0,0,1)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(0,0,0)",
}
_EXTREMES = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e308",
    "99999999999999999999",
    "x" * 5000,
    "%n%n%s%s",
    "1 " * 5000,
)
_FILES = (
    "/dev/zero",
    "/dev/stdin",
    "../../../../etc/passwd",
    "pipe",
    ".",
    "a.mhd",
    "a.nhdr",
    "%999d 1 2 1",
    "LIST",
)


def meta_bytes(content: bytes = _VOXELS, /, **changes: str) -> bytes:
    """A MetaImage with lines of its header changed."""
    fields = {**_META, **changes}
    return "".join(f"{name} = {value}\n" for name, value in fields.items()).encode() + content


def nrrd_bytes(content: bytes = _VOXELS, /, **changes: str) -> bytes:
    """An NRRD with lines of its header changed; ``_`` in a name stands for a blank."""
    fields = {**_NRRD, **{name.replace("_", " "): value for name, value in changes.items()}}
    return ("NRRD0004\n" + "".join(f"{n}: {v}\n" for n, v in fields.items()) + "\n").encode() + content


@cache
def _packed_zeros(wbits: int = 15) -> bytes:
    """16 MiB of zeros, compressed."""
    stream = zlib.compressobj(1, wbits=wbits)
    return stream.compress(bytes(1 << 24)) + stream.flush()


def _with_pipe(name: str, file: str, content: bytes, *, kept: bool = False) -> Case:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / "pipe")
        (folder / file).write_bytes(content)
        return folder / file

    return Case(name, make, kept=kept)


def metaimages() -> Iterator[Case]:
    """Each line at its extremes, data files that are none, bombs, cuts."""
    for name in _META:
        for at, value in enumerate(_EXTREMES):
            yield file_case(f"mha-{name}-{at}", "a.mha", meta_bytes(**{name: value}))
    for dims in ("1", "2", "4", "9", "10", "11", "1000", "1000000000"):
        many = " ".join(["2"] * min(int(dims), 2000))
        content = meta_bytes(NDims=dims, DimSize=many, ElementSpacing=many, Offset=many)
        yield file_case(f"mha-ndims-{dims}", "a.mha", content, kept=dims in ("11", "1000"))
    for name, line in (
        ("colon", "NDims : 1000"),
        ("twice", "NDims = 3\nNDims = 1000"),
        ("tab", "NDims\t=\t1000"),
    ):
        raw = meta_bytes().replace(b"NDims = 3", line.encode())
        yield file_case(f"mha-ndims-by-{name}", "a.mha", raw, kept=True)
    for value in ("0", "-2", "1000000", "2147483647", "4294967295"):
        yield file_case(f"mha-channels-{value}", "a.mha", meta_bytes(ElementNumberOfChannels=value))
        yield file_case(f"mha-header-size-{value}", "a.mha", meta_bytes(HeaderSize=value))
        packed = meta_bytes(zlib.compress(_VOXELS), CompressedData="True", CompressedDataSize=value)
        yield file_case(f"mha-compressed-size-{value}", "a.mha", packed, kept=value == "4294967295")
    for kind in (
        "MET_FLOAT",
        "MET_DOUBLE",
        "MET_LONG_LONG",
        "MET_ULONG_LONG",
        "MET_STRING",
        "MET_NONE",
        "MET_UCHAR",
    ):
        yield file_case(f"mha-type-{kind}", "a.mha", meta_bytes(ElementType=kind))
    for edge, kind in ((640, "MET_DOUBLE"), (800, "MET_SHORT"), (30000, "MET_SHORT")):
        size = f"{edge} {edge} {edge}"
        fields = {"DimSize": size, "ElementType": kind, "CompressedData": "True"}
        yield file_case(
            f"mha-bomb-{edge}-{kind}", "a.mha", meta_bytes(_packed_zeros(), **fields), kept=edge != 800
        )
    for at, data in enumerate(_FILES):
        yield _with_pipe(
            f"mhd-data-{at}", "a.mhd", meta_bytes(b"", ElementDataFile=data), kept=data == "pipe"
        )
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        raw = meta_bytes()
        yield file_case(f"mha-cut-{part}", "a.mha", raw[: int(part * len(raw))])


def nrrds() -> Iterator[Case]:
    """Each line at its extremes, encodings that lie, data files that are none, cuts."""
    for name in _NRRD:
        for at, value in enumerate(_EXTREMES):
            changes = {name.replace(" ", "_"): value}
            long = name == "sizes" and len(value) > 1000
            yield file_case(f"nrrd-{name.replace(' ', '-')}-{at}", "a.nrrd", nrrd_bytes(**changes), kept=long)
    for length in (890, 1100, 5000):
        yield file_case(
            f"nrrd-unknown-field-{length}", "a.nrrd", nrrd_bytes(**{"y" * length: "x"}), kept=True
        )
    for dims in ("1", "2", "4", "16", "17", "1000"):
        many = " ".join(["2"] * int(dims))
        yield file_case(f"nrrd-axes-{dims}", "a.nrrd", nrrd_bytes(dimension=dims, sizes=many))
    for field in ("line_skip", "byte_skip"):
        for value in ("-1", "-2", "5", "999999999999"):
            yield file_case(f"nrrd-{field}-{value}", "a.nrrd", nrrd_bytes(**{field: value}))
    bomb = bytes(1 << 24)
    for encoding, content in (
        ("gzip", _packed_zeros(31)),
        ("gzip", gzip.compress(_VOXELS)[:-20]),
        ("bzip2", bz2.compress(bomb)),
        ("hex", b"zz" * 500),
        ("ascii", b"1 2 three " * 50),
        ("raw", b""),
    ):
        name = f"nrrd-encoding-{encoding}-{len(content)}"
        yield file_case(name, "a.nrrd", nrrd_bytes(content, encoding=encoding), kept=encoding == "gzip")
    for size in ("640 640 640", "800 800 800"):
        content = nrrd_bytes(_packed_zeros(31), sizes=size, type="double", encoding="gzip")
        yield file_case(f"nrrd-claims-{size.split()[0]}", "a.nrrd", content)
    for at, data in enumerate(_FILES):
        yield _with_pipe(f"nhdr-data-{at}", "a.nhdr", nrrd_bytes(b"", data_file=data), kept=data == "pipe")
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        raw = nrrd_bytes()
        yield file_case(f"nrrd-cut-{part}", "a.nrrd", raw[: int(part * len(raw))])


Change = Callable[[pydicom.Dataset], None]


def _changed(name: str, change: Change, *, only: int | None = None, kept: bool = False) -> Case:
    """Six slices, all or one of them changed and written whatever they hold."""

    def make(folder: Path) -> Path:
        write_series(folder / "d")
        for at, path in enumerate(sorted((folder / "d").iterdir())):
            if only is None or at == only:
                data = pydicom.dcmread(path)
                change(data)
                data.save_as(path, enforce_file_format=False)
        return folder / "d"

    return Case(f"dicom-{name}", make, kept=kept)


def _setter(field: str, value: object) -> Change:
    def change(data: pydicom.Dataset) -> None:
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        setattr(data, field, value)

    return change


def _without(field: str) -> Change:
    return lambda data: data.__delattr__(field)


def _nested(depth: int) -> Change:
    def change(data: pydicom.Dataset) -> None:
        inner = pydicom.Dataset()
        inner.PatientComments = "deep"
        for _ in range(depth):
            outer = pydicom.Dataset()
            outer.ReferencedImageSequence = Sequence([inner])
            inner = outer
        data.ReferencedImageSequence = inner.ReferencedImageSequence

    return change


def _deeply_nested(folder: Path) -> Path:
    """Sequences within sequences, written as bytes since a writer would be exhausted first."""
    write_series(folder / "d")
    path = folder / "d" / "slice002.dcm"
    raw = path.read_bytes()
    start = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    at = raw.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(raw[:at] + start * 20000 + raw[at:])
    return folder / "d"


def _deflated(folder: Path) -> Path:
    """A deflated data set: a small file that unpacks to 3 GiB before a header can be looked at."""
    write_series(folder / "d")
    path = folder / "d" / "slice002.dcm"
    meta = pydicom.dcmread(path).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = DicomBytesIO()
    write_file_meta_info(head, meta)
    stream = zlib.compressobj(1, wbits=-15)
    with path.open("wb") as handle:
        handle.write(bytes(128) + b"DICM" + head.getvalue())
        for _ in range(192):
            handle.write(stream.compress(bytes(1 << 24)))
        handle.write(stream.flush())
    return folder / "d"


def _many_planes(folder: Path) -> Path:
    """One series in which each slice has a plane of its own, as a radial localizer writes them."""
    angles = np.linspace(0.0, 3.0, 400)
    planes = [Slice(n, 3.0 * n, row=(float(np.cos(a)), float(np.sin(a)), 0.0)) for n, a in enumerate(angles)]
    return write_series(folder / "d", *planes)


def dicoms() -> Iterator[Case]:
    """Fields missing and at their extremes, deep nests, bombs, cuts, files that are none."""
    numbers = (
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "SamplesPerPixel",
        "PixelRepresentation",
    )
    for field in numbers:
        for value in (0, 1, 65535):
            yield _changed(f"{field}-{value}", _setter(field, value))
        yield _changed(f"without-{field}", _without(field))
    for field, values in (
        ("PixelSpacing", ([0, 0], [-1, 1], ["nan", "nan"], ["1e400", "1"], [1], [1e-12, 1e-12])),
        ("ImageOrientationPatient", ([0] * 6, ["nan"] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 2, 0], [1] * 5)),
        ("ImagePositionPatient", ([0, 0, 0], ["nan"] * 3, ["inf"] * 3, ["1e300"] * 3, [1])),
        ("NumberOfFrames", (0, 1, 5, 2147483647)),
    ):
        for at, changed in enumerate(values):
            yield _changed(f"{field}-{at}", _setter(field, changed))
            yield _changed(f"one-{field}-{at}", _setter(field, changed), only=2)
        if field != "NumberOfFrames":
            yield _changed(f"without-{field}", _without(field))
    for slope in ("0", "-1", "1e300", "0.5"):
        yield _changed(f"slope-{slope}", _setter("RescaleSlope", slope))
    yield _changed("without-pixels", _without("PixelData"))
    yield _changed(
        "half-the-pixels", lambda data: setattr(data, "PixelData", data.PixelData[: 12 * 14]), only=1
    )
    yield _changed("text", _setter("SeriesDescription", "x" * 100_000))
    yield _changed("nested-50", _nested(50))
    yield Case("dicom-nested-20000", _deeply_nested, kept=True)
    yield Case("dicom-deflated-bomb", _deflated, kept=True)
    yield Case("dicom-many-planes", _many_planes)
    for cut in (10, 131, 132, 140, 200, 300, 500, 700):
        yield Case(f"dicom-cut-{cut}", partial(_cut_one, cut))


def _cut_one(cut: int, folder: Path) -> Path:
    write_series(folder / "d")
    path = folder / "d" / "slice002.dcm"
    path.write_bytes(path.read_bytes()[:cut])
    return folder / "d"


def format_cases() -> list[Case]:
    """All of this module."""
    return [*metaimages(), *nrrds(), *dicoms()]
