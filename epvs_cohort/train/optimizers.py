"""First weights, optimizers, and how their rate goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adadelta", "adamw"]
Schedule = Literal["constant", "linear", "cosine"]

#: The last layer learns at this share of the rate: it only sets the scale, and where it outran the features it
#: sank to zero, and with it their gradients, before they had learned anything.
LAST_LAYER_RATE = 0.1

#: Decay of the averages and the constant under the root, as in the paper that made Adadelta (Zeiler 2012).
ADADELTA_RHO, ADADELTA_EPS = 0.95, 1e-6


def he_weights(network: nn.Module) -> None:
    """Give each convolution He's Gaussian weights, which suit rectified units (He et al. 2015), and no bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def parameter_groups(
    network: nn.Module, weight_decay: float, last_layer_rate: float = LAST_LAYER_RATE
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer; ``rate_share`` is what `set_rate` multiplies the rate by.

    Decay pulls kernels towards zero; biases, norms and the density's weights it would only shrink.
    """
    named = list(network.named_parameters())
    last = [p for name, p in named if name.startswith("last_")]
    kernels = [p for _, p in named if p.ndim > 1]
    others = [p for name, p in named if p.ndim <= 1 and not name.startswith("last_")]
    return [
        {"params": kernels, "weight_decay": weight_decay, "rate_share": 1.0},
        {"params": others, "weight_decay": 0.0, "rate_share": 1.0},
        {"params": last, "weight_decay": 0.0, "rate_share": last_layer_rate},
    ]


def optimizer_named(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adadelta (Zeiler 2012; the paper's) or AdamW (Loshchilov and Hutter 2019)."""
    if name == "adadelta":
        return torch.optim.Adadelta(groups, rho=ADADELTA_RHO, eps=ADADELTA_EPS)
    return torch.optim.AdamW(groups)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each group to its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]


def rate_at(schedule: Schedule, done: float, first: float, last: float) -> float:
    """Rate after the share ``done`` of a run; ``cosine`` is half a period (Loshchilov and Hutter 2017).

    >>> [round(rate_at("linear", done, 1.0, 0.5), 3) for done in (0.0, 0.5, 1.0)]
    [1.0, 0.75, 0.5]
    >>> [round(rate_at("cosine", done, 1.0, 0.0), 3) for done in (0.0, 0.25, 0.5, 1.0)]
    [1.0, 0.854, 0.5, 0.0]
    """
    if schedule == "constant":
        return first
    past = done if schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * done)
    return first + past * (last - first)


def clip_gradients(parameters: Iterable[Tensor], largest: float | None) -> float:
    """Scale gradients whose norm is above ``largest`` down to it; return the norm they had."""
    limit = math.inf if largest is None else largest
    # A norm that is not finite is the caller's to refuse, whose message can say at which step.
    return float(torch.nn.utils.clip_grad_norm_(list(parameters), limit))
