"""Files that hold the voxels of a header in another file: MetaImage and NRRD, one file, a list or a pattern.

What the data line means is as in MetaIO (``ElementDataFile``) and in Teem's NRRD format (``data file``).
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from epvs_cohort.data.names import shown
from epvs_cohort.data.sniff import PROMISED, content_of, extension_of, opened, require_regular
from epvs_cohort.errors import UnreadableError

_MAX_HEADER_BYTES = 4 << 20
_MAX_FILES = 1 << 16
_LOCAL = (b"LOCAL", b"Local", b"local")
_META_LIST = re.compile(rb"LIST(\s+(\d+)\D*)?")
_META_NUMBERED = re.compile(rb"([^%\s]*%\d{0,3}d[^%\s]*)((?:\s+-?\d+){0,3})")
#: MetaIO keeps what belongs to an axis in arrays for ten of them, and writes on behind their end.
_META_AXES = re.compile(rb"NDims\s*[=:]\s*([^\s=:]*)")
_META_LEGAL_AXES = re.compile(rb"[1-9]")
#: Teem writes a field of more bytes behind the end of its 1024 when it complains of it.
_NRRD_LONGEST_FIELD = 900
#: Comments, pairs of key and value, and the description may be of any length: 3D Slicer writes pairs that are long.
_NRRD_FREE = re.compile(rb"#|content:|(?:(?!: ).)*?:=", re.IGNORECASE | re.DOTALL)
_NRRD_FIELD = re.compile(rb"data ?file: +(.*)", re.IGNORECASE | re.DOTALL)
_NRRD_NUMBERED = re.compile(rb"([^%\s]*%\d{0,3}d[^%\s]*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?\s*")


def data_files_of(path: Path) -> tuple[Path, ...]:
    """Files that the header at ``path`` names for its voxels, in the order in which they are read.

    Empty where the voxels lie in ``path`` itself, and where it is no header of a MetaImage or NRRD. Whether
    the named files exist is not looked at.

    Raises
    ------
    UnreadableError
        The header is missing or empty, or its data line is one that cannot be followed.
    """
    promised = PROMISED.get(extension_of(path))
    if promised not in ("MetaImage", "NRRD") or content_of(path) != promised:
        return ()
    with opened(path) as handle:
        lines = _lines(path, io.BufferedReader(handle))
        names = _of_metaimage(path, lines) if promised == "MetaImage" else _of_nrrd(path, lines)
    if any(b"\0" in name for name in names):
        raise UnreadableError(f"{path}: damaged header: a zero byte in the name of its data file")
    return tuple(path.parent / os.fsdecode(name) for name in names)


def check_data_files(path: Path) -> None:
    """Check that the files which a header names are there.

    Raises
    ------
    UnreadableError
        One is missing, named in the message, or the data line cannot be followed.
    """
    for file in data_files_of(path):
        try:
            require_regular(file)
        except OSError as error:
            raise missing_data_file(path, file, error.strerror or str(error)) from error


def missing_data_file(header: Path, file: Path, reason: str) -> UnreadableError:
    """Error for a data file that cannot be had."""
    return UnreadableError(
        f"{header}: its data file {shown(file)} cannot be read: {reason}",
        hint="header and data files belong together: copy both, under the names that the header gives",
    )


def _lines(path: Path, handle: io.BufferedReader) -> Iterator[bytes]:
    left = _MAX_HEADER_BYTES
    while line := handle.readline(left):
        left -= len(line)
        if left <= 0:
            raise UnreadableError(f"{path}: no end of its header within {_MAX_HEADER_BYTES} bytes")
        yield line


def _of_metaimage(path: Path, lines: Iterator[bytes]) -> list[bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        for axes in _META_AXES.findall(line):
            if not _META_LEGAL_AXES.fullmatch(axes):
                raise UnreadableError(f"{path}: damaged header: NDims {_short(axes)}, legal are 1 to 9")
        name, *value = (part.strip() for part in re.split(rb"[=:]", line, maxsplit=1))
        fields[name] = b"".join(value)
        if name == b"ElementDataFile":
            break
    named = fields.get(b"ElementDataFile", b"")
    if named in (b"", *_LOCAL):
        return []
    if named.startswith(b"LIST"):
        return _of_meta_list(path, named, _extents(path, fields), lines)
    if b"%" in named:
        return _of_meta_pattern(path, named, _extents(path, fields))
    return [named]


def _short(text: bytes) -> str:
    return repr(text[:40]) + ("..." if len(text) > 40 else "")


def _extents(path: Path, fields: dict[bytes, bytes]) -> list[int]:
    words = fields.get(b"DimSize", b"").split()
    if not words or not all(re.fullmatch(rb"\d{1,9}", word) for word in words):
        raise UnreadableError(f"{path}: damaged header: DimSize {fields.get(b'DimSize', b'')!r}")
    return [int(word) for word in words]


def _of_meta_list(path: Path, named: bytes, extents: list[int], lines: Iterator[bytes]) -> list[bytes]:
    found = _META_LIST.fullmatch(named)
    axes = len(extents) - 1
    within = int(found.group(2) or axes) if found else -1
    if not 1 <= within <= axes:
        raise UnreadableError(
            f"{path}: ElementDataFile {named!r}; legal is LIST, or LIST and 1 to {axes} axes"
        )
    needed = math.prod(extents[within:])
    if needed > _MAX_FILES:
        raise UnreadableError(f"{path}: a list of {needed} data files; at most {_MAX_FILES} are legal")
    # ITK leaves a last line without newline unread, and its voxels are then whatever memory held.
    names = [line.rstrip() for line in islice(lines, needed) if line.endswith(b"\n")]
    if len(names) < needed or not all(names):
        raise UnreadableError(
            f"{path}: its list names {sum(map(bool, names))} data files on lines of their own, "
            f"{needed} are needed"
        )
    return names


def _of_meta_pattern(path: Path, named: bytes, extents: list[int]) -> list[bytes]:
    """File names of a numbered series; ITK must not see one that is not one file for each slice.

    It loops for ever at a step of 0, and reads on behind the image where there are more files.
    """
    needed = extents[-1]
    found = _META_NUMBERED.fullmatch(named)
    if found is None:
        raise UnreadableError(f"{path}: ElementDataFile {named!r}; legal is one %d and at most 3 numbers")
    numbers = [int(word) for word in found.group(2).split()]
    first = numbers[0] if numbers else 1
    last = numbers[1] if len(numbers) > 1 else first + needed - 1
    step = 1
    if len(numbers) == 2:
        step = int((last - first) / max(needed, 1))
    elif len(numbers) == 3:
        step = numbers[2]
    if step < 1 or len(range(first, last + 1, step)) != needed:
        raise UnreadableError(
            f"{path}: ElementDataFile {named!r} counts from {first} to {last} in steps of {step}; "
            f"{needed} files, one for each slice, are needed",
            hint="write first, last and step behind the pattern",
        )
    return _numbered(path, found.group(1), range(first, last + 1, step))


def _of_nrrd(path: Path, lines: Iterator[bytes]) -> list[bytes]:
    for line in lines:
        line = line.rstrip(b"\r\n")
        if not line:
            return []
        if len(line) > _NRRD_LONGEST_FIELD and not _NRRD_FREE.match(line):
            raise UnreadableError(
                f"{path}: damaged header: a field of {len(line)} bytes ({_short(line)}), legal are "
                f"{_NRRD_LONGEST_FIELD}"
            )
        field = _NRRD_FIELD.fullmatch(line)
        if field is None:
            continue
        named = field.group(1)
        numbered = _NRRD_NUMBERED.fullmatch(named)
        if numbered is not None:
            first, last, step = (int(numbered.group(at)) for at in (2, 3, 4))
            if step == 0:
                raise UnreadableError(f"{path}: data file {named!r}; the step must not be 0")
            return _numbered(path, numbered.group(1), range(first, last + (1 if step > 0 else -1), step))
        if named.startswith(b"LIST"):
            rest = (line.rstrip(b"\r\n") for line in lines)
            return [name for name in rest if name]
        return [named]
    return []


def _numbered(path: Path, pattern: bytes, numbers: range) -> list[bytes]:
    if len(numbers) > _MAX_FILES:
        raise UnreadableError(
            f"{path}: a pattern of {len(numbers)} data files; at most {_MAX_FILES} are legal"
        )
    return [pattern % number for number in numbers]
