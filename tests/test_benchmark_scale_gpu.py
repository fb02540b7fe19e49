"""The commands that measure how the engine grows and what a GPU does: small forms of both, run to their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

#: Put in front of the search path, these make an import of ITK or Dask fail.
REFUSED = ("itk", "SimpleITK", "dask", "distributed")


@pytest.mark.slow
def test_networks_are_timed_without_itk_and_dask(tmp_path: Path) -> None:
    for name in REFUSED:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not here')\n")
    out, trace = tmp_path / "gpu.json", tmp_path / "trace.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--shape", "32,32,16"]
    command += ["--batches", "1,2", "--widths", "2,4", "--volumes", "3", "--seconds", "0.01"]
    path = os.pathsep.join([str(tmp_path), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--out", str(out), "--trace", str(trace)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    ways = [(rate["network"], rate["way"], rate["batch"]) for rate in found["rates"]]
    each = [("plain float32", 1), ("bfloat16", 1), ("bfloat16", 2)]
    assert ways == [(network, *way) for network in ("paper's size", "bundled") for way in each]
    assert all(rate["per_s"] > 0 and rate["flop_per_s"] > 0 for rate in found["rates"])
    assert min(found["from_disk_per_s"], found["training_per_s"]) > 0
    assert any("conv" in event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cohort_is_run_and_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--sizes", "12,40", "--procs", "1"]
    command += ["--out", str(out), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(out.read_text())["found"]
    assert (small["scans"], large["scans"]) == (12, 40)
    # Two volume files, side-car, heat and pictures; the parts are merged at the end.
    assert small["files"] == large["files"] == 5
    assert small["parts"] == large["parts"]
    assert 0 < small["lesions"] < large["lesions"]
    assert small["peak_mib"] > 50
