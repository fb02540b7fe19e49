"""Randomly transformed samples (paper, Sec. 3, which does not say which transformations): on the tensors' device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from epvs_cohort.protocol import Positive, Settings

Share = Annotated[float, Field(ge=0, le=1)]

#: Random numbers drawn for each sample, whatever becomes of them, so that one setting leaves the others' draws alone.
_DRAWS = 12


class AugmentSettings(Settings):
    """How far a sample may be transformed; each is drawn anew for each sample and step.

    Our choice, kept small: a vessel of one voxel must still be one. The paper only says that samples are randomly
    transformed.
    """

    #: Chance that left and right are exchanged.
    mirror: Share = 0.5
    #: Chance that a sample is turned, scaled and shifted by parts of a voxel, which costs one trilinear interpolation
    #: and with it some contrast of the smallest lesions; the others are shifted by whole voxels, which costs nothing.
    interpolate: Share = 0.5
    #: Largest turn about each of the three axes, and largest change of size, where a sample is interpolated.
    turn_deg: Annotated[float, Field(ge=0, le=45)] = 5.0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    #: Largest shift along each axis.
    shift_voxels: Annotated[int, Field(ge=0, le=64)] = 4
    #: Intensities become x ** g with log g evenly within plus or minus this; 0 and 1 stay.
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.1
    #: Intensities are multiplied by 1 plus or minus at most this.
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.05
    #: Standard deviation of Gaussian noise, drawn evenly from 0 to this.
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    #: Edges of a voxel, so that turns are turns in mm; a protocol's grid overrules them.
    voxel_mm: tuple[Positive, Positive, Positive] = (0.49, 0.49, 0.8)


@dataclass(frozen=True)
class _Extent:
    """First and last voxel of a mask along each axis of its tensor of shape (I, J, K)."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    shape: tuple[int, int, int]

    def mirrored(self) -> _Extent:
        """Extent after left and right were exchanged."""
        end = self.shape[0] - 1
        first = (end - self.last[0], *self.first[1:])
        return _Extent(first, (end - self.first[0], *self.last[1:]), self.shape)


