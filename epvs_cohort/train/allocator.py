"""Memory that was freed is kept for the next tensor, in place of going back to the system and coming anew."""

from __future__ import annotations

import ctypes
import sys

#: Names of parameters in glibc's ``malloc.h``.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

#: Memory that is kept at most, and that is asked for at a time, in bytes.
KEPT_BYTES, STEP_BYTES = 2**31 - 1, 1 << 26


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, for the whole process; elsewhere nothing is done.

    A full-resolution feature map is 58 MB, which glibc asks the system for each time, and the system hands out
    page by page, filled with zeros: a third of the time of a training step on a CPU went there.

    Returns
    -------
    bool
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_TOP_PAD, STEP_BYTES))
    return all(mallopt(name, value) == 1 for name, value in wanted)
