"""GP-UNet of the paper: a small 3D U-Net, global pooling, one linear layer (Sec. 2.2, Eq. 1 to 3)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
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
    #: Resampling on the way up; the paper says 2x2x2 upsampling layers. ``none`` leaves the way up out, as in the
    #: network of its methods (b) and (d): features are pooled, and heat lies, on the coarsest level's cells.
    upsampling: Literal["nearest", "none"] = "nearest"
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
    def cell(self) -> int:
        """Voxels of the input per voxel of the features, along each axis: 1 where there is a way up."""
        return self.stride if self.upsampling == "none" else 1

    @property
    def receptive_radius(self) -> int:
        """Voxels beyond which the input cannot change a feature, along each axis.

        One convolution reaches one voxel; going down and up again doubles a reach and adds one, because a
        voxel's 2x2x2 cell may extend to either side of it. Without a way up it is counted from any voxel of a cell.

        >>> Architecture(widths=(8, 16, 32), convs_per_level=2).receptive_radius
        23
        >>> Architecture(widths=(8, 16, 32), convs_per_level=2, upsampling="none").receptive_radius
        17
        """
        radius, paths = self.convs_per_level, 1 if self.upsampling == "none" else 2
        for _ in range(len(self.widths) - 1):
            radius = 2 * radius + 1 + paths * self.convs_per_level
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
        way_up = architecture.upsampling != "none"
        super().__init__(
            architecture.widths, architecture.convs_per_level, batch_norm=batch_norm, way_up=way_up
        )
        self.architecture = architecture
        n_features = architecture.widths[0 if way_up else -1]
        self.last_weight = nn.Parameter(torch.full((n_features,), 1.0 / n_features))
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
        return self.count(pool_maps(features, self.pooled(mask), self.architecture.pooling))

    def pooled(self, mask: Tensor) -> Tensor:
        """Where features are pooled, on their own grid: a (B, 1, I, J, K) mask as `forward` takes it, or everywhere."""
        within = torch.ones_like(mask) if self.architecture.pool_within == "crop" else mask
        return cells_of(within, self.architecture.cell)


def cells_of(mask: Tensor, cell: int) -> Tensor:
    """Cells of a (B, 1, I, J, K) mask that hold any of its voxels, (B, 1, I / cell, J / cell, K / cell), bool.

    The paper does not say which cells its coarse features are pooled over. With any voxel no part of the mask is left
    out, and a slice of the commissure, thinner than a cell, still has its cells.
    """
    return mask if cell == 1 else F.max_pool3d(mask.float(), cell) > 0


def raised_heat(heat: Tensor, cells: Tensor, cell: int) -> Tensor:
    """Heat of cells brought up to voxels, trilinear between the middles of cells.

    The paper does not say how the class map comes up to the grid; Zhou et al. (2016, Sec. 2) "simply upsample" theirs.
    Cells without a voxel of the mask were never pooled, so their heat means nothing: weights are shared out among the
    other neighbours.

    Parameters
    ----------
    heat : Tensor, shape (i, j, k), float32
    cells : Tensor, shape (i, j, k), bool
        Whose heat counts.
    cell : int
        Voxels along each edge of a cell.

    Returns
    -------
    Tensor, shape (i * cell, j * cell, k * cell)
        Right at each voxel of a cell that counts; 0 where no such cell is near.
    """
    if cell == 1:
        return heat
    stacked = torch.stack([heat * cells, cells.to(heat.dtype)])[None]
    total, share = F.interpolate(stacked, scale_factor=cell, mode="trilinear", align_corners=False)[0]
    return torch.where(share > 0, total / share.clamp(min=1e-6), torch.zeros_like(total))


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