def augment(
    intensities: Tensor, mask: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Transform each sample of a batch by chance, its mask along with it.

    Lesions are to stay in view, for the count stays the same: a shift goes no farther than the mask stays inside
    the tensor.

    Parameters
    ----------
    intensities : Tensor, shape (B, 1, I, J, K), float32
        In [0, 1], 0 outside the head's part that is shown.
    mask : Tensor, shape (B, 1, I, J, K), bool
        Where features are pooled.
    settings : AugmentSettings
    generator : torch.Generator
        On the CPU or on the tensors' device; the same state gives the same tensors on the CPU.

    Returns
    -------
    tuple of Tensor
        New intensities in [0, 1], still 0 where nothing is shown, and the new mask; shapes and types as given.
    """
    batch = intensities.shape[0]
    draws = torch.rand(batch, _DRAWS, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    moved = [
        _moved((intensities[n : n + 1], mask[n : n + 1]), extent, settings, draws[n].tolist())
        for n, extent in enumerate(_extents(mask))
    ]
    toned = torch.cat([image for image, _ in moved])
    noise = torch.Generator(intensities.device).manual_seed(seed)
    for n in range(batch):
        _tone(toned[n], settings, draws[n].tolist(), noise)
    return toned, torch.cat([within for _, within in moved])


def _extents(mask: Tensor) -> list[_Extent]:
    seen = mask[:, 0]
    sides: list[Tensor] = []
    for axis, others in ((1, (2, 3)), (2, (1, 3)), (3, (1, 2))):
        along = seen.any(dim=others).to(torch.uint8)
        last = seen.shape[axis] - 1 - along.flip(1).argmax(dim=1)
        sides.append(torch.stack((along.argmax(dim=1), last), dim=1))
    i, j, k = seen.shape[1:]
    # One hop from the device for the whole batch.
    rows = torch.stack(sides, dim=1).cpu().tolist()
    return [_Extent((a[0], b[0], c[0]), (a[1], b[1], c[1]), (int(i), int(j), int(k))) for a, b, c in rows]


def _moved(
    pair: tuple[Tensor, Tensor], extent: _Extent, settings: AugmentSettings, draws: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """One sample (1, 1, I, J, K) and its mask, mirrored and moved."""
    image, within = pair
    if draws[0] < settings.mirror:
        image, within, extent = image.flip(2), within.flip(2), extent.mirrored()
    if draws[1] < settings.interpolate:
        theta = _theta(extent, settings, draws).to(image.device, torch.float32)
        grid = F.affine_grid(theta[None], [1, 1, *extent.shape], align_corners=False)
        image = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        nearest = F.grid_sample(
            within.to(image.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
        )
        return image, nearest > 0.5
    by = _whole_shift(extent, settings.shift_voxels, draws[2:5])
    return _shifted(image, by), _shifted(within, by)


def _whole_shift(extent: _Extent, most: int, draws: Sequence[float]) -> tuple[int, int, int]:
    steps = [min(math.floor(draw * (2 * most + 1)), 2 * most) - most for draw in draws]
    sides = zip(steps, extent.first, extent.last, extent.shape, strict=True)
    i, j, k = (max(-first, min(n - 1 - last, step)) for step, first, last, n in sides)
    return i, j, k


def _shifted(volume: Tensor, by: tuple[int, int, int]) -> Tensor:
    """Values of (1, 1, I, J, K) moved by whole voxels towards higher indices; zero moves in."""
    if by == (0, 0, 0):
        return volume
    out = torch.zeros_like(volume)
    target, source = out[0, 0], volume[0, 0]
    for axis, step in enumerate(by):
        length = volume.shape[2 + axis] - abs(step)
        target = target.narrow(axis, max(step, 0), length)
        source = source.narrow(axis, max(-step, 0), length)
    target.copy_(source)
    return out


def _theta(extent: _Extent, settings: AugmentSettings, draws: Sequence[float]) -> Tensor:
    """(3, 4) map that `affine_grid` wants: from output to input, in halves of the tensor, axes from k to i.

    Forward, a voxel x goes to F (x - c) + c + t, where c is the middle of the tensor, and F turns in mm and scales.
    """
    forward = _turn_and_scale(settings, draws)
    shape = torch.tensor(extent.shape, dtype=torch.float64)
    middle = (shape - 1) / 2
    ends = [torch.tensor(side, dtype=torch.float64) for side in zip(extent.first, extent.last, strict=True)]
    corners = (torch.cartesian_prod(*ends) - middle) @ forward.T + middle
    shift = (torch.tensor(draws[2:5], dtype=torch.float64) * 2 - 1) * settings.shift_voxels
    low, high = -corners.amin(dim=0), shape - 1 - corners.amax(dim=0)
    # Where the mask does not fit, it stands out equally on both sides.
    shift = torch.where(low <= high, torch.clamp(shift, min=low, max=high), (low + high) / 2)
    backward = torch.linalg.inv(forward)
    half = shape / 2
    matrix = backward * half[None, :] / half[:, None]
    offset = -(backward @ shift) / half
    return torch.cat((matrix.flip((0, 1)), offset.flip(0)[:, None]), dim=1)


def _turn_and_scale(settings: AugmentSettings, draws: Sequence[float]) -> Tensor:
    """(3, 3) map of offsets in voxels: V^-1 R V times the scale, V the edges of a voxel in mm."""
    turn = torch.eye(3, dtype=torch.float64)
    for axis, draw in enumerate(draws[5:8]):
        angle = math.radians(settings.turn_deg) * (2 * draw - 1)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        about = torch.eye(3, dtype=torch.float64)
        about[a, a] = about[b, b] = math.cos(angle)
        about[a, b], about[b, a] = -math.sin(angle), math.sin(angle)
        turn = about @ turn
    edges = torch.tensor(settings.voxel_mm, dtype=torch.float64)
    grown = 1.0 + settings.scale * (2 * draws[8] - 1)
    return turn * edges[None, :] / edges[:, None] * grown


def _tone(
    volume: Tensor, settings: AugmentSettings, draws: Sequence[float], generator: torch.Generator
) -> None:
    """Change intensities (1, I, J, K) in place; what is zero stays zero."""
    shown = volume > 0
    if settings.gamma > 0:
        volume.pow_(math.exp(settings.gamma * (2 * draws[9] - 1)))
    if settings.brightness > 0:
        volume.mul_(1 + settings.brightness * (2 * draws[10] - 1))
    if settings.noise > 0:
        drawn = torch.randn(volume.shape, generator=generator, device=volume.device, dtype=volume.dtype)
        volume.add_(drawn, alpha=settings.noise * draws[11])
    volume.clamp_(0.0, 1.0).mul_(shown)
