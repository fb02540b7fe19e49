"""The command that runs the benchmarks together: what a ratio means, and a small form of each that works."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_ratio_above_one_is_an_aim_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("bench")
    figures = {
        "taken": {
            "script": {"scans": 4, "clock_s": 400.0},
            "two": {"scans": 4, "clock_s": 10.0},
            "one": {"scans": 4, "clock_s": 16.0},
        },
        "agreement": {"same": {"worst": 0.1, "matched": 20, "near": 18}},
    }
    rows = module.rows_of("against_lab", figures)
    assert [round(row.ratio, 3) for row in rows] == [2.0, 0.889, 2.0, 0.947]
    told = module.table_of({"against_lab": (rows, 0.25)})
    assert "| times the laboratory's scans an hour | 40  | at least 20  | 2.00 | met | 0.2 |" in told
    assert "| of perfect scaling to two processes | 0.8  | at least 0.9  | 0.89 | missed | 0.2 |" in told


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_small_form_of_each_benchmark_works(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench.py"), "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (seconds,) = json.loads((tmp_path / "stages.json").read_text())["seconds"].values()
    worked = ("read and gunzip", "rigid registration", "outline", "inference", "writing")
    assert all(seconds[stage] > 0 for stage in worked)
    assert seconds["the rest"] < 0.5 * sum(seconds.values())
    lab = json.loads((tmp_path / "against_lab.json").read_text())
    assert [each["scans"] for each in lab["taken"].values()] == [1, 1, 1]
    assert len(lab["agreement"]) == 3
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    named = ("one core: one scan", "laboratory's scans an hour", "driver, peak", "GPU: epoch")
    assert all(name in table for name in named)
