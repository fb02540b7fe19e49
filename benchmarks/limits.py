"""What the machine can do at best, measured here and now, and what one scan asks of it: the physical limits.

Rates are taken on one core in the same process as the stages, so that both suffer alike from what else runs.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.network import Architecture
from epvs_cohort.model.predict import needed_box
from epvs_cohort.model.roi_bundle import RoiPair
from epvs_cohort.model.roi_network import RoiArchitecture
from epvs_cohort.prepare.resample import SUB_BOX_MARGIN, inverse
from epvs_cohort.records import PreparedVolume

REPEATS = 3
_COPIED_BYTES = 1 << 27
_MATRIX = 1024
#: Reckoned, not measured: a sample of Mattes' metric (Mattes et al. 2003) reads 8 voxels for value and gradient
#: (about 60 operations), spreads over 4 bins (30), moves a point and adds to 7 to 12 derivatives (60).
FLOP_PER_SAMPLE = 150.0
#: elastix's iterations times samples (`register._FAST`, `_FINE`, `warp._AFFINE`, `_SPLINE`); where networks look first,
#: only `_FINE` is left.
FINE_SAMPLES = 100 * 10_000
RIGID_SAMPLES = 2 * 250 * 2000 + FINE_SAMPLES
OUTLINE_SAMPLES = 2 * 250 * 2000 + 2 * 200 * 2000
#: A B-spline of order 3 in three dimensions reads 64 coefficients a voxel; all but one in 64 lie in a cache already.
TAPS = CACHED_TAPS = 64
#: Operations of the recursive filter (forth and back) a voxel and axis, and of the twelve weights of a point.
FILTER_FLOP, WEIGHT_FLOP = 5.0, 60.0


@dataclass(frozen=True)
class Machine:
    """Best rates of one core.

    Attributes
    ----------
    copy_bytes_per_s : float
        Bytes read plus bytes written by a plain copy of an array larger than the caches.
    flop_per_s : float
        Of a float32 matrix product.
    """

    copy_bytes_per_s: float
    flop_per_s: float


@dataclass(frozen=True)
class Limit:
    """Least seconds that a stage could take, and by what."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Prepared:
    """One scan's prepared volume, and what was written for it."""

    volume: PreparedVolume
    bytes_written: int


def fastest_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Processor seconds of the fastest of several calls."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return max(min(seconds), 1e-6)


