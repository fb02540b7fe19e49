"""Jobs on worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from epvs_cohort.errors import StoppedError

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Job], Result], jobs: Iterable[Job], n_procs: int, *, ahead: int | None = None
) -> Iterator[Result]:
    """Results of a function for each job, in the order of the jobs.

    Parameters
    ----------
    function, jobs
        Picklable where there is more than one process.
    n_procs : int
        1: in this process.
    ahead : int or None
        Jobs that are begun before their turn at most, so that there may be jobs without end; None is all.

    Raises
    ------
    StoppedError
        A worker process was ended from outside.
    """
    if n_procs == 1:
        yield from map(function, jobs)
        return
    # A forked copy of a process that runs threads may hang.
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(n_procs, mp_context=context, initializer=_follow, initargs=(reader,))
    # The pipe closes first: workers that are in the middle of a job that nobody waits for any more are ended by it.
    with reader, pool, writer:
        try:
            yield from pool.map(function, jobs) if ahead is None else _few_ahead(pool, function, jobs, ahead)
        except BrokenProcessPool as error:
            raise StoppedError(
                "a worker process was ended from outside; most often memory was short",
                hint="start again with fewer processes",
            ) from error


def _few_ahead(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _follow(reader: Connection) -> None:
    """Begin a worker: it ends once the pipe to the first process closes, as it does when that is killed."""
    # An interrupt from the keyboard reaches every process; the first one sees to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(reader,), daemon=True).start()


def _end_with(reader: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        reader.recv()
    os._exit(1)
