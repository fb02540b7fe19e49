"""The network's features where they are pooled, at less cost than over a whole volume, and the same up to rounding.

Three things are left out, none of which changes a pooled feature:

* On the way up, a convolution acts on no pooled feature from farther away than the convolutions after it reach, so
  each level is computed in the mask's bounding box grown by that reach. The way down is computed over all that is
  given, for its features come back from far away.
* A 3x3x3 convolution of what was raised by 2x2x2 nearest neighbours is a transposed convolution of stride 2 with a
  4x4x4 kernel, whose weights are sums of the first one's: 8 products a voxel instead of 27, and no raised copy.
* Batch norm that keeps its statistics is a factor and a shift, which the convolution before it takes up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epvs_cohort.model.network import SPACE, GpUnet, pool_maps
from epvs_cohort.model.unet import ConvUnit, convolved

Region = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

#: Row n: what of a 3-kernel's weights the n-th weight of the 4-kernel is the sum of.
_RAISED = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class NearFeatures:
    """Features in a box.

    Attributes
    ----------
    features : Tensor, shape (B, C, i, j, k)
    region : tuple of (int, int)
        First voxel of the box and the one behind its last, along each axis of what was given.
    """

    features: Tensor
    region: Region

    def cut(self, volumes: Tensor) -> Tensor:
        """The same box of (B, C, I, J, K)."""
        return _cut(volumes, self.region)


def counts_near(network: GpUnet, volumes: Tensor, mask: Tensor) -> Tensor:
    """What ``network(volumes, mask)`` gives; see `GpUnet.forward`."""
    mask = network.pooled(mask)
    near = features_near(network, volumes, mask)
    pooled = pool_maps(near.features, near.cut(mask), network.architecture.pooling)
    return network.count(pooled)


def features_near(network: GpUnet, volumes: Tensor, mask: Tensor) -> NearFeatures:
    """Features of `GpUnet.features` in a box about the mask; those in the mask are right, others need not be.

    Parameters
    ----------
    network : GpUnet
    volumes : Tensor, shape (B, 1, I, J, K)
    mask : Tensor, shape (B, 1, I, J, K), bool
        On the grid of the features; see `GpUnet.pooled`.
    """
    wanted = mask_box(mask)
    skips: list[Tensor] = []
    out = volumes
    for level, block in enumerate(network.down):
        out = _through(block, out if level == 0 else F.max_pool3d(out, 2))
        skips.append(out)
    if not network.up:
        return NearFeatures(_cut(out, wanted), wanted)
    convs = network.architecture.convs_per_level
    boxes: list[Region] = []
    for level in range(len(network.up)):
        boxes.append(_grown(wanted, convs, skips[level]))
        wanted = _halved(boxes[-1])
    for level in range(len(network.up) - 1, -1, -1):
        coarse = _halved(boxes[level])
        at = boxes[level + 1] if level + 1 < len(boxes) else _whole(out)
        out = _raised(network, level, _cut(skips[level], boxes[level]), _cut(out, _within(coarse, at)))
    return NearFeatures(out, boxes[0])


def mask_box(mask: Tensor) -> Region:
    """Bounding box of the voxels that any sample of a (B, 1, I, J, K) mask has; the whole where there is none."""
    sides: list[tuple[int, int]] = []
    for axis in SPACE:
        others = [a for a in range(mask.ndim) if a != axis]
        at = torch.nonzero(mask.to(torch.uint8).amax(dim=others)).flatten().tolist()
        sides.append((at[0], at[-1] + 1) if at else (0, mask.shape[axis]))
    return (sides[0], sides[1], sides[2])


def _raised(network: GpUnet, level: int, skip: Tensor, coarse: Tensor) -> Tensor:
    first, *rest = _units(network.up[level])
    out = _after(first, _joined(first, skip, coarse))
    return _through(rest, out)


def _units(block: nn.Module) -> list[ConvUnit]:
    return [unit for unit in block.children() if isinstance(unit, ConvUnit)]


def _through(block: nn.Module | list[ConvUnit], out: Tensor) -> Tensor:
    for unit in block if isinstance(block, list) else _units(block):
        kernel, bias = _folded(unit)
        out = _after(unit, convolved(out, kernel, bias))
    return out


def _folded(unit: ConvUnit) -> tuple[Tensor, Tensor | None]:
    """Kernel and bias, with batch norm in them where it keeps its statistics; see `fold_batch_norm`."""
    kernel, bias, norm = unit.conv.weight, unit.conv.bias, unit.norm
    if norm is None or norm.training or norm.running_mean is None or norm.running_var is None:
        return kernel, bias
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    folded = kernel * scale.view(-1, 1, 1, 1, 1)
    return folded.contiguous(memory_format=torch.channels_last_3d), shift * scale + norm.bias


def _joined(unit: ConvUnit, skip: Tensor, coarse: Tensor) -> Tensor:
    """Convolution of the skipped features and of the raised ones, which come after them."""
    kernel, bias = _folded(unit)
    n = skip.shape[1]
    rows = _RAISED.to(kernel)
    raised = torch.einsum("oixyz,ax,by,cz->ioabc", kernel[:, n:], rows, rows, rows)
    raised = raised.contiguous(memory_format=torch.channels_last_3d)
    skipped = kernel[:, :n].contiguous(memory_format=torch.channels_last_3d)
    out = convolved(skip, skipped, bias)
    return out + F.conv_transpose3d(coarse, raised, stride=2, padding=1)


def _after(unit: ConvUnit, out: Tensor) -> Tensor:
    if unit.norm is not None and unit.norm.training:
        out = unit.norm(out)
    return F.relu(out, inplace=True)


def _cut(volumes: Tensor, region: Region) -> Tensor:
    (a, b), (c, d), (e, f) = region
    if region == _whole(volumes):
        return volumes
    return volumes[:, :, a:b, c:d, e:f].contiguous(memory_format=torch.channels_last_3d)


def _whole(volumes: Tensor) -> Region:
    i, j, k = volumes.shape[2:]
    return ((0, i), (0, j), (0, k))


def _grown(region: Region, by: int, volumes: Tensor) -> Region:
    """Grown, on even corners so that cells of the next level fall where they fell, and within the volume."""
    sides = [
        (max(0, low - by) // 2 * 2, min(size, -(-(high + by) // 2) * 2))
        for (low, high), size in zip(region, volumes.shape[2:], strict=True)
    ]
    return (sides[0], sides[1], sides[2])


def _halved(region: Region) -> Region:
    sides = [(low // 2, high // 2) for low, high in region]
    return (sides[0], sides[1], sides[2])


def _within(region: Region, other: Region) -> Region:
    """``region`` counted from the corner of ``other``."""
    sides = [(low - first, high - first) for (low, high), (first, _) in zip(region, other, strict=True)]
    return (sides[0], sides[1], sides[2])
