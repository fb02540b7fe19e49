"""A small cohort counted once, and a cluster of two workers that lives as long as the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice, connect
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.errors import UsageError
from tests.torture.tiny import Tiny, make_tiny

N_SCANS = 4
_LISTEN = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def dask(*words: str) -> subprocess.Popen[str]:
    """Start a command of Dask, as docs/clusters.md says to."""
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], *_LISTEN],
        stderr=subprocess.PIPE if words[0] == "dask_scheduler" else subprocess.DEVNULL,
        text=True,
        # What a test sends to its own process group must not reach them.
        start_new_session=True,
        env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
    )


def start_scheduler(port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """A scheduler without workers, and its address."""
    process = dask("dask_scheduler", "--port", str(port))
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
            return process, found[0]
    raise AssertionError("the scheduler told no address")


def start_workers(address: str, number: int) -> subprocess.Popen[str]:
    """Workers that prepare and predict, each a process that is started anew when it dies."""
    return dask(
        "dask_worker",
        address,
        "--nworkers",
        str(number),
        "--nthreads",
        "1",
        "--resources",
        "prepare=1,infer=1",
        "--death-timeout",
        "120",
    )


def wait_for_workers(choice: ClusterChoice, number: int) -> None:
    """Wait until so many workers have come."""
    deadline, said = time.monotonic() + 240, ""
    while True:
        try:
            with connect(choice) as crew:
                if crew.slots == number:
                    return
                said = f"{crew.slots} workers"
        except UsageError as error:
            said = error.message
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterChoice]:
    """Two workers of an existing cluster: runs on it share the time it takes to start."""
    scheduler, address = start_scheduler()
    workers = start_workers(address, 2)
    try:
        choice = ClusterChoice(scheduler=address)
        wait_for_workers(choice, 2)
        yield choice
    finally:
        for process in (workers, scheduler):
            process.terminate()
            process.wait(timeout=60)


@dataclass(frozen=True)
class Counted:
    """A small cohort, and what an undisturbed run made of it."""

    tiny: Tiny
    request: RunRequest
    cohort: Cohort
    whole: Path

    @property
    def out(self) -> Path:
        return self.request.out

    def again(self, **changes: object) -> Cohort:
        """Start the same run again, or one that differs in what is named."""
        return run_cohort(replace(self.request, **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def counted(cluster: ClusterChoice, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """The cohort after an undisturbed run."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny = make_tiny(folder, N_SCANS)
    request = RunRequest(tiny.scans, folder / "out" / "counts.parquet", tiny.protocol, cluster=cluster)
    cohort = run_cohort(request)
    assert cohort.scans["status"].tolist() == ["ok"] * N_SCANS
    return Counted(tiny, request, cohort, request.out)


@pytest.fixture
def copied(counted: Counted, tmp_path: Path) -> Counted:
    """The finished run with scans, output and store of its own, seen as unchanged: time and size are copied."""
    return copy_of(counted, tmp_path / "copy")


def copy_of(counted: Counted, folder: Path) -> Counted:
    shutil.copytree(counted.out.parent, folder / "out")
    request = replace(counted.request, out=folder / "out" / counted.out.name)
    return replace(counted, request=request)


@pytest.fixture
def only_prepared(counted: Counted) -> Callable[[Path], Counted]:
    """Function that gives an output of which the scans are prepared, and none is counted."""

    def give(folder: Path) -> Counted:
        made = copy_of(counted, folder)
        for path in (*made.out.parent.glob("*.parquet"), *made.out.parent.rglob("heat.safetensors")):
            path.unlink()
        shutil.rmtree(made.out.parent / "counts.parts")
        return made

    return give
