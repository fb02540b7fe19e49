"""A run on a Dask cluster that somebody else started, and what a local one listens on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice, connect
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.errors import StoppedError, UsageError
from tests.cohort.conftest import Counted


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Address of a scheduler without workers."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, "--dashboard-address", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"tcp://127\.0\.0\.1:\d+", line)
            if found:
                yield found[0]
                break
        process.terminate()


def start_worker(address: str, resources: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--resources"]
    options = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-nanny"]
    return subprocess.Popen([*command, resources, *options], stderr=subprocess.DEVNULL, env=os.environ.copy())


def test_an_existing_cluster_counts_the_same(counted: Counted, scheduler: str, tmp_path: Path) -> None:
    worker = start_worker(scheduler, "prepare=1,infer=1")
    try:
        with pytest.raises(UsageError, match=r"no worker of .* declares the resource GPU"):
            with_worker(ClusterChoice(scheduler=scheduler, device="cuda"))
        request = RunRequest(
            counted.scans,
            tmp_path / "counts.parquet",
            cluster=ClusterChoice(scheduler=scheduler),
            discover=DiscoverOptions(limit=1),
        )
        cohort = run_cohort(request)
    finally:
        worker.terminate()
        worker.wait()
    times = ["seconds_prepare", "seconds_infer"]
    expected = counted.cohort.scans.iloc[:1].drop(columns=times)
    # A column without nulls holds integers, one with nulls does not.
    pd.testing.assert_frame_equal(cohort.scans.drop(columns=times), expected, check_dtype=False)


def with_worker(choice: ClusterChoice) -> None:
    """Connect once a worker has arrived."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with connect(choice):
                return
        except UsageError as error:
            if "0 workers" not in error.message:
                raise
        time.sleep(0.2)
    raise AssertionError("no worker came")


def test_a_cluster_without_the_needed_resources_is_refused(scheduler: str) -> None:
    with (
        pytest.raises(UsageError, match="0 workers with resources none") as refused,
        connect(ClusterChoice(scheduler=scheduler)),
    ):
        pass
    assert "dask worker" in refused.value.hint


def test_a_local_cluster_listens_on_loopback_alone() -> None:
    with connect(ClusterChoice(n_procs=1, device="cpu")) as crew:
        workers = psutil.Process().children(recursive=True)
        assert crew.slots == 1
        listening = [
            connection.laddr.ip
            for process in (psutil.Process(), *workers)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_a_lost_scheduler_stops_the_run_cleanly_and_it_goes_on(counted: Counted, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    dashboard = ["--dashboard-address", "127.0.0.1:0"]
    with subprocess.Popen([*command, *dashboard], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"tcp://127\.0\.0\.1:\d+", line) for line in process.stderr)))
        worker = start_worker(found[0], "prepare=1,infer=1")
        try:
            with_worker(ClusterChoice(scheduler=found[0]))
            killer = threading.Timer(15.0, process.kill)
            killer.start()
            request = RunRequest(
                counted.scans, tmp_path / "counts.parquet", cluster=ClusterChoice(scheduler=found[0])
            )
            with pytest.raises(StoppedError, match="the cluster is gone") as stopped:
                run_cohort(request)
            assert stopped.value.exit_code == 5
        finally:
            worker.kill()
            worker.wait()
            process.kill()
