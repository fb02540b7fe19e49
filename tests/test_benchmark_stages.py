"""The command that shows what each stage of a scan takes: what it charges to whom."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.model.unet import ConvUnit

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_stage_within_another_is_taken_off_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("stage_clock")

    def spend(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    owner = SimpleNamespace(inner=lambda: spend(0.2))

    def outer() -> None:
        spend(0.1)
        owner.inner()

    owner.outer = outer
    places = {"outer": ((owner, "outer"),), "inner": ((owner, "inner"),)}
    clock = module.StageClock()
    with patch.object(module, "PLACES", places), clock.running():
        spend(0.05)
        owner.outer()
    found = {stage: round(seconds, 1) for stage, seconds in clock.seconds.items()}
    assert found == {"outer": 0.1, "inner": 0.2, module.REST: pytest.approx(0.05, abs=0.06)}
    before = dict(clock.seconds)
    owner.outer()
    assert clock.seconds == before


def test_every_place_where_time_is_taken_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("stage_clock")
    named = [(owner, name) for places in module.PLACES.values() for owner, name in places]
    assert all(callable(getattr(owner, name)) for owner, name in named)


@pytest.mark.parametrize("upsampling", ["nearest", "none"])
def test_operations_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch, upsampling: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    flop = importlib.import_module("limits").convolution_flop
    architecture = Architecture.model_validate(
        {"widths": (2, 3, 5), "convs_per_level": 2, "upsampling": upsampling}
    )
    network, shape = GpUnet(architecture), (8, 12, 16)
    counted = 0.0

    def add(module: torch.nn.Module, _inputs: object, out: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(module, ConvUnit)
        counted += 2.0 * module.conv.weight.numel() * float(np.prod(out.shape[2:]))

    for unit in network.modules():
        if isinstance(unit, ConvUnit):
            unit.register_forward_hook(add)
    network.features(torch.zeros(1, 1, *shape))
    assert flop(architecture, shape) == counted
