"""Files that appear whole: a temporary name in the same folder, flushed, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

#: Every temporary file or folder of this program ends with this, so that leftovers of a crash can be swept.
TEMPORARY_SUFFIX = ".epvs-tmp"


def temporary_beside(path: Path) -> Path:
    """Unused name in the folder of ``path``, to be renamed to it."""
    return path.with_name(f".{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it is flushed to disk and becomes ``path``."""
    temporary = temporary_beside(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds all of it or what it held before."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def flush(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove temporary files and folders that a crash left in ``folder``; return how many."""
    swept = 0
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}") if folder.is_dir() else ():
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
        swept += 1
    return swept
