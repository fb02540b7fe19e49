"""What a file really is, by its first bytes, and its uncompressed bytes in bounded pieces."""

from __future__ import annotations

import importlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from epvs_cohort.data.names import shown
from epvs_cohort.errors import UnreadableError


def _fastest_inflater() -> Any:
    """ISA-L inflates whole scans in 60 % of zlib's time and is called alike; it is not made for every processor."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


_inflater: Any = _fastest_inflater()

#: Extension to the content it promises, longest first where one ends another.
PROMISED: dict[str, str] = {
    ".nii.gz": "gzip-compressed NIfTI",
    ".nii": "NIfTI",
    ".mgz": "gzip-compressed MGH",
    ".mgh": "MGH",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
}

#: A deflate stream never grows by more than this (zlib's technical notes: 1032:1).
MAX_DEFLATE_RATIO = 1032

_HEAD_BYTES = 4096
_INNER_BYTES = 512
_PIECE_BYTES = 1 << 18
#: Members of a gzip file beyond this must hold so many uncompressed bytes each, on average: one that holds hardly
#: anything takes as long to begin as one of some thousand bytes.
_FREE_MEMBERS = 1024
_LEAST_MEMBER_BYTES = 256
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (344, b"n+1\0", "NIfTI"),
    (4, b"n+2\0", "NIfTI"),
    (344, b"ni1\0", "header of a NIfTI .hdr/.img pair"),
    (4, b"ni2\0", "header of a NIfTI .hdr/.img pair"),
    (128, b"DICM", "DICOM"),
    (0, b"NRRD0", "NRRD"),
    (0, b"ObjectType", "MetaImage"),
    (0, b"NDims", "MetaImage"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"\x89PNG", "PNG picture"),
    (0, b"\xff\xd8\xff", "JPEG picture"),
    (0, b"%PDF", "PDF document"),
    (0, b"\x89HDF", "HDF5 (MINC 2 or other)"),
    (0, b"CDF\x01", "NetCDF (MINC 1 or other)"),
    (0, b"version https://git-lfs", "Git LFS pointer, not the data itself"),
    (0, b"/annex/objects", "git-annex pointer, not the data itself"),
)


def extension_of(path: Path) -> str:
    """Extension of an image file in lower case, ``.nii.gz`` as a whole.

    >>> extension_of(Path("sub-1_PDw.NII.gz"))
    '.nii.gz'
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem_of(path: Path) -> str:
    """File name without its image extension.

    >>> stem_of(Path("a/sub-1_PDw.nii.gz"))
    'sub-1_PDw'
    """
    extension = extension_of(path)
    return path.name[: -len(extension)] if extension else path.name


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Open a file for reading, unbuffered.

    Raises
    ------
    UnreadableError
        Missing, empty, a folder, a pipe or device, not permitted, or the disk fails while it is read.
    """
    try:
        require_regular(path)
        with FileIO(path, opener=_without_waiting) as handle:
            if path.stat().st_size == 0:
                raise UnreadableError(f"{shown(path)}: the file is empty (0 bytes)")
            yield handle
    except FileNotFoundError as error:
        broken = path.is_symlink()
        found = "a symbolic link to a file that does not exist" if broken else "no such file"
        raise UnreadableError(f"{shown(path)}: {found}") from error
    except IsADirectoryError as error:
        raise UnreadableError(f"{shown(path)}: a folder, where a file was expected") from error
    except PermissionError as error:
        raise UnreadableError(
            f"{shown(path)}: no permission to read it", hint="give the user who runs this read permission"
        ) from error
    except OSError as error:
        raise UnreadableError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error


def require_regular(path: Path) -> None:
    """Check that a path leads to a file with bytes of its own: a pipe would be waited for, a device has no end.

    Raises
    ------
    UnreadableError
        It leads to a pipe, a socket or a device.
    OSError
        It cannot be looked up.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise UnreadableError(f"{shown(path)}: a pipe, socket or device, where a file was expected")


def _without_waiting(name: str, flags: int) -> int:
    # Should a pipe take the place of the file after all, nobody is waited for at its other end.
    return os.open(name, flags | os.O_NONBLOCK)


