"""What training makes small: losses of estimated against true counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["mse", "poisson", "negative_binomial"]

#: Losses of (N,) estimates against (N,) true counts, each for itself.
Loss = Callable[[Tensor, Tensor], Tensor]

#: Added to estimates under a logarithm.
SMALLEST_MEAN = 1e-3


def squared_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """(ŷ - y)² (paper, Sec. 2.2).

    >>> squared_error(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])).tolist()
    [4.0, 0.0]
    """
    return (estimate - truth) ** 2


def poisson(estimate: Tensor, truth: Tensor) -> Tensor:
    """Negative logarithm of the Poisson likelihood of y at the mean ŷ, without what y alone decides: ŷ - y ln ŷ.

    It is least where ŷ = y, and forgives more where counts are high, for they vary more.

    >>> y = torch.tensor([4.0])
    >>> bool(poisson(y, y) < poisson(y + 1, y)) and bool(poisson(y, y) < poisson(y - 1, y))
    True
    """
    return F.poisson_nll_loss(estimate, truth, log_input=False, eps=SMALLEST_MEAN, reduction="none")


def negative_binomial(estimate: Tensor, truth: Tensor, dispersion: float) -> Tensor:
    """The same for a negative binomial of mean ŷ and variance ŷ + a ŷ² (NB2; Cameron and Trivedi 1998, Sec. 3.3).

    (y + 1/a) ln(1 + a ŷ) - y ln ŷ, again without what y alone decides. Without dispersion it is the Poisson loss:

    >>> y, m = torch.tensor([4.0], dtype=torch.float64), torch.tensor([6.0], dtype=torch.float64)
    >>> bool(abs(negative_binomial(m, y, 1e-7) - poisson(m, y)) < 1e-5)
    True
    """
    spread = torch.log1p(dispersion * estimate) * (truth + 1.0 / dispersion)
    return spread - truth * torch.log(estimate + SMALLEST_MEAN)


def loss_named(name: LossName, dispersion: float) -> Loss:
    """Loss by its name; ``dispersion`` is that of the negative binomial.

    >>> loss_named("negative_binomial", 0.5)(torch.tensor([2.0]), torch.tensor([0.0])).item()
    1.3862943649291992
    """
    if name == "negative_binomial":
        return lambda estimate, truth: negative_binomial(estimate, truth, dispersion)
    return {"mse": squared_error, "poisson": poisson}[name]