def measure_machine() -> Machine:
    """Take the rates; torch must be set to one thread."""
    source = np.ones(_COPIED_BYTES // 4, dtype=np.float32)
    target = np.zeros_like(source)
    a = torch.ones(_MATRIX, _MATRIX)
    return Machine(
        copy_bytes_per_s=2.0 * source.nbytes / fastest_s(lambda: np.copyto(target, source)),
        flop_per_s=2.0 * _MATRIX**3 / fastest_s(lambda: a @ a),
    )


def inflate_seconds(path: Path) -> dict[str, float]:
    """Seconds that each inflater at hand takes for a gzip file that lies in memory; empty for other files."""
    blob = path.read_bytes()
    if blob[:2] != b"\x1f\x8b":
        return {}
    return {name: fastest_s(lambda inflate=inflate: inflate(blob)) for name, inflate in _inflaters().items()}


def _inflaters() -> dict[str, Callable[[bytes], bytes]]:
    found: dict[str, Callable[[bytes], bytes]] = {"zlib": lambda blob: zlib.decompress(blob, 31)}
    try:
        from isal import isal_zlib

        found["ISA-L"] = lambda blob: isal_zlib.decompress(blob, 31)
    except ImportError:
        pass
    try:
        from zlib_ng import zlib_ng

        found["zlib-ng"] = lambda blob: zlib_ng.decompress(blob, 31)
    except ImportError:
        pass
    return found


def convolution_flop(architecture: Architecture | RoiArchitecture, shape: tuple[int, int, int]) -> float:
    """Operations of the 3x3x3 convolutions over a box, multiply and add counted apart.

    >>> convolution_flop(Architecture(widths=(2,), convs_per_level=1), (1, 1, 1))
    108.0
    """
    voxels, widths, convs = float(np.prod(shape)), architecture.widths, architecture.convs_per_level
    total = 0.0
    for level, width in enumerate(widths):
        inputs = 1 if level == 0 else widths[level - 1]
        pairs = inputs * width + (convs - 1) * width * width
        up = isinstance(architecture, RoiArchitecture) or architecture.upsampling != "none"
        if up and level + 1 < len(widths):
            pairs += (width + widths[level + 1]) * width + (convs - 1) * width * width
        total += 2.0 * 27.0 * pairs * voxels / 8.0**level
    return total


def limits_of(
    path: Path,
    prepared: Prepared,
    architecture: Architecture,
    machine: Machine,
    looks: RoiPair | None = None,
) -> dict[str, Limit]:
    """Physical limits of the stages of one scan, by the names of `stage_clock.PLACES`; ``looks`` outlined it."""
    volume, bandwidth, flop = prepared.volume, machine.copy_bytes_per_s, machine.flop_per_s
    box = needed_box(volume.labels, architecture)
    sides = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    mask = float(volume.mask.sum())
    moved, counted = _resampling(prepared)
    return {
        "hash of the input": Limit(hash_seconds(path), "SHA-256 of bytes in memory"),
        "read and gunzip": _reading(path, machine),
        **_finding(looks, flop),
        "resample, mask, trim": _larger(moved / bandwidth, counted / flop),
        "inference": Limit(convolution_flop(architecture, sides) / flop, "arithmetic"),
        "detection": Limit(27 * 4 * mask / bandwidth, "memory: a voxel and its 26 neighbours"),
        "writing": Limit(2.0 * prepared.bytes_written / bandwidth, "memory"),
    }


def _finding(looks: RoiPair | None, flop_per_s: float) -> dict[str, Limit]:
    """Pose and outline: samples of elastix's metric, and what networks multiply."""
    if looks is None:
        asked = {"rigid registration": RIGID_SAMPLES, "outline": OUTLINE_SAMPLES}
        flop = {name: samples * FLOP_PER_SAMPLE for name, samples in asked.items()}
    else:
        head, near = (
            convolution_flop(each.card.architecture, each.card.grid.shape)
            for each in (looks.head, looks.near)
        )
        # The close look is taken of the head and of its mirror image.
        flop = {"rigid registration": FINE_SAMPLES * FLOP_PER_SAMPLE, "looks by networks": head + 2.0 * near}
    return {name: Limit(each / flop_per_s, "arithmetic") for name, each in flop.items()}


def hash_seconds(path: Path) -> float:
    """Seconds of the hash of a file that lies in memory."""
    blob = path.read_bytes()
    return fastest_s(lambda: hashlib.sha256(blob).digest())


def _reading(path: Path, machine: Machine) -> Limit:
    inflated = inflate_seconds(path)
    if not inflated:
        return Limit(2.0 * path.stat().st_size / machine.copy_bytes_per_s, "memory")
    best = min(inflated, key=lambda name: inflated[name])
    return Limit(inflated[best], f"inflating by {best}")


def _resampling(prepared: Prepared) -> tuple[float, float]:
    """Bytes moved and operations: the sub-box filtered along three axes, and 64 taps at each wanted voxel."""
    volume = prepared.volume
    wanted = np.argwhere(volume.intensities > 0)
    voxels = apply_affine(inverse(volume.native.affine) @ volume.native_from_grid, wanted)
    low = np.maximum(voxels.min(axis=0) - SUB_BOX_MARGIN, 0)
    high = np.minimum(voxels.max(axis=0) + SUB_BOX_MARGIN, volume.native.shape)
    box = float(np.prod(high - low))
    grid = float(volume.intensities.size)
    moved = box * (2 + 4) + 3 * box * (4 + 4) + len(wanted) * (TAPS * 4 / CACHED_TAPS + 4) + 3 * grid * 8
    return moved, 3 * box * FILTER_FLOP + len(wanted) * (2.0 * TAPS + WEIGHT_FLOP)


def _larger(memory_s: float, arithmetic_s: float) -> Limit:
    return Limit(memory_s, "memory") if memory_s > arithmetic_s else Limit(arithmetic_s, "arithmetic")
