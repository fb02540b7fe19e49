"""What the workers of our own cluster print."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from distributed.comm.core import CommClosedError

from epvs_cohort.cohort.cluster import ClusterChoice, Crew, connect

#: What this process makes of an interrupt: shells let some that they start in the background ignore it.
BEFORE = signal.getsignal(signal.SIGINT)


def _passes(worker_log: logging.Logger, error: BaseException, message: str) -> bool:
    record = logging.LogRecord(
        worker_log.name, logging.ERROR, "", 0, message, None, (type(error), error, None)
    )
    return bool(worker_log.filter(record))


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with connect(ClusterChoice(n_procs=1, device="cpu")) as crew:
        crew.client.wait_for_workers(1, timeout=60)
        yield crew


def test_a_heartbeat_that_meets_the_end_of_the_run_prints_no_traceback(crew: Crew) -> None:
    beat = "Failed to communicate with scheduler during heartbeat."
    told = crew.client.run(
        lambda: [
            _passes(logging.getLogger("distributed.worker"), error, message)
            for error, message in (
                (CommClosedError("closed"), beat),
                (ValueError("broken"), beat),
                (CommClosedError("closed"), "Timed out"),
            )
        ]
    )
    assert list(told.values()) == [[False, True, True]]


def test_the_driver_alone_hears_the_keyboard(crew: Crew) -> None:
    told = crew.client.run(lambda: signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
    assert list(told.values()) == [True]
    assert signal.getsignal(signal.SIGINT) == BEFORE
