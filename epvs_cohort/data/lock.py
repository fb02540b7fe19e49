"""One run at a time on one output: a lock that the operating system drops when its process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from epvs_cohort.errors import StoppedError

LOCK_FILE = "lock"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is written to for the length of the block.

    Raises
    ------
    StoppedError
        Another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            file.seek(0)
            raise StoppedError(
                f"{path}: another run (process {file.read().strip() or 'unknown'}) is writing this output",
                hint="wait for it, or choose another --out",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
