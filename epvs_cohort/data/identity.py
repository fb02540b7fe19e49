"""Whether an input is the one that was seen before: by size, time and inode cheaply, by SHA-256 surely."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.sniff import opened
from epvs_cohort.errors import UnreadableError

_PIECE_BYTES = 1 << 20
_INODE_BITS = 63


@dataclass(frozen=True)
class FileState:
    """What a file system tells of a file without reading it; equal states count as equal contents.

    Attributes
    ----------
    size : int
        Bytes; the sum over the files of a folder.
    mtime_ns : int
        Time of the last change in nanoseconds; the latest of the files of a folder.
    inode : int
        Number of the file on its file system; for a folder a hash over the name, size, time and inode of
        each file in it, so that a file exchanged for another is seen though sum and maximum stay.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """State of a file, or of the files that lie directly in a folder (a DICOM series).

        Raises
        ------
        UnreadableError
            Missing or not permitted.
        """
        try:
            if not os.path.isdir(path):
                found = path.stat()
                return cls(found.st_size, found.st_mtime_ns, found.st_ino)
            states = [(file.name, file.stat()) for file in _files_in(path)]
        except OSError as error:
            raise UnreadableError(f"{path}: cannot be looked up: {error.strerror or error}") from error
        names = hashlib.sha256()
        for name, state in states:
            entry = f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}\n"
            names.update(entry.encode("utf-8", "surrogateescape"))
        return cls(
            size=sum(state.st_size for _, state in states),
            mtime_ns=max((state.st_mtime_ns for _, state in states), default=0),
            inode=int.from_bytes(names.digest()[:8], "big") >> (64 - _INODE_BITS),
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; of a folder, over the sorted names and hashes of the files directly in it.

    Raises
    ------
    UnreadableError
        Missing, empty or not permitted.
    """
    if not os.path.isdir(path):
        return _hash_file(path).hex()
    try:
        files = _files_in(path)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be listed: {error.strerror or error}") from error
    whole = hashlib.sha256()
    for file in files:
        name = file.name.encode("utf-8", "surrogateescape")
        content = _hash_file(file) if file.stat().st_size else hashlib.sha256().digest()
        whole.update(len(name).to_bytes(8, "big") + name + content)
    return whole.hexdigest()


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    piece = bytearray(_PIECE_BYTES)
    view = memoryview(piece)
    with opened(path) as handle:
        while given := handle.readinto(piece):
            digest.update(view[:given])
    return digest.digest()
