"""Pictures of preparation: outlines lie where the phantom is, and the whole stays small."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.picture_layers import PLAIN_REGISTRATION, PLAIN_ROI
from epvs_cohort.data.pictures import GREEN, SKY, VERMILION, YELLOW, decode
from epvs_cohort.geometry import Grid, apply_affine, centered_grid
from epvs_cohort.prepare.pictures import (
    HIGH_MM,
    LOW_MM,
    cut_planes,
    grey_window,
    prepare_pictures,
    registration_picture,
    roi_picture,
    slice_pictures,
)
from epvs_cohort.prepare.resample import inverse
from epvs_cohort.protocol import GridSettings
from epvs_cohort.records import Image
from tests.prepare.phantom import LEFT, RIGHT, RIGID_FROM_NATIVE, VENTRICLE, Look, outline, scan

#: Two pixels for each mm; panels across x, y and z stand side by side with a gap of 2 pixels.
WIDE, DEEP, HIGH = (int(v) for v in 2 * (HIGH_MM - LOW_MM + 1))
PANELS = {"sagittal": (0, DEEP), "coronal": (DEEP + 2, WIDE), "axial": (DEEP + WIDE + 4, WIDE)}
#: Pixel row or column of the centre of the region.
FRONT, TOP, SIDE = (int(2 * HIGH_MM[axis] + 1) for axis in (1, 2, 0))


@pytest.fixture(scope="module")
def image() -> Image:
    return scan(Look(spacing=(1.5, 1.5, 2.0)))


def _grid() -> Grid:
    settings = GridSettings()
    return centered_grid(settings.shape, settings.spacing_mm, outline().center_mm)


def _pixels(picture: object, colour: tuple[int, int, int], panel: str) -> np.ndarray:
    """Rows and columns of a colour within one of the three panels."""
    start, width = PANELS[panel]
    part = np.asarray(picture)[:, start : start + width]
    return np.argwhere(np.all(part == np.array(colour), axis=-1))


def test_outline_surrounds_both_putamina_on_the_axial_plane(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    blue = _pixels(roi_picture(planes, seen, _grid()), SKY, "axial")
    # Radiological: the person's right (x > 0) is on the picture's left.
    on_left, on_right = blue[blue[:, 1] < SIDE], blue[blue[:, 1] > SIDE]
    assert np.ptp(on_left[:, 1]) == pytest.approx(44, abs=5)
    assert (on_left[:, 1].min() + on_left[:, 1].max()) / 2 == pytest.approx(SIDE - 2 * RIGHT[0], abs=3)
    assert (on_right[:, 1].min() + on_right[:, 1].max()) / 2 == pytest.approx(SIDE - 2 * LEFT[0], abs=3)
    assert (on_left[:, 0].min() + on_left[:, 0].max()) / 2 == pytest.approx(FRONT, abs=3)


def test_lateral_plane_cuts_the_putamen(image: Image) -> None:
    seen, voxel_from_rigid = outline(), inverse(RIGID_FROM_NATIVE @ image.affine)
    middle = cut_planes(image, voxel_from_rigid, seen.center_mm)
    lateral = cut_planes(image, voxel_from_rigid, seen.center_mm, sagittal_offset_mm=-24.0)
    bottom = 2 * (HIGH_MM[2] - LOW_MM[2]) - 84
    found = [
        len([p for p in _pixels(roi_picture(planes, seen, _grid()), SKY, "sagittal") if p[0] < bottom])
        for planes in (middle, lateral)
    ]
    assert found[0] == 0
    assert found[1] > 50


def test_box_is_as_wide_as_the_prepared_grid(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    red = _pixels(roi_picture(planes, seen, _grid()), VERMILION, "axial")
    assert np.ptp(red[:, 1]) / 2 == pytest.approx(168 * 0.49, abs=2.0)
    assert np.ptp(red[:, 0]) / 2 == pytest.approx(128 * 0.49, abs=2.0)


def test_template_edges_hold_brain_white_matter_and_ventricle(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    picture = registration_picture(planes, seen)
    blue = _pixels(picture, SKY, "coronal")
    assert blue[:, 0].mean() == pytest.approx(TOP - 2 * VENTRICLE[2], abs=4)
    for colour in (GREEN, YELLOW):
        assert len(_pixels(picture, colour, "axial")) > 100


def test_slices_show_the_scan_at_grid_resolution(image: Image) -> None:
    grid = _grid()
    voxel_from_grid = inverse(RIGID_FROM_NATIVE @ image.affine) @ grid.affine
    slices = slice_pictures(image, voxel_from_grid, grid.shape, 49)
    assert sorted(slices) == [f"slice_{k:03d}.webp" for k in range(47, 52)]
    grey = np.asarray(decode(slices["slice_049.webp"]).convert("L"))
    assert grey.shape == (128, 168)
    i, j, _ = np.rint(apply_affine(inverse(grid.affine), VENTRICLE)).astype(int)
    assert grey[127 - j, 167 - i] > 200
    assert grey[5, 5] < 150


def test_slices_stop_at_the_border_of_the_grid(image: Image) -> None:
    grid = _grid()
    voxel_from_grid = inverse(RIGID_FROM_NATIVE @ image.affine) @ grid.affine
    assert sorted(slice_pictures(image, voxel_from_grid, grid.shape, 83)) == [
        "slice_081.webp", "slice_082.webp", "slice_083.webp",
    ]  # fmt: skip


def test_all_pictures_together_are_small(image: Image) -> None:
    voxel_from_rigid = inverse(RIGID_FROM_NATIVE @ image.affine)
    pictures = prepare_pictures(image, voxel_from_rigid, outline(), _grid(), None)
    assert {"roi.webp", "registration.webp", "slice_042.webp", PLAIN_ROI, PLAIN_REGISTRATION} <= set(pictures)
    with_lines, plain = (decode(pictures[name]) for name in ("roi.webp", PLAIN_ROI))
    assert with_lines.size == tuple(2 * side for side in plain.size)
    assert sum(len(content) for content in pictures.values()) < 150_000


def test_window_of_an_empty_scan_is_legal() -> None:
    assert grey_window(np.zeros(10, dtype=np.float32)) == (0.0, 1.0)
