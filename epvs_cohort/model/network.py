"""GP-UNet of the paper: a small 3D U-Net, global pooling, one linear layer (Sec. 2.2, Eq. 1 to 3)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from epvs_cohort.model.unet import Unet, Width, fold_units
from epvs_cohort.protocol import Settings

Pooling = Literal["sum", "mean", "max"]

#: Spatial axes of a (B, C, I, J, K) tensor.
SPACE = (2, 3, 4)


class Architecture(Settings):
    """Settings of the network; the paper leaves depth and numbers of feature maps open (Sec. 2.2)."""

    #: Feature maps at each level, full resolution first; their number is the depth.
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=5)] = (8, 16, 32)
    #: 3x3x3 convolutions in a row, at each level of each path.
    convs_per_level: Annotated[int, Field(ge=1, le=4)] = 2
    #: Resampling on the way up; the paper says 2x2x2 upsampling layers.
    upsampling: Literal["nearest"] = "nearest"
    #: The paper writes global pooling in general and max as its example.
    pooling: Pooling = "sum"
    #: ``crop`` is the paper's literal reading; over the zero background features are not zero. ``ac_slice`` is the mask
    #: within the native slice of the anterior commissure, where the count is of that slice.
    pool_within: Literal["mask", "crop", "ac_slice"] = "mask"
    #: ``free`` is the paper's Eq. 2; ``density`` is the same with weights |w| and no bias.
    last_layer: Literal["density", "free"] = "density"

    @property
    def stride(self) -> int:
        """Voxels of the input per voxel of the coarsest level, along each axis."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def receptive_radius(self) -> int:
        """Voxels beyond which the input cannot change a feature, along each axis.

        One convolution reaches one voxel; going down and up again doubles a reach and adds one, because a
        voxel's 2x2x2 cell may extend to either side of it.

        >>> Architecture(widths=(8, 16, 32), convs_per_level=2).receptive_radius
        23
        """
        radius = self.convs_per_level
        for _ in range(len(self.widths) - 1):
            radius = 2 * radius + 1 + 2 * self.convs_per_level
        return radius


class GpUnet(Unet):
    """The counting network.

    Parameters
    ----------
    architecture : Architecture
        Depth, widths, pooling and last layer.
    batch_norm : bool
        Whether convolutions carry batch norm (training only; see `fold_batch_norm`).
    """

    def __init__(self, architecture: Architecture, *, batch_norm: bool = False) -> None:
        super().__init__(architecture.widths, architecture.convs_per_level, batch_norm=batch_norm)
        self.architecture = architecture
        widths = architecture.widths
        self.last_weight = nn.Parameter(torch.full((widths[0],), 1.0 / widths[0]))
        free = architecture.last_layer == "free"
        self.last_bias = nn.Parameter(torch.zeros(1)) if free else None

    @property
    def weights(self) -> Tensor:
        """w of Eq. 2 and 3, shape (C,), float32: |w| where the last layer is a density."""
        weight = self.last_weight.float()
        return weight.abs() if self.architecture.last_layer == "density" else weight

    def heatmap(self, features: Tensor) -> Tensor:
        """Eq. 3, M = sum of w_i f_i: (B, C, I, J, K) to (B, I, J, K), float32."""
        return torch.einsum("bcijk,c->bijk", features.float(), self.weights)

    def count(self, pooled: Tensor) -> Tensor:
        """Eq. 2, w . G(f) + b: pooled features (B, C) to counts (B,), in the precision of ``pooled``."""
        counts = pooled @ self.weights.to(pooled.dtype)
        return counts if self.last_bias is None else counts + self.last_bias.to(pooled.dtype)

    def forward(self, volumes: Tensor, mask: Tensor) -> Tensor:
        """Counts of a batch.

        Parameters
        ----------
        volumes : Tensor, shape (B, 1, I, J, K)
            Prepared intensities.
        mask : Tensor, shape (B, 1, I, J, K), bool
            Where features are pooled: the mask, or its part within the slice where ``pool_within`` is ``ac_slice``;
            ignored where it is ``crop``.

        Returns
        -------
        Tensor, shape (B,), float32
        """
        features = self.features(volumes)
        within = torch.ones_like(mask) if self.architecture.pool_within == "crop" else mask
        return self.count(pool_maps(features, within, self.architecture.pooling))


def pool_maps(features: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """G(f): global pooling of (B, C, I, J, K) over the voxels of a (B, 1, I, J, K) mask, float32 (B, C)."""
    if pooling == "max":
        # Features are never negative, so zero stands for "not in the mask" without changing a maximum.
        return torch.where(mask, features, torch.zeros_like(features)).amax(dim=SPACE).float()
    total = (features * mask).sum(dim=SPACE, dtype=torch.float32)
    if pooling == "sum":
        return total
    return total / mask.sum(dim=SPACE, dtype=torch.float32).clamp(min=1.0)


def pool_rows(rows: Tensor, pooling: Pooling) -> Tensor:
    """G(f) of one volume from the (N, C) features at its pooled voxels: float64 (C,), N > 0."""
    if pooling == "max":
        return rows.amax(dim=0).double()
    total = rows.sum(dim=0, dtype=torch.float64)
    return total if pooling == "sum" else total / rows.shape[0]


@torch.no_grad()
def fold_batch_norm(network: GpUnet) -> GpUnet:
    """Write each batch norm's running statistics into its convolution.

    Returns
    -------
    GpUnet
        A new network without batch norm, on the CPU, in float32, that computes the same.
    """
    folded = GpUnet(network.architecture)
    fold_units(network, folded)
    folded.last_weight.copy_(network.weights)
    if folded.last_bias is not None and network.last_bias is not None:
        folded.last_bias.copy_(network.last_bias)
    return folded.eval()