def content_of(path: Path) -> str:
    """Name what the file really is, from at most its first 4096 bytes.

    Raises
    ------
    UnreadableError
        The file is missing, empty or not permitted.
    """
    with opened(path) as handle:
        head = handle.read(_HEAD_BYTES)
    if not head.startswith(_GZIP_MAGIC):
        return _name_of(head)
    try:
        inner = zlib.decompressobj(_GZIP_WBITS).decompress(head, _INNER_BYTES)
    except zlib.error:
        return "damaged gzip"
    return f"gzip-compressed {_name_of(inner)}" if inner else "gzip of nothing, or cut off at its start"


def _name_of(head: bytes) -> str:
    for offset, magic, name in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:4] == b"\0\0\0\x01" and head[20:24] in (
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"\0\0\0\x03",
        b"\0\0\0\x04",
    ):
        return "MGH"
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return "Analyze 7.5, or NIfTI with a damaged magic number"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        if b"NDims" in head and b"ElementType" in head:
            return "MetaImage"
        return "plain text"
    return "data of an unknown kind"


def check_extension(path: Path) -> str:
    """Extension of ``path``, after a look that the content is what the extension promises.

    Raises
    ------
    UnreadableError
        Not a readable file, an extension that is not read here, or another content than promised.
    """
    extension = extension_of(path)
    content = content_of(path)
    promised = PROMISED.get(extension)
    if promised == content:
        return extension
    legal = [known for known, name in PROMISED.items() if name == content]
    hint = f"rename it to end in {' or '.join(legal)}" if legal else ""
    if content.startswith(("damaged", "gzip of nothing")):
        hint = "copy or download the file again"
    if content == "DICOM":
        hint = "name the folder that holds the DICOM series instead of one of its files"
    if promised is None:
        known = ", ".join(PROMISED)
        raise UnreadableError(
            f"{path}: extension {extension!r} is not read as an image (it holds {content}); "
            f"legal are {known}, or a folder of DICOM files",
            hint=hint,
        )
    raise UnreadableError(
        f"{path}: named {extension}, which means {promised}, but holds {content}", hint=hint
    )


class Inflater:
    """Sequential reader of gzip data that never inflates more than it is asked for.

    Parameters
    ----------
    handle : FileIO
        Open at the start of the gzip data.
    path : Path
        Named in errors.
    """

    def __init__(self, handle: FileIO, path: Path) -> None:
        self._handle = handle
        self._path = path
        self._stream = _inflater.decompressobj(_GZIP_WBITS)
        self._pending = b""
        self._given = 0
        self._members = 1

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` (bytes); the number filled, less than asked only at the end of the data.

        Raises
        ------
        UnreadableError
            The gzip data are damaged or cut off.
        """
        filled = 0
        while filled < len(view):
            piece = self._piece(len(view) - filled)
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def _piece(self, size: int) -> bytes:
        while True:
            if self._stream.eof and not self._next_member():
                return b""
            data = self._pending or self._handle.read(_PIECE_BYTES)
            piece = self._inflated(data, size)
            self._pending = self._stream.unconsumed_tail
            self._given += len(piece)
            if piece:
                return piece
            if not data and not self._stream.eof:
                raise UnreadableError(
                    f"{self._path}: the gzip data are cut off after {self._given} uncompressed bytes",
                    hint="copy or download the file again",
                )

    def _inflated(self, data: bytes, size: int) -> bytes:
        try:
            piece: bytes = self._stream.decompress(data, size)
            return piece
        except _inflater.error as error:
            finding = str(error)
        # Raised out here: ISA-L's error names a module that cannot be imported, and, carried along as the context of
        # ours, would keep a worker from sending it.
        raise UnreadableError(
            f"{self._path}: damaged gzip data after {self._given} uncompressed bytes ({finding})",
            hint="copy or download the file again",
        )

    def _next_member(self) -> bool:
        rest = self._stream.unused_data or self._handle.read(_PIECE_BYTES)
        if not rest.startswith(_GZIP_MAGIC):
            return False
        self._members += 1
        if self._members > _FREE_MEMBERS and self._given < self._members * _LEAST_MEMBER_BYTES:
            raise UnreadableError(
                f"{self._path}: damaged gzip data: {self._members} members hold {self._given} bytes together"
            )
        self._stream = _inflater.decompressobj(_GZIP_WBITS)
        self._pending = rest
        return True
