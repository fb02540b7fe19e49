"""A small 3D U-Net (Ronneberger et al. 2015; Çiçek et al. 2016): the body of each network here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

Width = Annotated[int, Field(ge=1, le=512)]

#: Torch convolves a single float32 volume on a CPU without oneDNN, several times slower, where its first four sizes
#: multiply to no more than this (``use_mkldnn`` in ATen/native/Convolution.cpp; the same in all of torch 2).
SLOW_UP_TO: Final = 20_480


class ConvUnit(nn.Module):
    """A padded 3x3x3 convolution, batch norm where set, and a rectified linear unit."""

    def __init__(self, channels_in: int, channels_out: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.BatchNorm3d(channels_out) if batch_norm else None

    def forward(self, volumes: Tensor) -> Tensor:
        """Map (B, C_in, I, J, K) to (B, C_out, I, J, K)."""
        out = convolved(volumes, self.conv.weight, self.conv.bias)
        if self.norm is not None:
            out = self.norm(out)
        return F.relu(out, inplace=True)


def convolved(volumes: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Padded 3x3x3 convolution; one small volume goes through in two halves, which torch does several times as fast.

    Parameters
    ----------
    volumes : Tensor, shape (B, C, I, J, K)
    kernel : Tensor, shape (C_out, C, 3, 3, 3)
    bias : Tensor, shape (C_out,), or None

    Returns
    -------
    Tensor, shape (B, C_out, I, J, K)
        What ``conv3d`` gives with a padding of 1, but for rounding.
    """
    half = volumes.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    small = volumes.shape[0] == 1 and volumes.shape[:4].numel() <= SLOW_UP_TO
    if volumes.device.type != "cpu" or half or not small:
        return F.conv3d(volumes, kernel, bias, padding=1)
    size = volumes.shape[2]
    cut = (size + 1) // 2
    # Each half sees one voxel of the other; beyond the volume lie zeros, one more where the halves differ in size.
    padded = F.pad(volumes, (0, 0, 0, 0, 1, 1 + 2 * cut - size))
    halves = torch.cat((padded[:, :, : cut + 2], padded[:, :, cut:]))
    out = F.conv3d(halves, kernel, bias, padding=(0, 1, 1))
    return torch.cat((out[:1], out[1:, :, : size - cut]), dim=2)


def _block(channels_in: int, channels_out: int, convs: int, *, batch_norm: bool) -> nn.Sequential:
    sizes = [channels_in] + [channels_out] * convs
    return nn.Sequential(*(ConvUnit(sizes[n], sizes[n + 1], batch_norm=batch_norm) for n in range(convs)))


class Unet(nn.Module):
    """Convolutions down and up again, without a last layer.

    Parameters
    ----------
    widths : sequence of int
        Feature maps at each level, full resolution first; their number is the depth.
    convs_per_level : int
        3x3x3 convolutions in a row, at each level of each path.
    batch_norm : bool
        Whether convolutions carry batch norm (training only; see `fold_units`).
    way_up : bool
        Without it the features are those of the coarsest level.
    """

    def __init__(
        self, widths: Sequence[int], convs_per_level: int, *, batch_norm: bool, way_up: bool = True
    ) -> None:
        super().__init__()
        inputs = (1, *widths[:-1])
        self.down = nn.ModuleList(
            _block(a, b, convs_per_level, batch_norm=batch_norm) for a, b in zip(inputs, widths, strict=True)
        )
        steps_up = itertools.pairwise(widths) if way_up else ()
        self.up = nn.ModuleList(_block(a + b, a, convs_per_level, batch_norm=batch_norm) for a, b in steps_up)

    def features(self, volumes: Tensor) -> Tensor:
        """Feature maps at full resolution, or the coarsest where there is no way up: f_i of the paper's Eq. 2 and 3.

        Parameters
        ----------
        volumes : Tensor, shape (B, 1, I, J, K)
            Each of I, J, K a multiple of the stride.

        Returns
        -------
        Tensor, shape (B, C, I, J, K)
            Never negative: each convolution but the 1x1x1 last one is rectified (paper, Sec. 2.2).
        """
        skips: list[Tensor] = []
        out = volumes
        for level, block in enumerate(self.down):
            if level > 0:
                out = F.max_pool3d(out, 2)
            out = block(out)
            skips.append(out)
        for level in range(len(self.up) - 1, -1, -1):
            raised = F.interpolate(out, scale_factor=2, mode="nearest")
            out = self.up[level](torch.cat((skips[level], raised), dim=1))
        return out


@torch.no_grad()
def fold_units(network: nn.Module, folded: nn.Module) -> None:
    """Write each convolution of a network, with its batch norm's running statistics, into one of another network.

    Batch norm in evaluation is y = g (x - m) / sqrt(v + e) + h after each convolution, so kernels scale by
    g / sqrt(v + e) and biases become (b - m) g / sqrt(v + e) + h; exact up to rounding, padding included.

    Parameters
    ----------
    network : Module
        With or without batch norm.
    folded : Module
        The same without batch norm; its `ConvUnit` are filled.
    """
    sources = [unit for unit in network.modules() if isinstance(unit, ConvUnit)]
    targets = [unit for unit in folded.modules() if isinstance(unit, ConvUnit)]
    for source, target in zip(sources, targets, strict=True):
        kernel = source.conv.weight.double()
        bias = torch.zeros(kernel.shape[0], dtype=torch.float64, device=kernel.device)
        if source.conv.bias is not None:
            bias = source.conv.bias.double()
        norm = source.norm
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            kernel = kernel * scale.view(-1, 1, 1, 1, 1)
            bias = (bias - norm.running_mean.double()) * scale + norm.bias.double()
        target.conv.weight.copy_(kernel)
        if target.conv.bias is not None:
            target.conv.bias.copy_(bias)
