"""Counted volumes, read from the prepared store as they are needed; none is held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epvs_cohort.data.ac_slab import ac_slab
from epvs_cohort.data.store import INTENSITY_STEP, PreparedStore, StoredFacts
from epvs_cohort.errors import ConfigError, StoreError
from epvs_cohort.model.network import Architecture
from epvs_cohort.model.predict import Box, needed_box
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Float32Array, LabelArray, PreparedVolume
from epvs_cohort.train.samples import Sample, named

BoolArray = npt.NDArray[np.bool_]

#: Stored affines are rigid maps times the spacing, so that edges come back within rounding.
_SPACING_TOLERANCE_MM = 2e-3

#: What stands in the provenance of a volume that was drawn on the prepared grid, in place of a file's state; its
#: ``prepare_id`` is the protocol's own.
SIMULATED = "simulated"


@dataclass(frozen=True)
class CountedVolume:
    """What the network is shown of one scan, and its count.

    Attributes
    ----------
    intensities : ndarray, shape (I, J, K), float32
        In [0, 1], cut to the box that acts on the pooled features.
    mask : ndarray, shape (I, J, K), bool
        Where features are pooled.
    count : float
    """

    key: str
    intensities: Float32Array
    mask: BoolArray
    count: float


@dataclass(frozen=True)
class Checked:
    """Samples that can be learned from, and why the others cannot."""

    usable: tuple[Sample, ...]
    unusable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Place:
    """What is kept of a volume between two readings.

    Attributes
    ----------
    pooled : ndarray or None
        Flat C-order indices within the box of the pooled voxels; None where they are those of the mask.
    """

    shape: tuple[int, int, int]
    box: Box
    pooled: npt.NDArray[np.int32] | None


class StoredVolumes:
    """Counted volumes by number.

    Parameters
    ----------
    samples : sequence of Sample
        Their folders lie in a prepared store.
    protocol : Protocol
        Its grid and ``count_target`` are what the volumes must fit.
    architecture : Architecture
        ``pool_within`` settles the mask, the receptive field the box.

    Raises
    ------
    ConfigError
        Features are to be pooled within the slice of the anterior commissure, and the counts are of the whole region.
    """

    def __init__(self, samples: Sequence[Sample], protocol: Protocol, architecture: Architecture) -> None:
        if architecture.pool_within == "ac_slice" and protocol.count_target != "ac_slice":
            raise ConfigError(
                f"protocol {protocol.name!r}: count_target {protocol.count_target!r}, and the network pools within "
                "the slice of the anterior commissure; with that only 'ac_slice' is legal"
            )
        self.samples = tuple(samples)
        self._protocol = protocol
        self._architecture = architecture
        self._places: dict[int, _Place] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[CountedVolume]:
        return (self.load(n) for n in range(len(self)))

    def load(self, n: int) -> CountedVolume:
        """Read one volume; its checksums are verified the first time.

        Raises
        ------
        StoreError
            It is missing, damaged, of another grid, or has nothing to pool over.
        """
        sample = self.samples[n]
        place = self._places.get(n)
        if place is None:
            place = self._places[n] = self._first(sample)
        stored, labels = PreparedStore(sample.folder.parent).mapped(sample.key, place.shape)
        intensities = np.empty(stored[place.box].shape, dtype=np.float32)
        np.multiply(stored[place.box], INTENSITY_STEP, out=intensities)
        if place.pooled is None:
            mask = np.ascontiguousarray(labels[place.box] > 0)
        else:
            mask = np.zeros(intensities.shape, dtype=np.bool_)
            mask.reshape(-1)[place.pooled] = True
        return CountedVolume(sample.key, intensities, mask, sample.count)

    def _first(self, sample: Sample) -> _Place:
        volume = PreparedStore(sample.folder.parent).load(sample.key).volume
        reason = grid_fault(volume.intensities.shape, None, self._protocol) or mask_fault(
            volume, self._protocol
        )
        if reason:
            raise StoreError(f"{sample.folder}: {reason}")
        within_slice = self._architecture.pool_within == "ac_slice"
        slab = ac_slab(volume) if within_slice else None
        pooled: LabelArray = volume.labels if slab is None else np.where(slab, volume.labels, np.uint8(0))
        box = needed_box(pooled, self._architecture)
        kept = None if slab is None else np.flatnonzero(pooled[box].ravel(order="C")).astype(np.int32)
        i, j, k = volume.labels.shape
        return _Place((i, j, k), box, kept)


def check_samples(samples: Sequence[Sample], protocol: Protocol, *, threads: int = 1) -> Checked:
    """Read every volume once, before the work starts, and set aside those that cannot be used.

    Parameters
    ----------
    samples : sequence of Sample
    protocol : Protocol
    threads : int
        Volumes read at the same time.

    Raises
    ------
    ConfigError
        A volume is of another grid than the protocol's, or the volumes were prepared under different settings.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        results = list(pool.map(lambda sample: _look(sample, protocol), samples))
    facts = [
        (sample, found) for sample, found in zip(samples, results, strict=True) if not isinstance(found, str)
    ]
    _check_alike([each for _, each in facts], protocol)
    unusable = [
        (sample.key, found) for sample, found in zip(samples, results, strict=True) if isinstance(found, str)
    ]
    return Checked(tuple(sample for sample, _ in facts), tuple(unusable))


