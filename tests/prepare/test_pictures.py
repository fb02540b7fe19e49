"""Pictures of preparation: outlines lie where the phantom is, and the whole stays small."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.pictures import GREEN, SKY, VERMILION, YELLOW, decode
from epvs_cohort.geometry import Grid, apply_affine, centered_grid
from epvs_cohort.prepare.pictures import (
    HALF_WIDTH_MM,
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

PANEL = 2 * (2 * HALF_WIDTH_MM + 1)


@pytest.fixture(scope="module")
def image() -> Image:
    return scan(Look(spacing=(1.5, 1.5, 2.0)))


def _grid() -> Grid:
    settings = GridSettings()
    return centered_grid(settings.shape, settings.spacing_mm, outline().center_mm)


def _pixels(picture: object, colour: tuple[int, int, int], panel: int) -> np.ndarray:
    """Rows and columns of a colour within one of the three panels."""
    part = np.asarray(picture)[:, panel * (PANEL + 2) : panel * (PANEL + 2) + PANEL]
    return np.argwhere(np.all(part == np.array(colour), axis=-1))


def test_outline_surrounds_both_putamina_on_the_axial_plane(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    blue = _pixels(roi_picture(planes, seen, _grid()), SKY, 2)
    middle = PANEL / 2
    blue = blue[blue[:, 0] < PANEL - 90]
    # Radiological: the person's right (x > 0) is on the picture's left, 2 pixels for each mm.
    on_left, on_right = blue[blue[:, 1] < middle], blue[blue[:, 1] > middle]
    assert np.ptp(on_left[:, 1]) == pytest.approx(44, abs=5)
    assert (on_left[:, 1].min() + on_left[:, 1].max()) / 2 == pytest.approx(middle - 2 * RIGHT[0], abs=3)
    assert (on_right[:, 1].min() + on_right[:, 1].max()) / 2 == pytest.approx(middle - 2 * LEFT[0], abs=3)


def test_box_is_as_wide_as_the_prepared_grid(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    red = _pixels(roi_picture(planes, seen, _grid()), VERMILION, 2)
    red = red[red[:, 0] < PANEL - 90]
    assert np.ptp(red[:, 1]) / 2 == pytest.approx(168 * 0.49, abs=2.0)
    assert np.ptp(red[:, 0]) / 2 == pytest.approx(128 * 0.49, abs=2.0)


def test_template_edges_hold_brain_white_matter_and_ventricle(image: Image) -> None:
    seen = outline()
    planes = cut_planes(image, inverse(RIGID_FROM_NATIVE @ image.affine), seen.center_mm)
    picture = registration_picture(planes, seen)
    blue = _pixels(picture, SKY, 1)
    blue = blue[blue[:, 0] < PANEL - 60]
    assert blue[:, 0].mean() == pytest.approx(PANEL / 2 - 2 * VENTRICLE[2], abs=4)
    for colour in (GREEN, YELLOW):
        assert len(_pixels(picture, colour, 2)) > 100


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
    assert {"roi.webp", "registration.webp", "slice_042.webp"} <= set(pictures)
    assert sum(len(content) for content in pictures.values()) < 150_000


def test_window_of_an_empty_scan_is_legal() -> None:
    assert grey_window(np.zeros(10, dtype=np.float32)) == (0.0, 1.0)
