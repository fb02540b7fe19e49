"""The time that one scan may take: a task that hangs takes its worker process with it, wherever it hangs.

No exception reaches code that hangs in a library, so the process is ended by a timer of the C runtime, which needs
nothing of Python. What was running, and since when, is told to the scheduler before, where the driver looks it up.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

from distributed import Client, get_worker

_log = logging.getLogger(__name__)

#: Topic of the scheduler's events under which workers tell what they begin.
_TOPIC = "epvs-cohort-began"

#: The earliest end that the timer is set to, in seconds from now.
_SOONEST = 0.001


class _Timer:
    """One timer for all tasks of a process: it runs out when the first of them is late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[object, float] = {}
        self._nowhere: TextIO | None = None

    @contextlib.contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer."""
        mark = object()
        self._change(mark, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._change(mark, None)

    def _change(self, mark: object, end: float | None) -> None:
        with self._lock:
            faulthandler.cancel_dump_traceback_later()
            if end is None:
                del self._ends[mark]
            else:
                self._ends[mark] = end
            if self._ends:
                left = max(min(self._ends.values()) - time.monotonic(), _SOONEST)
                faulthandler.dump_traceback_later(left, exit=True, file=self._file())

    def _file(self) -> int:
        """Where the timer says in which line each thread hung: to the terminal, where every stage is logged."""
        if _log.isEnabledFor(logging.DEBUG):
            return 2
        if self._nowhere is None:
            self._nowhere = open(os.devnull, "w")  # noqa: SIM115 - the timer needs it as long as the process lives.
        return self._nowhere.fileno()


_timer = _Timer()


@contextlib.contextmanager
def limited(keys: Sequence[str], seconds_per_scan: float | None) -> Iterator[None]:
    """End this worker process if the block takes longer than its scans may; None lets it take any time."""
    if seconds_per_scan is None:
        yield
        return
    with contextlib.suppress(ValueError):  # Called outside a cluster, there is nobody to tell.
        get_worker().log_event(_TOPIC, list(keys))
    with _timer.running(seconds_per_scan * len(keys)):
        yield


def ran_too_long(client: Client, keys: Sequence[str], seconds_per_scan: float | None) -> bool:
    """Whether a task that lost its worker just now had run for as long as its scans may."""
    if seconds_per_scan is None:
        return False
    # What went over the network as a list comes back as a tuple.
    began = [stamp for stamp, told in client.get_events(_TOPIC) if list(told) == list(keys)]
    now: float = client.run_on_scheduler(time.time)
    return bool(began) and now - began[-1] >= seconds_per_scan * len(keys)
