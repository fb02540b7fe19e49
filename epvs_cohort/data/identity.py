"""Whether an input is the one that was seen before: by size, time and inode cheaply, by SHA-256 surely."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.detached import data_files_of, missing_data_file
from epvs_cohort.data.names import shown
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
        Bytes; the sum over the files of an input.
    mtime_ns : int
        Time of the last change in nanoseconds; the latest of the files of an input.
    inode : int
        Number of the file on its file system; for several files a hash over the name, size, time and inode
        of each, so that a file exchanged for another is seen though sum and maximum stay.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """State of an input: of one file, or of all the files that :func:`input_files` names.

        Raises
        ------
        UnreadableError
            One of them is missing or not permitted.
        """
        files = input_files(path)
        states = [_state(path, file) for file in files]
        if files == (path,):
            return cls(states[0].st_size, states[0].st_mtime_ns, states[0].st_ino)
        names = hashlib.sha256()
        for file, state in zip(files, states, strict=True):
            names.update(os.fsencode(file.name))
            names.update(f"\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}\n".encode())
        return cls(
            size=sum(state.st_size for state in states),
            mtime_ns=max((state.st_mtime_ns for state in states), default=0),
            inode=int.from_bytes(names.digest()[:8], "big") >> (64 - _INODE_BITS),
        )


def input_files(path: Path) -> tuple[Path, ...]:
    """Name all files that an input is read from.

    Parameters
    ----------
    path : Path
        An image or side file, or a folder of DICOM files.

    Returns
    -------
    tuple of Path
        The file itself; a header and the data files it names, in its order; or the files that lie directly
        in a folder, sorted, without hidden ones.

    Raises
    ------
    UnreadableError
        A folder or header that is missing, damaged or not permitted.
    """
    if not os.path.isdir(path):
        return (path, *data_files_of(path))
    try:
        return tuple(
            sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        )
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be listed: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of one file; of several (:func:`input_files`), over their names and hashes in order.

    Raises
    ------
    UnreadableError
        Missing, empty or not permitted.
    """
    files = input_files(path)
    if files == (path,):
        return _hash_file(path).hex()
    whole = hashlib.sha256()
    for file in files:
        name = os.fsencode(file.name)
        content = _hash_file(file) if _state(path, file).st_size else hashlib.sha256().digest()
        whole.update(len(name).to_bytes(8, "big") + name + content)
    return whole.hexdigest()


def _state(path: Path, file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        reason = error.strerror or str(error)
        if file != path and not os.path.isdir(path):
            raise missing_data_file(path, file, reason) from error
        raise UnreadableError(f"{shown(file)}: cannot be looked up: {reason}") from error


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    piece = bytearray(_PIECE_BYTES)
    view = memoryview(piece)
    with opened(path) as handle:
        while given := handle.readinto(piece):
            digest.update(view[:given])
    return digest.digest()
