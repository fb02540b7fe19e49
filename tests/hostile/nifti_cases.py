"""NIfTI and MGH files made hostile: each header field at its extremes, cuts at each region, bombs, affines, types."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.data.bad_input import AFFINE, SHAPE, Array, nifti_bytes, patched, volume
from tests.hostile.cases import Case, file_case

_PLAIN = bytes(nifti_bytes())
_GZIP = gzip.compress(_PLAIN, mtime=0)
#: Voxels that as float32 take hardly less than the 2 GiB which a header may claim.
_LARGEST_LEGAL = (800, 800, 800)
_REAL = (0.0, -1.0, np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-44)


def _header(second: bool) -> tuple[Any, bytes]:
    if not second:
        return nib.Nifti1Header(_PLAIN[:348], check=False), _PLAIN[352:]
    raw = bytes(nib.Nifti2Image(volume(), AFFINE).to_bytes())
    return nib.Nifti2Header(raw[:540], check=False), raw[544:]


def _extremes(dtype: np.dtype[Any]) -> Iterable[object]:
    if dtype.kind == "f":
        return _REAL
    if dtype.kind in "iu":
        legal = np.iinfo(dtype)
        return sorted({int(legal.min), int(legal.max), 0, -1 if legal.min else 0})
    return (b"\xff" * dtype.itemsize, b"\0" * dtype.itemsize)


def header_fields() -> Iterator[Case]:
    """Each field of NIfTI-1, NIfTI-2 and MGH headers at its extremes, arrays wholly so and by their first element."""
    for second in (False, True):
        blank, voxels = _header(second)
        for name in blank:
            element, shape = blank.template_dtype[name].base, blank.template_dtype[name].shape
            for value in _extremes(element):
                header, _ = _header(second)
                header[name] = np.full(shape, value, element) if shape else np.array(value, element)
                content = bytes(header.binaryblock) + bytes(4) + voxels
                kind = 2 if second else 1
                yield file_case(f"nifti{kind}-{name}-{value!r}"[:60], "a.nii", content)
    raw = bytes(nib.MGHImage(volume(), AFFINE.astype(np.float32)).to_bytes())
    for name, (dtype, offset) in nib.MGHImage.header_class.template_dtype.fields.items():
        for value in _extremes(dtype.base):
            changed = bytearray(raw)
            block = np.full(dtype.shape, value, dtype.base).tobytes()
            changed[offset : offset + len(block)] = block
            yield file_case(f"mgh-{name}-{value!r}"[:60], "a.mgh", bytes(changed))


def truncations() -> Iterator[Case]:
    """Cuts at the start, in each region of the header, at its end, within and just before the end of the voxels."""
    places = (
        1,
        3,
        39,
        40,
        69,
        76,
        107,
        111,
        147,
        251,
        327,
        343,
        347,
        348,
        351,
        352,
        353,
        700,
        len(_PLAIN) - 1,
    )
    for at in places:
        yield file_case(f"cut-plain-{at}", "a.nii", _PLAIN[:at], kept=at == 348)
        yield file_case(f"cut-inside-gzip-{at}", "a.nii.gz", gzip.compress(_PLAIN[:at], mtime=0))
    for at in (
        1,
        2,
        9,
        10,
        11,
        40,
        len(_GZIP) // 2,
        len(_GZIP) - 9,
        len(_GZIP) - 8,
        len(_GZIP) - 4,
        len(_GZIP) - 1,
    ):
        yield file_case(f"cut-gzip-{at}", "a.nii.gz", _GZIP[:at])


def _zeros_gzip(path: Path, head: bytes, size: int) -> Path:
    """A gzip file of a head and ``size`` zero bytes, made without holding them."""
    stream = zlib.compressobj(1, wbits=31)
    with path.open("wb") as handle:
        handle.write(stream.compress(head))
        block = bytes(1 << 24)
        for start in range(0, size, len(block)):
            handle.write(stream.compress(block[: min(len(block), size - start)]))
        handle.write(stream.flush())
    return path


def _bomb(name: str, head: bytes, size: int, *, kept: bool = False) -> Case:
    return Case(name, lambda folder: _zeros_gzip(folder / "a.nii.gz", head, size), kept=kept)


def _claiming(code: int, bits: int, **fields: object) -> bytes:
    dims = [3, *_LARGEST_LEGAL, 1, 1, 1, 1]
    return patched(dim=dims, datatype=code, bitpix=bits, **fields)[:352]


def _in_single_bytes() -> bytes:
    return b"".join(gzip.compress(_PLAIN[at : at + 1], 1, mtime=0) for at in range(len(_PLAIN)))


def bombs() -> Iterator[Case]:
    """Little files that unpack to much, and headers that claim more than there is."""
    count = int(np.prod(_LARGEST_LEGAL))
    yield _bomb("bomb-uint8", _claiming(2, 8), count)
    yield _bomb("bomb-uint8-scaled", _claiming(2, 8, scl_slope=0.5), count)
    yield _bomb("bomb-behind-the-voxels", _PLAIN, 1 << 28, kept=True)
    yield _bomb("bomb-before-the-voxels", patched(vox_offset=float(1 << 28))[:352], 1 << 28)
    yield _bomb("bomb-of-nothing-known", b"", 1 << 28)
    yield file_case("bomb-gzip-in-gzip", "a.nii.gz", lambda: gzip.compress(gzip.compress(bytes(1 << 26), 1)))
    nothing = gzip.compress(b"", mtime=0)
    parts = (gzip.compress(_PLAIN[:1000]), gzip.compress(_PLAIN[1000:]))
    yield file_case(
        "gzip-many-empty-members", "a.nii.gz", lambda: parts[0] + nothing * 500_000 + parts[1], kept=True
    )
    yield file_case("gzip-one-byte-members", "a.nii.gz", _in_single_bytes)
    named = b"\x1f\x8b\x08\x08" + bytes(6)
    yield file_case("gzip-name-without-end", "a.nii.gz", lambda: named + b"A" * (20 << 20))
    for file, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        for edge in (1300, 30000):
            content = pack(patched(dim=[3, edge, edge, edge, 1, 1, 1, 1]))
            yield file_case(f"claims-{edge}-cubed-{file}", file, content, kept=edge == 30000)
    header, voxels = _header(True)
    header["dim"] = [3, 2**62, 2**62, 2**62, 1, 1, 1, 1]
    yield file_case("claims-2-to-186", "a.nii", bytes(header.binaryblock) + bytes(4) + voxels, kept=True)


def _placed(name: str, affine: Array, **fields: object) -> Case:
    rows = {f"srow_{'xyz'[row]}": affine[row].astype(np.float32) for row in range(3)}
    return file_case(f"affine-{name}", "a.nii", patched(sform_code=1, **rows, **fields))


def affines() -> Iterator[Case]:
    """NaN, infinity, zero, singular, sheared, mirrored, tiny, huge and far away."""
    for row in range(3):
        for column in range(4):
            for value in (np.nan, np.inf, 0.0, 1e30, 1e-30):
                affine = AFFINE.copy()
                affine[row, column] = value
                yield _placed(f"{row}{column}-{value:g}", affine)
    for axis in range(3):
        mirrored = AFFINE.copy()
        mirrored[axis] *= -1
        yield _placed(f"mirrored-{axis}", mirrored)
    for name, scale in (("metres", 1e-3), ("micrometres", 1e3), ("negative", -1.0)):
        yield _placed(name, AFFINE * [[scale], [scale], [scale], [1.0]])
    sheared = AFFINE.copy()
    sheared[0, 1], sheared[1, 0] = 0.6, 0.5
    yield _placed("sheared", sheared)
    singular = AFFINE.copy()
    singular[1] = singular[0]
    yield _placed("singular", singular)
    yield _placed("singular-but-qform", singular, qform_code=1)
    yield file_case(
        "qform-no-rotation", "a.nii", patched(sform_code=0, qform_code=1, quatern_b=0.9, quatern_c=0.9)
    )
    for qfac in (np.nan, 0.0, 7.0):
        pixdim = [qfac, 0.5, 0.6, 0.8, 1, 1, 1, 1]
        yield file_case(f"qform-qfac-{qfac}", "a.nii", patched(sform_code=0, qform_code=1, pixdim=pixdim))


_CODES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 32767, -1)


def types_and_scales() -> Iterator[Case]:
    """All voxel types over the same bytes, in both byte orders; scale slopes and intercepts of all sizes."""
    for code in _CODES:
        yield file_case(f"type-{code}", "a.nii", patched(datatype=code, bitpix=16))
        size = patched(datatype=code, bitpix=16, dim=[3, 4, 4, 4, 1, 1, 1, 1])
        yield file_case(f"type-{code}-small", "a.nii", size)
    for type_ in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
        for order in "<>":
            image = nib.Nifti1Image(volume(), AFFINE, nib.Nifti1Header(endianness=order))
            image.header.set_data_dtype(np.dtype(order + type_))
            yield file_case(f"stored-{order}{type_}", "a.nii", bytes(image.to_bytes()))
    swapped = nib.Nifti1Header(_PLAIN[:348], check=False).as_byteswapped(">")
    yield file_case("header-swapped-alone", "a.nii", bytes(swapped.binaryblock) + _PLAIN[348:], kept=True)
    for field in ("dim", "datatype", "srow_x", "vox_offset"):
        header = nib.Nifti1Header(_PLAIN[:348], check=False)
        header[field] = header[field].byteswap()
        yield file_case(f"swapped-{field}", "a.nii", bytes(header.binaryblock) + _PLAIN[348:])
    for slope in (0.0, np.nan, np.inf, -1.0, 1e-38, 1e30, 3e38):
        for inter in (0.0, np.nan, -np.inf, 3e38):
            yield file_case(f"slope-{slope}-{inter}", "a.nii", patched(scl_slope=slope, scl_inter=inter))
    for value in (np.nan, np.inf, -np.inf, 3e38, -3e38):
        data = volume(dtype="float32").astype(np.float32)
        data[3, 4, 5] = value
        yield file_case(f"voxel-{value}", "a.nii", bytes(nifti_bytes(data)))
        yield file_case(
            f"mask-voxel-{value}", "a.nii", bytes(nifti_bytes(data)), way="labels", kept=value != value
        )


def wrong_magic() -> Iterator[Case]:
    """What is no NIfTI under its name, and extensions that lie."""
    for magic in (b"", b"n+3", b"ni1", b"N+1", b"n+1x", b"\xff\xff\xff\xff"):
        yield file_case(f"magic-{magic!r}", "a.nii", patched(magic=magic))
    contents = {
        "pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'touch executed'\ntR." + bytes(400),
        "elf": b"\x7fELF" + bytes(600),
        "script": b"#!/bin/sh\ntouch executed\n",
        "html": b"<html><script>alert(1)</script></html>",
        "xml-bomb": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><l>&b;</l>',
        "nulls": bytes(5000),
        "ones": b"\xff" * 5000,
        "noise": np.random.default_rng(3).bytes(5000),
    }
    for name, content in contents.items():
        for file in ("a.nii", "a.nii.gz", "a.mgh", "a.mha", "a.nrrd"):
            yield file_case(f"{name}-as-{file}", file, content, kept=file == "a.nii" and name == "pickle")
        yield file_case(f"{name}-gzipped", "a.nii.gz", gzip.compress(content))
    for size in (15, 16, 1 << 20, 2**31 - 1, -16):
        extension = b"\1\0\0\0" + np.array([size, 6], "<i4").tobytes() + b"name: Doe^Jane" + bytes(10)
        content = patched(vox_offset=384.0)[:348] + extension[:36] + _PLAIN[352:]
        yield file_case(f"extension-of-{size}", "a.nii", content)


def shapes() -> Iterator[Case]:
    """Axes of 0, 1, 2 and many; too few and too many of them."""
    for dims in (
        [0, 1, 1, 1, 1, 1, 1, 1],
        [1, 100, 1, 1, 1, 1, 1, 1],
        [2, 10, 10, 1, 1, 1, 1, 1],
        [3, 1, 1, 1000, 1, 1, 1, 1],
        [3, 2, 2, 2, 1, 1, 1, 1],
        [3, 2, 2, 400, 1, 1, 1, 1],
        [4, *SHAPE[:2], 5, 2, 1, 1, 1],
        [5, 2, 2, 2, 2, 2, 1, 1],
        [7, 2, 2, 2, 2, 2, 2, 2],
        [3, 32767, 2, 2, 1, 1, 1, 1],
        [8, 2, 2, 2, 2, 2, 2, 2],
        [-3, 2, 2, 2, 1, 1, 1, 1],
        [3, -2, -2, 2, 1, 1, 1, 1],
    ):
        yield file_case("shape-" + "x".join(str(d) for d in dims), "a.nii", patched(dim=dims))


def nifti_cases() -> list[Case]:
    """All of this module."""
    return [
        *header_fields(),
        *truncations(),
        *bombs(),
        *affines(),
        *types_and_scales(),
        *wrong_magic(),
        *shapes(),
    ]