def _look(sample: Sample, protocol: Protocol) -> StoredFacts | str:
    """Facts of a volume that can be used, or why it cannot."""
    store = PreparedStore(sample.folder.parent)
    try:
        facts = store.facts(sample.key)
        if grid_fault(facts.shape, facts.spacing_mm, protocol):
            return facts
        return mask_fault(store.load(sample.key).volume, protocol) or facts
    except StoreError as error:
        return error.message


def mask_fault(volume: PreparedVolume, protocol: Protocol) -> str:
    """Why there is nothing to count in a volume; empty where there is."""
    if not volume.mask.any():
        return "its mask is empty"
    if protocol.count_target == "ac_slice":
        slab = ac_slab(volume)
        if slab is None:
            return "the anterior commissure lies outside the scan, so that it has no slice to count in"
        if not (slab & volume.mask).any():
            return "the slice of the anterior commissure does not meet its mask"
    return ""


def grid_fault(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float] | None, protocol: Protocol
) -> str:
    """How a volume's grid differs from the protocol's; empty where it does not."""
    grid = protocol.grid
    fits = shape == grid.shape and (
        spacing_mm is None or np.allclose(spacing_mm, grid.spacing_mm, rtol=0, atol=_SPACING_TOLERANCE_MM)
    )
    if fits:
        return ""
    found = f"{shape} voxels" + ("" if spacing_mm is None else f" of {spacing_mm} mm")
    return f"prepared on {found}; protocol {protocol.name!r} says {grid.shape} voxels of {grid.spacing_mm} mm"


def _check_alike(facts: Iterable[StoredFacts], protocol: Protocol) -> None:
    kinds: Counter[str] = Counter()
    example: dict[str, str] = {}
    for each in facts:
        fault = grid_fault(each.shape, each.spacing_mm, protocol)
        if fault:
            raise ConfigError(
                f"{each.key}: {fault}",
                hint="name the protocol that the scans were prepared with by --protocol",
            )
        made = each.provenance
        if made.input_state == SIMULATED and made.prepare_id != protocol.prepare_id:
            raise ConfigError(
                f"{each.key}: simulated under a protocol with other settings of the preparation than {protocol.name!r}",
                hint="name the protocol that the cohort was simulated with by --protocol",
            )
        kinds[made.prepare_id] += 1
        example.setdefault(made.prepare_id, each.key)
    if len(kinds) > 1:
        found = [f"{example[kind]} and {times - 1} more" for kind, times in kinds.most_common()]
        raise ConfigError(
            f"the volumes were prepared under {len(kinds)} different settings or versions: {named(found)}; one for all "
            "is legal",
            hint="prepare them again under one protocol",
        )
