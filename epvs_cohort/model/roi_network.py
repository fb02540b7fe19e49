"""The network that tells the parts of a whole head apart, on a coarse grid and in any contrast."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from epvs_cohort.head_classes import CLASS_NAMES
from epvs_cohort.model.unet import Unet, Width, fold_units
from epvs_cohort.protocol import Settings


class RoiArchitecture(Settings):
    """Settings of the network.

    Four levels of two convolutions reach 51 voxels (102 mm at 2 mm) to each side: from a putamen the whole head is
    seen, and so which side is left.
    """

    #: Feature maps at each level, full resolution first; their number is the depth.
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)] = (8, 16, 32, 64)
    #: 3x3x3 convolutions in a row, at each level of each path.
    convs_per_level: Annotated[int, Field(ge=1, le=4)] = 2

    @property
    def stride(self) -> int:
        """Voxels of the input per voxel of the coarsest level, along each axis."""
        return int(2 ** (len(self.widths) - 1))


class RoiUnet(Unet):
    """Scores of each class at each voxel of a head.

    Parameters
    ----------
    architecture : RoiArchitecture
        Depth and widths.
    batch_norm : bool
        Whether convolutions carry batch norm (training only; see `fold_roi_network`).
    """

    def __init__(self, architecture: RoiArchitecture, *, batch_norm: bool = False) -> None:
        super().__init__(architecture.widths, architecture.convs_per_level, batch_norm=batch_norm)
        self.architecture = architecture
        self.head = nn.Conv3d(architecture.widths[0], len(CLASS_NAMES), 1)

    def forward(self, volumes: Tensor) -> Tensor:
        """Scores before the softmax: (B, 1, I, J, K) normalised intensities to (B, 17, I, J, K).

        Each of I, J, K is a multiple of ``architecture.stride``.
        """
        scores: Tensor = self.head(self.features(volumes))
        return scores


@torch.no_grad()
def fold_roi_network(network: RoiUnet) -> RoiUnet:
    """Write each batch norm's running statistics into its convolution.

    Returns
    -------
    RoiUnet
        A new network without batch norm, on the CPU, in float32, that computes the same.
    """
    folded = RoiUnet(network.architecture)
    fold_units(network, folded)
    folded.head.load_state_dict(network.head.state_dict())
    return folded.eval()
