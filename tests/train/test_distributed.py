"""Two processes on the CPU train one network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.errors import UsageError
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.train.distributed import Group, process_group
from epvs_cohort.train.journal import read_journal
from tests.train.two_processes import main

ROOT = Path(__file__).parents[2]


def launched(folder: Path, processes: int) -> list[dict[str, object]]:
    """What each process says."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run(
        [sys.executable, *launcher, "-m", "tests.train.two_processes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        check=True,
        timeout=280,
        capture_output=True,
    )
    return [torch.load(folder / f"rank-{n}.pt", weights_only=True) for n in range(processes)]


def test_two_processes_end_with_the_same_weights_after_the_steps_that_one_takes(tmp_path: Path) -> None:
    one, two = launched(tmp_path / "two", 2)
    assert one["model"] == two["model"] == load_bundle(str(tmp_path / "two" / "model")).model_id
    for name, tensor in one["weights"].items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, two["weights"][name]), name  # type: ignore[index]
    # The first process alone is watched and writes.
    losses = one["losses"]
    assert isinstance(losses, list)
    assert two["losses"] == []
    assert len(losses) == 24
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert [line.step for line in read_journal(tmp_path / "two" / "model").validations] == [8, 16, 24]
    (tmp_path / "alone").mkdir()
    main(tmp_path / "alone")
    alone = torch.load(tmp_path / "alone" / "rank-0.pt", weights_only=True)
    # Sums in another order differ in the last digits, and more with each step.
    assert losses[:10] == pytest.approx(alone["losses"][:10], rel=1e-3)


def test_one_process_is_a_group_of_itself() -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.ones(2)
    with process_group("cpu") as group:
        assert group == Group(0, 1, torch.device("cpu"))
        assert group.is_first
        group.add_gradients([weight])
        group.wait()
        assert group.from_first(1.5, 2.0) == (1.5, 2.0)
    assert weight.grad.tolist() == [1.0, 1.0]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = torch.cuda.device_count()
    monkeypatch.setenv("WORLD_SIZE", "99")
    monkeypatch.setenv("RANK", "98")
    monkeypatch.setenv("LOCAL_RANK", str(found))
    with (
        pytest.raises(UsageError, match=f"process {found} of this machine has no GPU: {found} found"),
        process_group("cuda"),
    ):
        pass
