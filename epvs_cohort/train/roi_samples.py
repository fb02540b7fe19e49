"""Simulated heads for the segmenting network: each from its own number, by several processes, in order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epvs_cohort.data.head_grid import HeadGrid
from epvs_cohort.errors import ConfigError
from epvs_cohort.simulate.anatomy import anatomy_files, stem
from epvs_cohort.simulate.whole_heads import HeadSample, WholeHeadSettings, draw_head_sample, load_source
from epvs_cohort.simulate.workers import in_order

#: Second number of each seed, so that no two purposes share a random stream.
TRAINING, NORM, VALIDATION = 1, 2, 3

#: Samples drawn ahead of the step they are for, for each process.
AHEAD = 3

#: Voxels along each axis.
Window = tuple[int, int, int]

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class HeadOrder:
    """One head to draw.

    Attributes
    ----------
    person : Path
        Label map.
    seed : tuple of int
        Its random stream.
    grid : HeadGrid
    settings : WholeHeadSettings
    window : tuple of int, optional
        Shape of what is kept of it.
    """

    person: Path
    seed: tuple[int, ...]
    grid: HeadGrid
    settings: WholeHeadSettings
    window: Window | None = None


@dataclass(frozen=True)
class Heads:
    """A stream of heads: number n is the same whenever and wherever it is drawn.

    Attributes
    ----------
    people : tuple of Path
    seed : tuple of int
        Of the stream; that of head n is ``(*seed, n)``.
    grid : HeadGrid
    settings : WholeHeadSettings
    window : tuple of int, optional
        Shape of what is kept of each head, somewhere in it.
    """

    people: tuple[Path, ...]
    seed: tuple[int, ...]
    grid: HeadGrid
    settings: WholeHeadSettings
    window: Window | None = None

    def order(self, number: int) -> HeadOrder:
        """Head ``number`` of the stream, people by turns."""
        person = self.people[number % len(self.people)]
        return HeadOrder(person, (*self.seed, number), self.grid, self.settings, self.window)


@dataclass(frozen=True)
class Batch:
    """Heads of a step.

    Attributes
    ----------
    intensities : Tensor, shape (B, 1, I, J, K), float32
    classes : Tensor, shape (B, I, J, K), uint8
    """

    intensities: Tensor
    classes: Tensor


def draw_ordered(order: HeadOrder) -> HeadSample:
    """Draw one head, and where a window is asked for keep a part of it, each place as likely as any other."""
    rng = np.random.default_rng(order.seed)
    head = draw_head_sample(rng, load_source(order.person), order.grid, order.settings)
    if order.window is None:
        return head
    first = [
        int(rng.integers(0, whole - n + 1)) for whole, n in zip(order.grid.shape, order.window, strict=True)
    ]
    kept = tuple(slice(low, low + n) for low, n in zip(first, order.window, strict=True))
    return HeadSample(head.intensities[kept].copy(), head.classes[kept].copy())


def draw_heads(heads: Heads, numbers: Sequence[int], n_procs: int) -> list[HeadSample]:
    """Some heads of a stream, in the order of their numbers."""
    return list(in_order(draw_ordered, [heads.order(n) for n in numbers], min(n_procs, len(numbers))))


def batches(heads: Heads, size: int, first: int, n_procs: int) -> Iterator[Batch]:
    """Batches of a stream without end, from batch ``first`` on; batch b holds the heads b * size and on."""
    orders = (heads.order(number) for number in itertools.count(first * size))
    drawn = in_order(draw_ordered, orders, n_procs, ahead=AHEAD * n_procs)
    while True:
        yield batch_of(list(itertools.islice(drawn, size)))


def batch_of(samples: Sequence[HeadSample]) -> Batch:
    """Samples of one grid together."""
    intensities = np.stack([sample.intensities for sample in samples])[:, None]
    return Batch(
        torch.from_numpy(intensities), torch.from_numpy(np.stack([sample.classes for sample in samples]))
    )


def choose_people(folder: Path, words: str) -> tuple[Path, ...]:
    """Label maps of a folder that ``words`` name.

    Parameters
    ----------
    folder : Path
    words : str
        Parted by commas: names of files without their ending, or numbers and ranges in order of name from 1 on, as in
        ``1-9,12``.

    Raises
    ------
    ConfigError
        The folder holds no label maps, or one that is asked for is not there.
    """
    files = anatomy_files(folder)
    by_name = {stem(path): path for path in files}
    chosen: dict[Path, None] = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        if word in by_name:
            chosen[by_name[word]] = None
            continue
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= len(files):
            raise ConfigError(
                f"{folder}: people {word!r} found; names of its {len(files)} label maps, numbers from 1 to "
                f"{len(files)} and ranges of them are legal"
            )
        chosen.update(dict.fromkeys(files[first - 1 : last]))
    if not chosen:
        raise ConfigError(f"{folder}: people {words!r} name nobody")
    return tuple(chosen)
