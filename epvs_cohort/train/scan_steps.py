"""What the steps of training on counted scans are made of: the order of the scans, and their tensors."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epvs_cohort.model.network import GpUnet
from epvs_cohort.train.near import counts_near
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.volumes import CountedVolume

#: First number of each seed, so that no two purposes share a random stream.
ORDER, AUGMENTATION, STATISTICS = 11, 12, 13

#: Steps that are read ahead.
AHEAD = 2

T = TypeVar("T")


class Volumes(Protocol):
    """Counted volumes by number, such as `train.volumes.StoredVolumes`."""

    def __len__(self) -> int:
        """How many there are."""

    def load(self, n: int) -> CountedVolume:
        """Volume ``n``."""


@dataclass(frozen=True)
class Step:
    """One step of an epoch.

    Attributes
    ----------
    epoch, number : int
        From 0.
    sets : tuple of tuple of int
        Volumes by number; the counts of a set are summed.
    """

    epoch: int
    number: int
    sets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Shown:
    """A volume as the network is shown it.

    Attributes
    ----------
    intensities : Tensor, shape (1, 1, I, J, K), float32
    mask : Tensor, shape (1, 1, I, J, K), bool
    """

    intensities: Tensor
    mask: Tensor


def steps_an_epoch(n: int, recipe: ScanRecipe) -> int:
    """Steps in which ``n`` volumes are seen once."""
    return math.ceil(math.ceil(n / recipe.set_size) / recipe.batch)


def steps_of(n: int, recipe: ScanRecipe, seed: int, epoch: int) -> list[Step]:
    """Steps of one epoch: a random order of ``n`` volumes, cut into sets and the sets into steps.

    Sets differ from epoch to epoch, which is what recombines the samples (Hydranet, Dubost et al. 2019).
    """
    order = [int(k) for k in np.random.default_rng((seed, ORDER, epoch)).permutation(n)]
    sets = [tuple(order[k : k + recipe.set_size]) for k in range(0, n, recipe.set_size)]
    cuts = range(0, len(sets), recipe.batch)
    return [Step(epoch, number, tuple(sets[k : k + recipe.batch])) for number, k in enumerate(cuts)]


def steps_from(n: int, recipe: ScanRecipe, seed: int, at: tuple[int, int]) -> Iterator[Step]:
    """All steps from (epoch, number) on, without an end."""
    epoch, number = at
    while True:
        yield from islice(steps_of(n, recipe, seed, epoch), number, None)
        epoch, number = epoch + 1, 0


def loaded_ahead(
    steps: Iterable[Step], volumes: Volumes, part: slice
) -> Generator[tuple[Step, list[list[CountedVolume]]]]:
    """Steps with the volumes of their sets ``part``, read by a thread while earlier steps are computed."""

    def read(step: Step) -> list[list[CountedVolume]]:
        return [[volumes.load(k) for k in each] for each in step.sets[part]]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="volumes") as pool:
        plan = iter(steps)
        waiting = [(step, pool.submit(read, step)) for step in islice(plan, AHEAD)]
        try:
            while waiting:
                step, future = waiting.pop(0)
                waiting += [(later, pool.submit(read, later)) for later in islice(plan, 1)]
                yield step, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def one_by_one(volumes: Volumes) -> Iterator[CountedVolume]:
    """Each volume, read ahead."""
    plan = (Step(0, n, ((n,),)) for n in range(len(volumes)))
    for _, loaded in loaded_ahead(plan, volumes, slice(None)):
        yield loaded[0][0]


def cut(volumes: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Pieces of at most ``most``.

    >>> list(cut("abcde", 2))
    ['ab', 'cd', 'e']
    """
    return (volumes[k : k + most] for k in range(0, len(volumes), most))


def chunks(sets: Sequence[Sequence[CountedVolume]], most: int) -> Iterator[list[Sequence[CountedVolume]]]:
    """Sets whose gradients are computed together: as many as have ``most`` volumes, one at least."""
    chunk: list[Sequence[CountedVolume]] = []
    for each in sets:
        if chunk and sum(map(len, chunk)) + len(each) > most:
            yield chunk
            chunk = []
        chunk.append(each)
    if chunk:
        yield chunk


def shown(volume: CountedVolume, device: torch.device) -> Shown:
    """Tensors of a volume on a device."""
    intensities = torch.from_numpy(volume.intensities)[None, None].to(device)
    return Shown(intensities, torch.from_numpy(volume.mask)[None, None].to(device))


def together(volumes: Sequence[Shown]) -> Shown:
    """One batch of (B, 1, I, J, K), the smaller volumes filled up with background at their upper ends."""
    size = [max(each.mask.shape[axis] for each in volumes) for axis in (2, 3, 4)]

    def filled(tensor: Tensor) -> Tensor:
        missing = [most - n for most, n in zip(size, tensor.shape[2:], strict=True)]
        return F.pad(tensor, (0, missing[2], 0, missing[1], 0, missing[0]))

    return Shown(
        torch.cat([filled(each.intensities) for each in volumes]),
        torch.cat([filled(each.mask) for each in volumes]),
    )


def estimates(network: GpUnet, volumes: Sequence[Shown], *, half: bool) -> Tensor:
    """Counts of volumes that go through the network together, shape (B,), float32."""
    batch = together(volumes) if len(volumes) > 1 else volumes[0]
    intensities = batch.intensities.contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(intensities.device.type, dtype=torch.bfloat16, enabled=half):
        counts = counts_near(network, intensities, batch.mask)
    return counts.float()
