"""Folders of simulated data sets: new or empty before, whole after, and as they were where the work stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from epvs_cohort.data.files import require_folder, sweep, temporary_beside
from epvs_cohort.errors import OutputError, UsageError


def require_empty(out: Path) -> None:
    """Check that a data set can be written to ``out``; sweep what killed runs left in it and beside it.

    Raises
    ------
    UsageError
        It holds something, is no folder, or cannot be written.
    """
    require_folder(out)
    sweep(out)
    # A data set that is new grows beside its place.
    sweep(out.resolve().parent)
    if out.exists() and (found := sorted(path.name for path in out.iterdir())):
        raise UsageError(
            f"{out}: a new or empty folder is needed, found something in it: {found[0]}",
            hint="name another folder, or empty this one",
        )


@contextlib.contextmanager
def whole_folder(out: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well, ``out`` holds what was written there.

    Where ``out`` is there already, it may be a mount, or in a folder that cannot be written, so it is not
    replaced: what was written is moved into it, the entry named ``last`` after all others.
    """
    is_new = not out.exists()
    stage = temporary_beside(out if is_new else out / out.name)
    stage.mkdir(parents=True)
    try:
        yield stage
        if is_new:
            os.replace(stage, out)
            return
        for entry in sorted(stage.iterdir(), key=lambda path: (path.name == last, path.name)):
            os.replace(entry, out / entry.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turn a fault of the disk into an error that names the file.

    Raises
    ------
    OutputError
        A file or folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename2 or error.filename or out}: cannot be written: {error.strerror or error}",
            hint="mend that, or name another folder, and start again",
        ) from error
