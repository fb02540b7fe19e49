"""What runs on the workers. The one place where any error becomes an outcome of its scan."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace

from epvs_cohort.cohort.infer_task import Ready, infer
from epvs_cohort.cohort.order import PrepareOrder, RunOrder
from epvs_cohort.cohort.prepare_task import prepare
from epvs_cohort.cohort.rows import Row
from epvs_cohort.cohort.time_limit import limited
from epvs_cohort.errors import EpvsError
from epvs_cohort.records import Failure, PreparedRef, Scalar, Scan

_log = logging.getLogger(__name__)

#: Kinds of failure that concern the machine, not the scan: the run stops and goes on when there is room.
MACHINE_KINDS = frozenset({"disk_full", "storage", "model"})

_FULL = {errno.ENOSPC, errno.EDQUOT}
#: Inputs that cannot be read are errors of their scan; what is left is the store.
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


def failure_of(scan: Scan, stage: str, error: Exception, seconds: float) -> Failure:
    """Describe an error as the failure of a scan."""
    if isinstance(error, EpvsError):
        kind, message, hint = error.kind, error.message, error.hint
    elif isinstance(error, MemoryError):
        kind, message, hint = (
            "out_of_memory",
            f"{scan.path}: not enough memory",
            "give each worker more memory",
        )
    elif isinstance(error, OSError) and error.errno in _FULL:
        kind, message = "disk_full", f"{error.filename or scan.path}: no space left on the device"
        hint = "make room and start again: it goes on where it stopped"
    elif isinstance(error, OSError) and error.errno in _UNUSABLE:
        kind, message = "storage", f"{error.filename or scan.path}: {error.strerror}"
        hint = "mend that and start again: it goes on where it stopped"
    else:
        _log.error("%s: %s", scan.key, traceback.format_exc())
        kind, message = "bug", f"{scan.path}: {type(error).__name__}: {error}"
        hint = "please report this with the log"
    return Failure(scan.key, stage, kind, message, hint, seconds)


def prepare_task(
    scan: Scan, order: PrepareOrder, seconds_per_scan: float | None = None
) -> PreparedRef | Failure:
    """Prepare one scan; never raises, and takes the process with it where it takes too long."""
    began = time.perf_counter()
    known: dict[str, Scalar] = {}
    with limited([scan.key], seconds_per_scan):
        try:
            return prepare(scan, order, known)
        except Exception as error:
            return replace(failure_of(scan, "prepare", error, time.perf_counter() - began), known=known)


def infer_task(
    batch: Sequence[Ready], order: RunOrder, seconds_per_scan: float | None = None
) -> list[Row | Failure]:
    """Predict and detect a batch; never raises, and takes the process with it where it takes too long."""
    with limited([ready.scan.key for ready in batch], seconds_per_scan):
        return _inferred(batch, order)


def _inferred(batch: Sequence[Ready], order: RunOrder) -> list[Row | Failure]:
    """Outcomes of a batch; if it breaks as a whole its scans are tried one by one."""
    began = time.perf_counter()
    try:
        answers: list[Row | EpvsError] = infer(batch, order)
    except Exception as error:
        if len(batch) == 1:
            return [failure_of(batch[0].scan, "infer", error, time.perf_counter() - began)]
        return [outcome for ready in batch for outcome in _inferred([ready], order)]
    seconds = (time.perf_counter() - began) / max(len(batch), 1)
    return [
        failure_of(ready.scan, "infer", answer, seconds) if isinstance(answer, EpvsError) else answer
        for ready, answer in zip(batch, answers, strict=True)
    ]
