"""Workers that die: no scan is lost, no neighbour is blamed."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import psutil

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.discover import DiscoverOptions
from tests.cohort.conftest import TWO_PROCESSES, Counted

TIMES = ["seconds_prepare", "seconds_infer"]

#: Processor seconds of a worker after which it has imported all and works on a scan.
BUSY_SECONDS = 4.0


def busy_workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "spawn_main" in " ".join(process.cmdline()) and sum(process.cpu_times()[:2]) > BUSY_SECONDS:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


class Killer(threading.Thread):
    """Kills busy workers of this process until it is stopped or has killed enough."""

    def __init__(self, most: int) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self._most = most
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.wait(0.1) and self.killed < self._most:
            for process in busy_workers()[:1]:
                process.kill()
                process.wait()
                self.killed += 1

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join()

    def __enter__(self) -> Killer:
        self.start()
        return self


def test_a_lost_worker_costs_no_scan(counted: Counted, tmp_path: Path) -> None:
    with Killer(most=1) as killer:
        request = RunRequest(
            counted.scans,
            tmp_path / "counts.parquet",
            cluster=TWO_PROCESSES,
            discover=DiscoverOptions(limit=2),
        )
        cohort = run_cohort(request)
    assert killer.killed == 1
    expected = counted.cohort.scans.iloc[:2].drop(columns=TIMES)
    pd.testing.assert_frame_equal(cohort.scans.drop(columns=TIMES), expected, check_dtype=False)
    lesions = counted.cohort.lesions
    mine = lesions[lesions["scan"].isin(expected["scan"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(cohort.lesions, mine)


def test_a_scan_that_always_kills_its_worker_ends_as_worker_died(counted: Counted, tmp_path: Path) -> None:
    request = RunRequest(
        counted.scans, tmp_path / "counts.parquet", cluster=TWO_PROCESSES, discover=DiscoverOptions(limit=1)
    )
    with Killer(most=1000) as killer:
        cohort = run_cohort(request)
    assert killer.killed >= 2
    row = cohort.scans.iloc[0]
    assert (row["status"], row["error_kind"]) == ("failed", "worker_died")
    assert "sub-0001_PDw" in row["error_message"]
