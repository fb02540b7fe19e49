"""Voxels of NIfTI and MGH files, plain or gzip-compressed, streamed into an array of the checked size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from epvs_cohort.data.claims import Claim, check_claim
from epvs_cohort.data.nifti import HEADER_BYTES, Layout, parse_header
from epvs_cohort.data.sniff import MAX_DEFLATE_RATIO, Inflater, opened
from epvs_cohort.errors import UnreadableError
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import Image

_CHUNK_BYTES = 1 << 22
_TRAILER_BYTES = 1 << 16


class _Source(Protocol):
    def readinto(self, view: memoryview, /) -> int | None: ...


def layout_of(path: Path, extension: str) -> Layout:
    """Header of a NIfTI or MGH file, parsed; ``extension`` in lower case tells which, and whether gzip.

    Raises
    ------
    ScanError
        As ``parse_header``, or the file cannot be opened.
    """
    with opened(path) as handle:
        head = bytearray(HEADER_BYTES)
        source: _Source = Inflater(handle, path) if extension.endswith("z") else handle
        given = _fill(source, memoryview(head))
    return parse_header(bytes(head[:given]), path, mgh=extension.startswith(".mg"))


def claim_of_layout(path: Path, layout: Layout, settings: InputSettings) -> Claim:
    """Check what a parsed header claims.

    Raises
    ------
    ScanError
        As ``check_claim``.
    """
    claim = check_claim(path, layout.shape, layout.affine, settings)
    return replace(claim, notes=layout.notes + claim.notes, quality=layout.quality)


def read_stored(path: Path, extension: str, settings: InputSettings) -> Image:
    """Read a NIfTI or MGH file; slope and intercept applied, nothing looked at but the header.

    Raises
    ------
    ScanError
        The header is refused, or the voxels are cut off or damaged.
    """
    layout = layout_of(path, extension)
    claim = claim_of_layout(path, layout, settings)
    compressed = extension.endswith("z")
    count = int(np.prod(claim.shape))
    last = layout.offset + count * layout.dtype.itemsize
    _check_length(path, last, compressed=compressed)
    with opened(path) as handle:
        if not compressed:
            handle.seek(layout.offset)
            return _image_of(path, handle, layout, claim)
        source = Inflater(handle, path)
        _skip(path, source, layout.offset)
        image = _image_of(path, source, layout, claim)
        # The check sum stands behind the last byte, so reach for it; a 4D file has too much left for that.
        if len(layout.shape) == 3:
            source.readinto(memoryview(bytearray(_TRAILER_BYTES)))
        return image


def _image_of(path: Path, source: _Source, layout: Layout, claim: Claim) -> Image:
    flat = _voxels(path, source, layout, int(np.prod(claim.shape)))
    data = flat.reshape(claim.shape, order="F")
    return Image(data=data, affine=claim.affine, notes=claim.notes, quality=claim.quality)


def _voxels(path: Path, source: _Source, layout: Layout, count: int) -> npt.NDArray[np.generic]:
    """Read ``count`` voxels into a native array, converting piecewise so that no second copy is held."""
    kept = layout.dtype.kind in "iu" and layout.dtype.itemsize <= 4 and not layout.scaled
    target = layout.dtype.newbyteorder("=") if kept else np.dtype(np.float32)
    out = np.empty(count, dtype=target)
    step = _CHUNK_BYTES // layout.dtype.itemsize
    buffer = np.empty(min(step, count), dtype=layout.dtype)
    direct = target == layout.dtype
    for start in range(0, count, step):
        stop = min(start + step, count)
        piece = out[start:stop] if direct else buffer[: stop - start]
        given = _fill(source, piece.view(np.uint8).data)
        if given < piece.nbytes:
            found = start * layout.dtype.itemsize + given
            raise UnreadableError(
                f"{path}: truncated: {found} bytes of voxels where the header says "
                f"{count * layout.dtype.itemsize}",
                hint="copy or download the file again",
            )
        if not direct:
            with np.errstate(over="ignore", invalid="ignore"):
                values = piece * layout.slope + layout.inter if layout.scaled else piece
                out[start:stop] = values
    return out


def _fill(source: _Source, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        given = source.readinto(view[filled:])
        if not given:
            break
        filled += given
    return filled


def _skip(path: Path, source: _Source, size: int) -> None:
    waste = memoryview(bytearray(min(size, _CHUNK_BYTES)))
    left = size
    while left:
        given = _fill(source, waste[: min(left, len(waste))])
        if not given:
            raise UnreadableError(
                f"{path}: truncated: the file ends before its voxels, at byte {size - left}"
            )
        left -= given


def _check_length(path: Path, needed: int, *, compressed: bool) -> None:
    size = path.stat().st_size
    most = size * MAX_DEFLATE_RATIO if compressed else size
    if most < needed:
        kind = "compressed bytes, which can hold" if compressed else "bytes, so"
        raise UnreadableError(
            f"{path}: truncated: the file has {size} {kind} at most {most}, where the header says {needed}",
            hint="copy or download the file again",
        )
