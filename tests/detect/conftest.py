"""Small prepared volumes with known frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epvs_cohort.geometry import FloatArray, Grid, rigid_about
from epvs_cohort.records import AcSlice, MniMap, PreparedVolume

SHAPE = (24, 20, 16)
REGIONS = {1: "left caudate", 2: "right putamen"}
SPACING_MM = (0.5, 0.5, 0.8)


@pytest.fixture
def labels() -> np.ndarray:
    """Left half caudate, right half putamen, a strip between in no region, a rim outside the mask."""
    out = np.zeros(SHAPE, dtype=np.uint8)
    out[1:10, 1:-1, 1:-1] = 1
    out[10:14, 1:-1, 1:-1] = 255
    out[14:-1, 1:-1, 1:-1] = 2
    return out


@pytest.fixture
def native_from_grid() -> FloatArray:
    """A turn about all three axes and a shift; grid voxel (18, 6, 13) lands at (10, 9, -8.6) mm."""
    rigid = rigid_about([3.0, -2.0, 4.4], np.radians([10.0, -20.0, 30.0]), [7.0, 11.0, -13.0])
    grid = np.diag([*SPACING_MM, 1.0])
    grid[:3, 3] = [-6.0, -5.0, -6.0]
    return rigid @ grid


@pytest.fixture
def make_volume(labels: np.ndarray, native_from_grid: FloatArray) -> Callable[..., PreparedVolume]:
    """Build a volume; anything may be replaced by keyword."""

    def build(**changes: object) -> PreparedVolume:
        mni_from_grid = np.diag([*SPACING_MM, 1.0])
        mni_from_grid[:3, 3] = [-0.5 * 11.5, 1.0, -2.0]
        native = np.diag([-0.7, 0.7, 1.1, 1.0])
        native[:3, 3] = [30.0, -20.0, -30.0]
        parts: dict[str, object] = {
            "key": "sub-01",
            "intensities": np.zeros(SHAPE, dtype=np.float32),
            "labels": labels,
            "regions": REGIONS,
            "native_from_grid": native_from_grid,
            "rigid_from_native": np.eye(4),
            "mni": MniMap(mni_from_grid, np.zeros((2, 2, 2, 3)), SHAPE),
            "native": Grid((70, 60, 40), native),
            "ac": None,
            "quality": (),
        }
        return PreparedVolume(**{**parts, **changes})  # type: ignore[arg-type]

    return build


@pytest.fixture
def make_aligned(make_volume: Callable[..., PreparedVolume]) -> Callable[..., PreparedVolume]:
    """Build a volume whose grid is the scan's, turned: native voxel (k, i, j) = grid (i, j, k)."""

    def build(ac: AcSlice | None = None, **changes: object) -> PreparedVolume:
        native_from_grid = np.diag([*SPACING_MM, 1.0])
        native_from_grid[:3, 3] = [-3.0, 4.0, 5.0]
        turn = np.zeros((4, 4))
        turn[[0, 1, 2, 3], [1, 2, 0, 3]] = 1.0
        native = Grid((SHAPE[2], SHAPE[0], SHAPE[1]), native_from_grid @ turn)
        return make_volume(**{"native_from_grid": native_from_grid, "native": native, "ac": ac, **changes})

    return build
