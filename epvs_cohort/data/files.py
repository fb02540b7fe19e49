"""Files that appear whole: a temporary name in the same folder, flushed, then renamed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from epvs_cohort.errors import UsageError

#: Every temporary file or folder of this program ends with this, so that leftovers of a crash can be swept.
TEMPORARY_SUFFIX = ".epvs-tmp"

#: A temporary file of another machine counts as left by a crash after this time.
ABANDONED_SECONDS = 86400.0


def _this_machine() -> str:
    """Name of the machine, with the number of its space of process numbers: containers may share a name."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    name = re.sub(r"[^A-Za-z0-9]+", "_", platform.node())[:40] or "host"
    return f"{name}_{space}"


_HOST = _this_machine()
_OWNER = re.compile(r"\.([A-Za-z0-9_]+)-(\d+)-(\d+)-[0-9a-f]{12}")

#: Where a process's state and start stand in what follows its name in ``/proc/PID/stat``.
_STATE_FIELD, _START_FIELD = 0, 19


def began(process: int) -> int | None:
    """Start of a running process as a number that no other process with its number ever had; None where none runs.

    On Linux it is in ticks since the machine started, which no setting of the clock changes. A process that has ended
    and was never waited for counts as gone: in a container there may be nobody who waits.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[_STATE_FIELD] in "ZX" else int(fields[_START_FIELD])
    try:
        return int(psutil.Process(process).create_time() * 1000)
    except psutil.Error:
        return None


def temporary_beside(path: Path) -> Path:
    """Unused name in the folder of ``path``, to be renamed to it."""
    owner = f"{_HOST}-{os.getpid()}-{began(os.getpid())}"
    return path.with_name(f".{owner}-{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")


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


def require_folder(folder: Path) -> None:
    """Check that ``folder`` is one that can be written, or can be made; nothing is made.

    Raises
    ------
    UsageError
        A file stands in its place or above it, or it may not be written.
    """
    nearest = next(
        path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink()
    )
    if not nearest.is_dir():
        raise UsageError(f"{folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            f"{folder}: {nearest} cannot be written", hint="choose another place, or mend its permissions"
        )


def is_abandoned(path: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or elsewhere and a day silent.

    What belongs to another user, or cannot be looked at, is not for us to judge; a link is never followed.
    """
    try:
        state = path.lstat()
    except OSError:
        return False
    if hasattr(os, "geteuid") and state.st_uid != os.geteuid():
        return False
    match = _OWNER.match(path.name)
    if match is None or match[1] != _HOST:
        return time.time() - state.st_mtime > ABANDONED_SECONDS
    return began(int(match[2])) != int(match[3])


def sweep(folder: Path, *, own_kind: bool = False) -> int:
    """Remove temporary files and folders that a crash left in ``folder``; return how many.

    Parameters
    ----------
    folder : Path
        May be missing.
    own_kind : bool
        Only what a process of this machine and this space of process numbers named: for a folder where others keep
        what stays silent for more than a day while they run.
    """
    swept = 0
    leftovers = folder.glob(f".{_HOST}-*{TEMPORARY_SUFFIX}*" if own_kind else f".*{TEMPORARY_SUFFIX}*")
    for leftover in filter(is_abandoned, leftovers if folder.is_dir() else ()):
        if own_kind and _OWNER.match(leftover.name) is None:
            continue
        if not leftover.is_symlink() and leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            # Another run may sweep it too.
            with contextlib.suppress(OSError):
                leftover.unlink()
        swept += not os.path.lexists(leftover)
    return swept
