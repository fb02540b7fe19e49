"""The command that the speed of the simulator comes from: what it divides by what, and that it runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_starting_up_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("simulation_speed")
    marks = [
        module.Mark(done, clock, processor, peak)
        for done, clock, processor, peak in (
            (1, 90.0, 50.0, 400.0), (2, 100.0, 60.0, 500.0), (3, 106.0, 71.0, 510.0), (4, 112.0, 80.0, 512.0),
        )
    ]  # fmt: skip
    speed = module.between(marks, 2)
    assert (speed.scans, speed.clock_seconds, speed.processor_seconds) == (2, 6.0, 10.0)
    assert speed.peaks_mib == (500.0, 510.0, 512.0)
    table = module.table_of({"whole heads": speed}, 2)
    # 3600 / 6 by the clock; 2 cores * 3600 / 10 by processor time.
    assert "| whole heads | 2 | 600 | 720 | 300 | 10.00 | 500, 510, 512 |" in table


def test_it_runs(tmp_path: Path) -> None:
    protocol = tmp_path / "small.toml"
    protocol.write_text("[grid]\nshape = [64, 48, 36]\nspacing_mm = [1.3, 1.3, 1.9]\n")
    command = [sys.executable, str(BENCHMARKS / "simulation_speed.py"), "--heads", "2", "--volumes", "3"]
    command += ["--n-procs", "1", "--voxel", "5,5,5", "--protocol", str(protocol)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows] == ["", "whole heads", "prepared volumes"]
    assert [int(row[1]) for row in rows[1:]] == [1, 2]
    assert all(float(row[5]) > 0.1 for row in rows[1:])
