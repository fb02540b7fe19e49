"""A small prepared store with known volumes, for the tests of the data that is learned from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.geometry import Grid
from epvs_cohort.protocol import GridSettings, Protocol
from epvs_cohort.records import AcSlice, MniMap, PreparedVolume
from epvs_cohort.train.samples import Sample

SHAPE = (24, 16, 20)
SPACING_MM = (0.49, 0.49, 0.8)
PROVENANCE = Provenance("f" * 16, "p" * 16, "/scan.nii", "{}", "0" * 64, {}, 1.0)
#: Native slices are twice as thick as the grid's: slice 5 holds the grid's rows 10 and 11.
AC = AcSlice(2, 5)


def protocol(target: str = "roi") -> Protocol:
    """Protocol of the small grid."""
    return Protocol.model_validate({"count_target": target, "grid": GridSettings(shape=SHAPE)})


def volume(key: str, *, ac: AcSlice | None = AC, seed: int = 0) -> PreparedVolume:
    """Two boxes of tissue, one on each side; zero outside."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:10, 5:11, 6:16] = 1
    labels[14:20, 5:11, 6:16] = 255
    rng = np.random.default_rng(seed)
    native_from_grid = np.diag([*SPACING_MM, 1.0])
    native = np.diag([0.49, 0.49, 1.6, 1.0])
    # Grid row k lies at native slice k / 2 - 0.25, so that 10 and 11 round to slice 5.
    native[2, 3] = 0.4
    return PreparedVolume(
        key=key,
        intensities=(rng.random(SHAPE) * (labels > 0)).astype(np.float32),
        labels=labels,
        regions={1: "left putamen"},
        native_from_grid=native_from_grid,
        rigid_from_native=np.eye(4),
        mni=MniMap(np.eye(4), np.zeros((2, 2, 2, 3)), SHAPE),
        native=Grid((24, 16, 10), native),
        ac=ac,
        quality=(),
    )


def save(root: Path, *volumes: PreparedVolume, provenance: Provenance = PROVENANCE) -> tuple[Sample, ...]:
    """Store volumes, and give each a count that is its number from 0."""
    store = PreparedStore(root)
    samples: list[Sample] = []
    for n, each in enumerate(volumes):
        folder = store.save(each, replace(provenance, input_path=f"/{each.key}.nii"))
        samples.append(Sample(each.key, each.key.split("_")[0], folder, float(n), 1))
    return tuple(samples)
