"""Feeds a cluster: bounded work in flight, one hop from prepare to infer, no scan blamed for its neighbour."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, KilledWorker, as_completed

from epvs_cohort.cohort.cluster import Crew
from epvs_cohort.cohort.order import PrepareOrder, RunOrder
from epvs_cohort.cohort.rows import Row
from epvs_cohort.cohort.tasks import MACHINE_KINDS, infer_task, prepare_task
from epvs_cohort.errors import StoppedError
from epvs_cohort.records import Failure, PreparedRef, Scan

_log = logging.getLogger(__name__)

#: Prepared scans that may wait for prediction, in batches; above it no further scan is prepared.
READY_BATCHES = 3


@dataclass(frozen=True)
class Finished:
    """One scan's end: its row (a prepared volume's reference where only that was asked for), or its failure."""

    scan: Scan
    outcome: Row | PreparedRef | Failure


@dataclass
class _Flight:
    """A task under way."""

    stage: str
    scans: tuple[Scan, ...]


@dataclass
class Engine:
    """Runs scans over a cluster.

    Parameters
    ----------
    crew : Crew
        The connected cluster.
    prepare : PrepareOrder
        How to prepare each scan.
    order : RunOrder or None
        How to count each scan; None prepares only.
    on_prepared : callable
        Called with each prepared volume's reference.
    """

    crew: Crew
    prepare: PrepareOrder
    order: RunOrder | None
    on_prepared: Callable[[PreparedRef], None] = lambda _: None
    _waiting: deque[Scan] = field(default_factory=deque)
    _ready: deque[Scan] = field(default_factory=deque)
    _aside: dict[str, Scan] = field(default_factory=dict)
    _flights: dict[Any, _Flight] = field(default_factory=dict)

    def run(self, scans: Sequence[Scan]) -> Iterator[Finished]:
        """Yield each scan's end as it comes, in no fixed order.

        Raises
        ------
        StoppedError
            The disk is full, or the cluster is gone; what was yielded before stands.
        """
        self._waiting.extend(scans)
        yield from self._drain(alone=False)
        aside = list(self._aside.values())
        self._aside.clear()
        for scan in aside:
            _log.warning("%s: lost its worker, tried again alone", scan.key)
            self._waiting.append(scan)
            yield from self._drain(alone=True)

    def _drain(self, *, alone: bool) -> Iterator[Finished]:
        completed: Any = as_completed(loop=self.crew.client.loop)
        self._feed(completed)
        while self._flights:
            future = next(completed)
            flight = self._flights.pop(future)
            yield from self._land(future, flight, alone=alone)
            future.release()
            self._feed(completed)

    def _feed(self, completed: Any) -> None:
        preparing = sum(flight.stage == "prepare" for flight in self._flights.values())
        room = READY_BATCHES * self.crew.batch - len(self._ready)
        while self._waiting and preparing < self.crew.slots and room > 0:
            scan = self._waiting.popleft()
            self._submit(completed, _Flight("prepare", (scan,)))
            preparing, room = preparing + 1, room - 1
        while len(self._ready) >= self.crew.batch or (self._ready and preparing == 0):
            size = min(self.crew.batch, len(self._ready))
            self._submit(completed, _Flight("infer", tuple(self._ready.popleft() for _ in range(size))))

    def _submit(self, completed: Any, flight: _Flight) -> None:
        client: Client = self.crew.client
        if flight.stage == "prepare":
            arguments: tuple[Any, ...] = (prepare_task, flight.scans[0], self.prepare)
            resources, priority = {"prepare": 1}, 0
        else:
            arguments = (infer_task, list(flight.scans), self.order)
            resources, priority = {self.crew.infer_resource: 1}, 10
        future = client.submit(*arguments, pure=False, resources=resources, priority=priority, retries=0)
        self._flights[future] = flight
        completed.add(future)

    def _land(self, future: Any, flight: _Flight, *, alone: bool) -> Iterator[Finished]:
        error = future.exception() if future.status in ("error", "cancelled") else None
        if isinstance(error, KilledWorker):
            for scan in flight.scans:
                if alone:
                    yield Finished(scan, _died(scan, flight.stage))
                else:
                    self._aside[scan.key] = scan
            return
        if error is not None or future.status != "finished":
            raise StoppedError(
                f"the cluster gave up a task: {error or future.status}",
                hint="start again: it goes on where it stopped",
            )
        answer = future.result()
        if flight.stage == "infer":
            for scan, outcome in zip(flight.scans, answer, strict=True):
                yield _checked(Finished(scan, outcome))
        elif isinstance(answer, Failure):
            yield _checked(Finished(flight.scans[0], answer))
        else:
            self.on_prepared(answer)
            if self.order is None:
                yield Finished(flight.scans[0], answer)
            else:
                self._ready.append(flight.scans[0])


def _checked(finished: Finished) -> Finished:
    outcome = finished.outcome
    if isinstance(outcome, Failure) and outcome.kind in MACHINE_KINDS:
        raise StoppedError(outcome.message, hint=outcome.hint)
    return finished


def _died(scan: Scan, stage: str) -> Failure:
    return Failure(
        scan.key,
        stage,
        "worker_died",
        f"{scan.path}: the worker process died on it twice, the second time with nothing else beside it",
        "often too little memory: see memory_limit in the cluster file",
        0.0,
    )
