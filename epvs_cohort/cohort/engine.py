"""Feeds a cluster: bounded work in flight, one hop from prepare to infer, no scan blamed for its neighbour."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, KilledWorker, wait

from epvs_cohort.cohort.cluster import ANSWER_SECONDS, Crew, resources_of, workers_at_work
from epvs_cohort.cohort.infer_task import Ready
from epvs_cohort.cohort.order import PrepareOrder, RunOrder
from epvs_cohort.cohort.rows import Row
from epvs_cohort.cohort.tasks import MACHINE_KINDS, infer_task, prepare_task
from epvs_cohort.cohort.time_limit import ran_too_long
from epvs_cohort.errors import StoppedError
from epvs_cohort.records import Failure, PreparedRef, Scan

#: Neither of the two is the other, and Dask raises both.
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)

_log = logging.getLogger(__name__)

#: Prepared scans that may wait for prediction, in batches of each predicting worker; above it none is prepared.
READY_BATCHES = 3
#: Batches under way on each predicting worker: one at work, one waiting so that it never idles.
BATCHES_IN_FLIGHT = 2
#: Seconds between looks at whether the workers are still there, and without any of them until the run stops: those that
#: died may all be loading their libraries anew.
LOOK_SECONDS = 5.0
LONELY_SECONDS = float(ANSWER_SECONDS)


@dataclass(frozen=True)
class Finished:
    """One scan's end: its row (a prepared volume's reference where only that was asked for), or its failure."""

    scan: Scan
    outcome: Row | PreparedRef | Failure


@dataclass(frozen=True)
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
    _ready: deque[Ready] = field(default_factory=deque)
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
        self._feed()
        while self._flights:
            for future in self._landed():
                # While others were handed on, its worker may have died: then Dask computes it again.
                if not future.done():
                    continue
                try:
                    answer = self._answer(future)
                except TimeoutError:
                    continue
                flight = self._flights.pop(future)
                yield from self._land(answer, flight, alone=alone)
                future.release()
            self._feed()

    def _landed(self) -> list[Any]:
        """Tasks that have ended; waits for the first, and gives up where no worker is left to end one."""
        last_seen = time.monotonic()
        while True:
            try:
                with self.crew.client.as_current():
                    wait(list(self._flights), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
            except _CANCELLED as error:
                raise _gone("its scheduler dropped the tasks") from error
            except TimeoutError:
                if self._has_workers():
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > LONELY_SECONDS:
                    raise self._lonely() from None
            done = [future for future in self._flights if future.done()]
            if done:
                return done

    def _has_workers(self) -> bool:
        try:
            able = resources_of(workers_at_work(self.crew.client).values())
        except OSError as error:
            raise _gone(str(error)) from error
        return all(able.get(name) for name in self._needed())

    def _lonely(self) -> StoppedError:
        """Why nothing goes on: there are no workers, or none whose memory is not full."""
        there = len(self.crew.client.scheduler_info(n_workers=-1)["workers"])
        if there == 0:
            return _gone(f"no worker for {LONELY_SECONDS:.0f} s")
        return StoppedError(
            f"the memory of the workers ({there}) is full, and none has gone on for {LONELY_SECONDS:.0f} s",
            hint="raise memory_limit in the cluster file, or use fewer processes; the same command goes on",
        )

    def _needed(self) -> set[str]:
        stages = {flight.stage for flight in self._flights.values()}
        return {"prepare" if stage == "prepare" else self.crew.infer_resource for stage in stages}

    def _feed(self) -> None:
        flights = self._flights.values()
        preparing = sum(flight.stage == "prepare" for flight in flights)
        predicting = [flight for flight in flights if flight.stage == "infer"]
        backlog = len(self._ready) + sum(len(flight.scans) for flight in predicting)
        most_batches = BATCHES_IN_FLIGHT * self.crew.infer_slots
        batches = len(predicting)
        if backlog < READY_BATCHES * self.crew.batch * self.crew.infer_slots:
            while self._waiting and preparing < self.crew.slots:
                self._prepare(self._waiting.popleft())
                preparing += 1
        while batches < most_batches and (
            len(self._ready) >= self.crew.batch or (self._ready and preparing == 0)
        ):
            size = min(self.crew.batch, len(self._ready))
            self._infer([self._ready.popleft() for _ in range(size)])
            batches += 1

    def _prepare(self, scan: Scan) -> None:
        client: Client = self.crew.client
        future = client.submit(
            prepare_task,
            scan,
            self.prepare,
            self.crew.seconds_per_scan,
            pure=False,
            resources={"prepare": 1},
            priority=0,
        )
        self._flights[future] = _Flight("prepare", (scan,))

    def _infer(self, batch: list[Ready]) -> None:
        client: Client = self.crew.client
        future = client.submit(
            infer_task,
            batch,
            self.order,
            self.crew.seconds_per_scan,
            pure=False,
            resources={self.crew.infer_resource: 1},
            priority=10,
        )
        self._flights[future] = _Flight("infer", tuple(item.scan for item in batch))

    def _answer(self, future: Any) -> Any:
        """What a task that is done gave, or that it killed its worker."""
        try:
            error = future.exception(timeout=LONELY_SECONDS)
            if isinstance(error, KilledWorker):
                return error
            if error is not None:
                raise _gone(str(error)) from error
            return future.result(timeout=LONELY_SECONDS)
        except _CANCELLED as error:
            raise _gone("its scheduler dropped a task") from error

    def _land(self, answer: Any, flight: _Flight, *, alone: bool) -> Iterator[Finished]:
        if isinstance(answer, KilledWorker):
            limit = self.crew.seconds_per_scan
            late = ran_too_long(self.crew.client, [scan.key for scan in flight.scans], limit)
            for scan in flight.scans:
                # Of several scans in one task it is not known which one hung.
                if limit is not None and late and len(flight.scans) == 1:
                    yield Finished(scan, _late(scan, flight.stage, limit))
                elif alone:
                    yield Finished(scan, _died(scan, flight.stage))
                else:
                    self._aside[scan.key] = scan
            return
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
                self._ready.append(Ready(flight.scans[0], answer.fingerprint))


def _gone(reason: str) -> StoppedError:
    return StoppedError(
        f"the cluster is gone: {reason}", hint="the same command goes on from where it stopped"
    )


def _checked(finished: Finished) -> Finished:
    outcome = finished.outcome
    if isinstance(outcome, Failure) and outcome.kind in MACHINE_KINDS:
        raise StoppedError(outcome.message, hint=outcome.hint)
    return finished


def _late(scan: Scan, stage: str, seconds: float) -> Failure:
    return Failure(
        scan.key,
        stage,
        "time_limit",
        f"{scan.path}: took longer than the {seconds / 60.0:.3g} minutes that a scan may take, and was ended",
        "if such scans really take so long, raise minutes_per_scan in the cluster file",
        seconds,
    )


def _died(scan: Scan, stage: str) -> Failure:
    return Failure(
        scan.key,
        stage,
        "worker_died",
        f"{scan.path}: the worker process died on it twice, the second time with nothing else beside it",
        "often too little memory: see memory_limit in the cluster file",
        0.0,
    )
