"""Tiny prepared volumes with bright blobs in them: their number is the count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.model.network import Architecture
from epvs_cohort.protocol import GridSettings, Protocol
from epvs_cohort.records import AcSlice, MniMap, PreparedVolume
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import Sample, Split

SHAPE = (24, 24, 16)
SPACING = (0.5, 0.5, 1.0)
TINY = Architecture(widths=(4, 6), convs_per_level=1)

#: Native RAS mm of a voxel: the spacing and a shift, so that the two frames are not the same.
NATIVE = np.array([[0.5, 0, 0, 10.0], [0, 0.5, 0, -20.0], [0, 0, 1.0, 5.0], [0, 0, 0, 1.0]])

#: Corners of blobs: a lattice within the mask.
_PLACES = [(i, j, k) for i in (4, 9, 14) for j in (4, 9, 14) for k in (4, 8)]


@dataclass(frozen=True)
class Blobs:
    """A volume with blobs, and their centres in voxels, shape (N, 3)."""

    volume: PreparedVolume
    centers: FloatArray


def protocol(**changes: object) -> Protocol:
    """A protocol of the small grid."""
    settings = {"name": "small", "grid": GridSettings(shape=SHAPE, spacing_mm=SPACING), **changes}
    return Protocol().model_copy(update=settings)


def recipe(**changes: object) -> ScanRecipe:
    """A quick recipe: AdamW, a small network, no transformations that cost time."""
    settings: dict[str, object] = {
        "supervision": "scans",
        "name": "quick",
        "architecture": TINY,
        "optimizer": "adamw",
        "learning_rate": 2e-2,
        "final_learning_rate": 1e-3,
        "schedule": "cosine",
        "gradient_norm": 1.0,
        "batch": 4,
        "epochs": 6,
        "validate_every": 10,
        "norm_volumes": 4,
        "augment": {"interpolate": 0.0, "shift_voxels": 1},
        **changes,
    }
    return ScanRecipe.model_validate(settings)


def blobs(key: str, count: int, seed: int, rods: int = 0) -> Blobs:
    """A box of tissue that leaves a border, ``count`` bright blobs within, and ``rods`` of the same size."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:21, 3:21, 3:13] = 255
    intensities = np.where(labels > 0, rng.normal(0.3, 0.03, SHAPE), 0.0)
    centers = []
    for n, at in enumerate(rng.choice(len(_PLACES), count + rods, replace=False)):
        i, j, k = _PLACES[int(at)]
        if n < count:
            intensities[i : i + 2, j : j + 2, k : k + 2] = 0.9
            centers.append((i + 0.5, j + 0.5, k + 0.5))
        else:
            intensities[i : i + 4, j : j + 2, k : k + 1] = 0.9
    volume = PreparedVolume(
        key=key,
        intensities=np.clip(intensities, 0.0, 1.0).astype(np.float32),
        labels=labels,
        regions={},
        native_from_grid=NATIVE,
        rigid_from_native=np.eye(4),
        mni=MniMap(NATIVE, np.zeros((2, 2, 2, 3)), SHAPE),
        native=Grid(SHAPE, NATIVE),
        ac=AcSlice(axis=2, index=8),
        quality=(),
    )
    return Blobs(volume, np.array(centers, dtype=np.float64).reshape(-1, 3))


def save(folder: Path, drawn: Sequence[Blobs], counts: Sequence[float] | None = None) -> tuple[Sample, ...]:
    """Put volumes into a store, and samples with the true or the given counts."""
    store = PreparedStore(folder)
    prepare_id = protocol().prepare_id
    samples = []
    for n, each in enumerate(drawn):
        key = each.volume.key
        at = store.save(each.volume, Provenance(f"print-{key}", prepare_id, "", "", "0" * 64, {}, 0.0))
        count = float(len(each.centers)) if counts is None else float(counts[n])
        samples.append(Sample(key, key, at, count, 1))
    return tuple(samples)


def cohort(folder: Path, n_training: int, n_validation: int, *, shuffled: bool = False) -> Split:
    """Counted scans with 0 to 9 blobs; ``shuffled`` gives each the count of another."""
    rng = np.random.default_rng(1)
    n = n_training + n_validation
    numbers = rng.integers(0, 10, n)
    drawn = [blobs(f"sub-{k:03d}", int(numbers[k]), 100 + k) for k in range(n)]
    samples = save(folder, drawn, rng.permutation(numbers).tolist() if shuffled else None)
    return Split(samples[:n_training], samples[n_training:])
