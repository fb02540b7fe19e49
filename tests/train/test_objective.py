"""Losses are least at the truth and fall towards it; optimizers keep their groups' rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.train.objective import LossName, loss_named, negative_binomial, poisson
from epvs_cohort.train.optimizers import (
    OptimizerName,
    clip_gradients,
    optimizer_named,
    parameter_groups,
    set_rate,
)

COUNTS = torch.tensor([0.0, 1.0, 5.0, 20.0], dtype=torch.float64)


@pytest.mark.parametrize("name", ["mse", "poisson", "negative_binomial"])
def test_the_truth_has_the_smallest_loss(name: LossName) -> None:
    loss = loss_named(name, 0.3)
    for truth in COUNTS:
        estimates = torch.linspace(0.0, 40.0, 4001, dtype=torch.float64)
        found = loss(estimates, truth.expand_as(estimates))
        # Estimates under a logarithm are raised by a thousandth.
        assert float(estimates[int(found.argmin())]) == pytest.approx(float(truth), abs=0.011)


def test_likelihoods_are_those_of_the_distributions() -> None:
    truth, one, other, dispersion = 7.0, 4.0, 9.0, 0.4

    def gap(loss: torch.Tensor) -> float:
        return float(loss[0] - loss[1])

    means, truths = (
        torch.tensor([one, other], dtype=torch.float64),
        torch.full((2,), truth, dtype=torch.float64),
    )
    by_hand = [float(stats.poisson.logpmf(truth, mean)) for mean in (one, other)]
    assert gap(poisson(means, truths)) == pytest.approx(by_hand[1] - by_hand[0], abs=2e-3)
    size = 1.0 / dispersion
    by_hand = [float(stats.nbinom.logpmf(truth, size, size / (size + mean))) for mean in (one, other)]
    found = gap(negative_binomial(means, truths, dispersion))
    assert found == pytest.approx(by_hand[1] - by_hand[0], abs=2e-3)


@pytest.mark.parametrize("name", ["mse", "poisson", "negative_binomial"])
def test_an_estimate_of_zero_has_a_gradient(name: LossName) -> None:
    estimate = torch.zeros(1, requires_grad=True)
    loss_named(name, 0.5)(estimate, torch.tensor([3.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert estimate.grad is not None
    assert float(estimate.grad) < -1.0
    assert np.isfinite(float(estimate.grad))


@pytest.mark.parametrize("name", ["adadelta", "adamw"])
def test_optimizers_descend_and_the_last_layer_more_slowly(name: OptimizerName) -> None:
    torch.manual_seed(0)
    network = GpUnet(Architecture(widths=(2,), convs_per_level=1), batch_norm=True)
    optimizer = optimizer_named(name, parameter_groups(network, 0.01, 0.25))
    set_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.025]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    volumes, mask = torch.rand(2, 1, 8, 8, 8), torch.ones(2, 1, 8, 8, 8, dtype=torch.bool)
    losses = []
    for _ in range(30):
        loss = ((network(volumes, mask) / 512 - 1.0) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_gradients_are_scaled_down_and_never_up() -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], None) == pytest.approx(5.0)
    assert weight.grad.tolist() == [3.0, 4.0]
    assert clip_gradients([weight], 10.0) == pytest.approx(5.0)
    assert weight.grad.tolist() == [3.0, 4.0]
    clip_gradients([weight], 1.0)
    assert weight.grad.norm() == pytest.approx(1.0, abs=1e-4)
