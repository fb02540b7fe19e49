"""Layers over pictures: heat and marks lie where the lesions are, on slices and on planes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from epvs_cohort.data.picture_layers import LAYERS, PLANES, lesion_layers, planes_record
from epvs_cohort.data.pictures import GREEN, ac_grid_slice, decode
from epvs_cohort.geometry import Grid, apply_affine, centered_grid, rigid_about
from epvs_cohort.records import AcSlice, Detection, Lesion, MniMap, PreparedVolume

SHAPE = (40, 32, 24)
GRID = centered_grid(SHAPE, (0.5, 0.5, 0.8), (0.0, 3.0, -4.0))
RIGID = rigid_about((0, 0, 0), (0.05, 0.02, -0.04), (1.0, 2.0, 3.0))
#: Planes of 1 mm through the middle of the grid, 61 mm wide.
WIDE = 61


def _lesion(number: int, voxel: tuple[float, float, float]) -> Lesion:
    place = (0.0, 0.0, 0.0)
    return Lesion(number, voxel, place, place, place, None, "left", 1.0, 1.0, 1.0, False, None)


def _detection(*lesions: Lesion) -> Detection:
    labels = np.zeros(SHAPE, dtype=np.uint16)
    for lesion in lesions:
        i, j, k = (round(v) for v in lesion.grid_voxel)
        labels[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = lesion.number
    return Detection(0.5, "exact", len(lesions), lesions, labels)


@pytest.fixture
def volume() -> PreparedVolume:
    native = Grid((60, 60, 50), np.array([[-1, 0, 0, 30], [0, 1, 0, -30], [0, 0, 1, -28], [0, 0, 0, 1.0]]))
    affines, shapes = [], []
    for axis in range(3):
        shape = [WIDE] * 3
        shape[axis] = 1
        affine = np.eye(4)
        affine[:3, 3] = np.array([0.0, 3.0, -4.0]) - WIDE // 2
        affine[axis, 3] += WIDE // 2
        affines.append(affine)
        shapes.append(shape)
    size = (3 * 2 * WIDE + 4, 2 * WIDE)
    return PreparedVolume(
        key="s",
        intensities=np.full(SHAPE, 0.3, dtype=np.float32),
        labels=np.ones(SHAPE, dtype=np.uint8),
        regions={1: "left caudate"},
        native_from_grid=np.linalg.inv(RIGID) @ GRID.affine,
        rigid_from_native=RIGID,
        mni=MniMap(GRID.affine, np.zeros((2, 2, 2, 3)), SHAPE),
        native=native,
        ac=AcSlice(2, 20),
        quality=(),
        pictures={PLANES: planes_record(affines, shapes, size)},
    )


def _layers(volume: PreparedVolume, detection: Detection) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    found = lesion_layers(volume, (detection.component_labels > 0).astype(np.float32), detection)
    layers: dict[str, Any] = json.loads(found[LAYERS])
    return layers, found


def _middle(opaque: np.ndarray) -> np.ndarray:
    """Mean (x, y) of the pixels of a mask."""
    return np.asarray(np.argwhere(opaque).mean(axis=0)[::-1] + 0.5)


def test_heat_outline_and_mark_meet_at_the_lesion(volume: PreparedVolume) -> None:
    k = ac_grid_slice(volume)
    assert k is not None
    layers, found = _layers(volume, _detection(_lesion(7, (10.0, 24.0, float(k)))))
    view = next(each for each in layers["slices"] if each["slice"] == k)
    assert (view["title"], view["size"]) == ("AC", [40.0, 32.0])
    ((number, x, y),) = view["lesions"]
    # The person's right is on the left, the front on top.
    assert (number, x, y) == (7, 29.5, 7.5)
    heat = np.asarray(decode(found[view["heat"]]))
    assert heat.shape == (32, 40, 4)
    np.testing.assert_allclose(_middle(heat[..., 3] > 100), [x, y], atol=0.5)
    lines = np.asarray(decode(found[view["lines"]]))
    green = np.all(lines == (*GREEN, 255), axis=-1)
    np.testing.assert_allclose(_middle(green) / 3, [x, y], atol=0.5)
    assert lines[..., 3][0].max() == 0


def test_marks_on_planes_meet_the_heat_there(volume: PreparedVolume) -> None:
    """The lesion lies in all three planes: three marks, in the order of the planes, each on its heat."""
    centre = apply_affine(np.linalg.inv(GRID.affine), (0.4, 3.4, -3.5))
    at = tuple(round(float(value)) for value in centre)
    layers, found = _layers(volume, _detection(_lesion(2, (at[0], at[1], at[2]))))
    planes = layers["planes"]
    assert planes["size"] == [3 * 2 * WIDE + 4, 2 * WIDE]
    heat = np.asarray(decode(found[planes["heat"]]))
    assert heat.shape[:2] == (WIDE, (3 * 2 * WIDE + 4) // 2)
    assert [number for number, _, _ in planes["lesions"]] == [2, 2, 2]
    for panel, (_, x, y) in enumerate(planes["lesions"]):
        left = panel * (WIDE + 1)
        hot = heat[:, left : left + WIDE, 3] > 60
        np.testing.assert_allclose(_middle(hot) + np.array([left, 0]), [x / 2, y / 2], atol=1.0)


def test_lesion_far_from_a_plane_is_not_marked_on_it(volume: PreparedVolume) -> None:
    layers, _ = _layers(volume, _detection(_lesion(1, (3.0, 28.0, 21.0))))
    assert layers["planes"]["lesions"] == []


def test_slices_are_those_of_the_ac_and_the_fullest(volume: PreparedVolume) -> None:
    k = ac_grid_slice(volume)
    assert k is not None
    layers, found = _layers(volume, _detection(_lesion(1, (10.0, 24.0, 3.0)), _lesion(2, (20.0, 10.0, 3.0))))
    titles = {each["slice"]: each["title"] for each in layers["slices"]}
    assert titles == {k + 1: "AC +0.8 mm", k: "AC", k - 1: "AC −0.8 mm", 3: "most lesions"}
    assert {view["under"] for view in layers["slices"]} <= set(found)
    stored = replace(volume, pictures={f"slice_{k:03d}.webp": b""})
    view = next(each for each in _layers(stored, _detection())[0]["slices"] if each["slice"] == k)
    assert view["under"] == f"slice_{k:03d}.webp"


def test_scan_of_an_earlier_version_has_no_planes(volume: PreparedVolume) -> None:
    layers, found = _layers(replace(volume, pictures={}, ac=None), _detection())
    assert layers["planes"] is None
    assert [each["title"] for each in layers["slices"]] == ["most lesions"]
    assert sum(map(len, found.values())) < 5_000
