"""Worker processes end with the process that started them, and one that is ended is told of."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from epvs_cohort.errors import StoppedError
from epvs_cohort.simulate.workers import in_order

PATIENCE_SECONDS = 60.0
#: A shell has what it runs in the background ignore interrupts, and Python then leaves them ignored.
SLEEPERS = (
    "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from epvs_cohort.simulate.workers import in_order; list(in_order(time.sleep, [900] * 2, 2))"
)


def until(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while not done() and time.monotonic() < end:
        time.sleep(0.1)
    return done()


@pytest.mark.parametrize("n_procs", [1, 2])
def test_results_come_in_order(n_procs: int) -> None:
    assert list(in_order(abs, [-3, 2, -1], n_procs)) == [3, 2, 1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_first_process(number: int) -> None:
    first = subprocess.Popen([sys.executable, "-c", SLEEPERS], stderr=subprocess.DEVNULL)
    try:
        me = psutil.Process(first.pid)
        # Two workers and the tracker of what they share.
        assert until(lambda: len(me.children()) == 3)
        family = me.children()
        first.send_signal(number)
        first.wait(PATIENCE_SECONDS)
        assert until(lambda: not any(child.is_running() and child.status() != "zombie" for child in family))
    finally:
        first.kill()


def test_a_worker_that_is_ended_stops_the_work() -> None:
    with pytest.raises(StoppedError, match="ended from outside"):
        list(in_order(signal.raise_signal, [signal.SIGKILL] * 3, 2))


@pytest.mark.parametrize("n_procs", [1, 2])
def test_jobs_without_end_are_begun_a_few_ahead(n_procs: int) -> None:
    begun: list[int] = []

    def jobs() -> Iterator[int]:
        for number in itertools.count():
            begun.append(number)
            yield -number

    results = in_order(abs, jobs(), n_procs, ahead=3)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    assert len(begun) <= 5 + 3
    results.close()  # type: ignore[attr-defined]
