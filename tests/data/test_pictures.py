"""Painting: orientation, outlines, heat, and pictures of lesions that lie where the lesions are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageFont

from epvs_cohort.data.pictures import (
    GREEN,
    ac_grid_slice,
    ac_grid_voxel,
    decode,
    drawable,
    encode,
    grey_panel,
    heat_colours,
    lesion_pictures,
    outline,
    paint,
    side_by_side,
    upright,
    window,
)
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, Grid, apply_affine, centered_grid, rigid_about
from epvs_cohort.records import AcSlice, Detection, Lesion, MniMap, PreparedVolume

SHAPE = (40, 32, 24)
GRID = centered_grid(SHAPE, (0.49, 0.49, 0.8), (0.0, 3.0, -4.0))


def _lesion(number: int, voxel: tuple[float, float, float]) -> Lesion:
    place = (0.0, 0.0, 0.0)
    return Lesion(number, voxel, place, place, place, None, "left", 1.0, 1.0, 1.0, False, None)


@pytest.fixture
def volume() -> PreparedVolume:
    """A grid turned against the scan, with the MNI map that bends by 2 mm."""
    rigid = rigid_about((0, 0, 0), (0.05, 0.02, -0.04), (1.0, 2.0, 3.0))
    native = Grid((60, 60, 50), np.array([[-1, 0, 0, 30], [0, 1, 0, -30], [0, 0, 1, -28], [0, 0, 0, 1.0]]))
    offsets = np.zeros((3, 3, 3, 3))
    offsets[1, 1, 1] = (0.5, -0.8, 2.0)
    return PreparedVolume(
        key="s",
        intensities=np.full(SHAPE, 0.3, dtype=np.float32),
        labels=np.ones(SHAPE, dtype=np.uint8),
        regions={1: "left caudate"},
        native_from_grid=np.linalg.inv(rigid) @ GRID.affine,
        rigid_from_native=rigid,
        mni=MniMap(GRID.affine, offsets, SHAPE),
        native=native,
        ac=AcSlice(2, 20),
        quality=(),
    )


def _detection(*lesions: Lesion) -> Detection:
    labels = np.zeros(SHAPE, dtype=np.uint16)
    for lesion in lesions:
        i, j, k = (round(v) for v in lesion.grid_voxel)
        labels[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = lesion.number
    return Detection(0.5, "exact", len(lesions), lesions, labels)


def test_upright_puts_front_on_top_and_right_on_the_left() -> None:
    plane = np.zeros((5, 7))
    plane[4, 6] = 1.0  # right and front, RAS
    assert upright(plane)[0, 0] == 1.0
    assert upright(plane).shape == (7, 5)


def test_outline_of_a_square_is_its_ring() -> None:
    region = np.zeros((7, 7), dtype=bool)
    region[1:6, 1:6] = True
    ring = outline(region)
    assert ring.sum() == 16
    assert not ring[3, 3]


def test_paint_draws_thin_lines_at_panel_scale() -> None:
    panel = grey_panel(np.zeros((10, 10), dtype=np.uint8), (30, 30))
    region = np.zeros((10, 10), dtype=bool)
    region[3:6, 3:6] = True
    paint(panel, region, GREEN)
    painted = np.all(np.asarray(panel) == GREEN, axis=-1)
    assert painted.sum() == 4 * 9 - 4
    assert np.argwhere(painted).min() == 9


def test_window_clips() -> None:
    assert window(np.array([-5.0, 50.0, 500.0]), 0.0, 100.0).tolist() == [0, 127, 255]


def test_heat_grows_lighter() -> None:
    lightness = heat_colours(np.linspace(0.0, 1.0, 20)) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(lightness) > 0)


def test_pictures_survive_encoding() -> None:
    panel = grey_panel(np.full((8, 12), 128, dtype=np.uint8), (36, 24))
    back = decode(encode(side_by_side([panel, panel], down=True)))
    assert back.size == (36, 50)


def test_ac_voxel_solves_the_bent_map(volume: PreparedVolume) -> None:
    np.testing.assert_allclose(
        volume.mni(np.array(ac_grid_voxel(volume.mni))), MNI_ANTERIOR_COMMISSURE_MM, atol=1e-6
    )


def test_ac_grid_slice_lies_on_the_native_slice(volume: PreparedVolume) -> None:
    native_from_grid = np.linalg.inv(volume.native.affine) @ volume.native_from_grid
    for index in (18, 20, 22):
        k = ac_grid_slice(replace(volume, ac=AcSlice(2, index)))
        assert k is not None
        at = apply_affine(native_from_grid, (*ac_grid_voxel(volume.mni)[:2], k))
        assert at[2] == pytest.approx(index, abs=0.45)


def test_ac_grid_slice_is_unknown_without_an_ac(volume: PreparedVolume) -> None:
    assert ac_grid_slice(replace(volume, ac=None)) is None
    assert ac_grid_slice(replace(volume, ac=AcSlice(2, 49))) is None


def test_lesions_are_outlined_where_they_are(volume: PreparedVolume) -> None:
    k = ac_grid_slice(volume)
    assert k is not None
    detection = _detection(_lesion(1, (10.0, 24.0, float(k))))
    heat = (detection.component_labels > 0).astype(np.float32)
    pictures = lesion_pictures(volume, heat, detection)
    page = np.asarray(decode(pictures["lesions_most.webp"])).astype(int)
    # Three pixels a voxel; the painted panel is the right one, after a gap of 2 pixels; i runs to the left.
    x, y = 120 + 2 + round(3 * (40 - 10.5)), round(3 * (32 - 24.5))
    green = (page[..., 1] > page[..., 0] + 30) & (page[..., 1] > 90)
    ys, xs = np.nonzero(green[: 3 * 32, 122:])
    assert len(xs) > 0
    assert np.median(xs) + 122 == pytest.approx(x, abs=14)
    assert np.median(ys) == pytest.approx(y, abs=14)
    assert not green[:, :120].any()


def test_ac_picture_needs_an_ac_slice(volume: PreparedVolume) -> None:
    detection = _detection(_lesion(1, (10.0, 24.0, 3.0)))
    heat = np.zeros(SHAPE, dtype=np.float32)
    assert set(lesion_pictures(volume, heat, detection)) == {"lesions_ac.webp", "lesions_most.webp"}
    assert set(lesion_pictures(replace(volume, ac=None), heat, detection)) == {"lesions_most.webp"}


def test_stored_slice_is_the_background(volume: PreparedVolume) -> None:
    k = ac_grid_slice(volume)
    bright = encode(grey_panel(np.full((32, 40), 250, dtype=np.uint8), (40, 32)))
    stored = replace(volume, pictures={f"slice_{k:03d}.webp": bright})
    heat = np.zeros(SHAPE, dtype=np.float32)
    page = np.asarray(decode(lesion_pictures(stored, heat, _detection())["lesions_ac.webp"]))
    assert np.median(page[24 + 98 : 24 + 98 + 96, :120]) > 240
    assert np.median(page[26:120, :120]) < 100


def test_no_lesion_still_gives_a_picture(volume: PreparedVolume) -> None:
    detection = Detection(None, "none", 0, (), np.zeros(SHAPE, dtype=np.uint16))
    pictures = lesion_pictures(volume, np.zeros(SHAPE, dtype=np.float32), detection)
    assert decode(pictures["lesions_most.webp"]).size == (242, 96)


def test_words_in_pictures_have_no_empty_boxes() -> None:
    """Pillow's own font lacks accents, dashes and raised figures: it draws a box for each."""
    font = ImageFont.load_default(14)
    box = bytes(font.getmask("\uffff"))
    text = drawable("AC −0.8 mm, 2–3 × 4 ≥ 5 per cm² and mm³ … Zoë François")
    assert [sign for sign in text if bytes(font.getmask(sign)) == box] == []
    assert text == "AC -0.8 mm, 2-3 x 4 >= 5 per cm2 and mm3 ... Zoe Francois"
