"""Quality measures against a phantom of known volume, contrast, noise and field of view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.geometry import centered_grid
from epvs_cohort.prepare.evidence import Evidence, look_near, look_wide
from epvs_cohort.prepare.mask import soft_mask
from epvs_cohort.prepare.quality import measure, noise_sigma, otsu_threshold
from epvs_cohort.prepare.resample import field_of_view, inverse, resample_cubic
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import DEFAULT_BOUNDS, GridSettings, RoiSettings, TrimSettings
from epvs_cohort.records import Image
from tests.prepare.phantom import BALL_RADIUS, CENTER, RIGID_FROM_NATIVE, Look, outline, scan


def _evidence(image: Image, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Evidence:
    settings = GridSettings()
    grid = centered_grid(settings.shape, settings.spacing_mm, CENTER + np.array(shift))
    voxel_from_rigid = inverse(RIGID_FROM_NATIVE @ image.affine)
    seen = outline()
    roi = seen.labels_on(grid)
    inside = field_of_view(image.grid.shape, voxel_from_rigid @ grid.affine, grid.shape)
    mask = soft_mask(roi, grid.spacing_mm, RoiSettings(), inside)
    values = resample_cubic(image.data, voxel_from_rigid @ grid.affine, grid.shape, mask.weight > 0)
    return Evidence(
        image=image,
        voxel_from_rigid=voxel_from_rigid,
        grid=grid,
        near=look_near(image, voxel_from_rigid, seen),
        wide=look_wide(image, voxel_from_rigid, seen),
        roi=roi,
        mask=mask,
        values=values,
        trimmed=trim(values, mask, TrimSettings()),
    )


def _measures(evidence: Evidence) -> dict[str, float | None]:
    found = measure(evidence)
    assert len({item.measure for item in found}) == len(found)
    assert all(item.unit for item in found)
    return {item.measure: item.value for item in found}


@pytest.fixture(scope="module")
def good() -> dict[str, float | None]:
    return _measures(_evidence(scan()))


def test_volumes_are_those_of_the_balls(good: dict[str, float | None]) -> None:
    ball = 4.0 / 3.0 * np.pi * BALL_RADIUS**3
    assert good["roi_volume_left_mm3"] == pytest.approx(ball, rel=0.01)
    assert good["roi_volume_right_mm3"] == pytest.approx(ball, rel=0.01)


def test_nameless_part_of_a_mask_counts_to_its_side() -> None:
    evidence = _evidence(scan())
    nameless = replace(evidence, roi=np.where(evidence.roi > 0, 255, 0).astype(np.uint8))
    ball = 4.0 / 3.0 * np.pi * BALL_RADIUS**3
    found = _measures(nameless)
    assert found["roi_volume_left_mm3"] == pytest.approx(ball, rel=0.01)
    assert found["roi_volume_right_mm3"] == pytest.approx(ball, rel=0.01)


def test_lopsided_outline_is_flagged() -> None:
    evidence = _evidence(scan())
    roi = evidence.roi.copy()
    roi[:70][roi[:70] > 0] = 0
    lopsided = _measures(replace(evidence, roi=roi))["roi_asymmetry"]
    assert DEFAULT_BOUNDS["roi_asymmetry"].holds(lopsided) is False


def test_contrast_is_that_of_the_phantom(good: dict[str, float | None]) -> None:
    assert good["csf_wm_ratio"] == pytest.approx(2.4, abs=0.05)
    assert good["roi_wm_ratio"] == pytest.approx(1.1, abs=0.02)
    assert good["roi_snr"] == pytest.approx(110.0 / 3.0, rel=0.1)
    assert good["roi_cnr"] == pytest.approx(130.0 / 3.0, rel=0.1)
    clip = good["clip_wm_ratio"]
    assert clip is not None
    assert 1.1 < clip < 1.7


def test_nothing_of_a_whole_head_is_cut_off(good: dict[str, float | None]) -> None:
    assert all(value == 0.0 for name, value in good.items() if name.startswith("roi_cut_by"))
    assert good["skull_stripped"] == 0.0
    assert good["mask_ventricle_share"] == pytest.approx(0.0, abs=0.03)


def test_whole_head_passes_every_bound_it_can(good: dict[str, float | None]) -> None:
    # The balls stand in for four nuclei, and are smaller.
    small = {"roi_volume_left_mm3", "roi_volume_right_mm3"}
    outside = {name for name, bounds in DEFAULT_BOUNDS.items() if bounds.holds(good.get(name)) is False}
    assert outside <= small


def test_dark_fluid_is_flagged_as_another_sequence() -> None:
    found = _measures(_evidence(scan(Look(inverted=True))))
    ratio = found["csf_wm_ratio"]
    assert ratio is not None
    assert ratio < 1.0
    assert DEFAULT_BOUNDS["csf_wm_ratio"].holds(ratio) is False
    assert found["mask_bright_share"] is None
    assert found["sharpness"] is None


@pytest.mark.parametrize("thickness", [3.3, 4.0, 5.5, 7.0])
def test_thick_slices_are_flagged(thickness: float) -> None:
    found = _measures(_evidence(scan(Look(spacing=(1.5, 1.5, thickness)))))
    assert found["slice_thickness_mm"] == pytest.approx(thickness)
    assert DEFAULT_BOUNDS["slice_thickness_mm"].holds(found["slice_thickness_mm"]) is False


def test_stripped_skull_is_seen() -> None:
    found = _measures(_evidence(scan(Look(stripped=True))))
    assert found["skull_stripped"] == 1.0
    assert found["foreground_background_ratio"] is None


def test_field_of_view_that_ends_in_the_ganglia_names_the_side() -> None:
    # Native axes are turned by less than 12 degrees, so the low k face looks down.
    image = scan(Look(size_mm=(168.0, 168.0, 84.0), shift_mm=(0.0, 0.0, 42.0)))
    evidence = _evidence(image)
    found = _measures(evidence)
    cut = found["roi_cut_by_fov_inferior"]
    assert cut is not None
    assert 0.3 < cut < 0.7
    assert found["roi_cut_by_fov_superior"] == 0.0
    assert evidence.near.outside_share == pytest.approx(cut, abs=0.02)


def test_box_that_misses_a_part_names_the_side() -> None:
    found = _measures(_evidence(scan(), shift=(18.0, 0.0, 0.0)))
    cut = found["roi_cut_by_box_left"]
    assert cut is not None
    assert 0.1 < cut < 0.5
    assert found["roi_cut_by_box_right"] == 0.0


@pytest.mark.parametrize("sigma", [2.0, 11.0])
def test_noise_of_a_smooth_volume_is_found(sigma: float) -> None:
    rng = np.random.default_rng(1)
    ramp = np.linspace(100.0, 200.0, 40)[:, None, None] * np.ones((1, 41, 30))
    assert noise_sigma(ramp + rng.normal(0.0, sigma, ramp.shape)) == pytest.approx(sigma, rel=0.05)


def test_noise_is_unknown_without_enough_signal() -> None:
    assert noise_sigma(np.zeros((40, 40, 40))) is None
    assert noise_sigma(np.ones((4, 4, 4))) is None
    assert noise_sigma(np.full((40, 40, 40), 7, dtype=np.int16)) is None


def test_blur_lowers_sharpness() -> None:
    image = scan(Look(noise=0.5), blobs=((-22.0, 5.0, 0.0), (22.0, 8.0, 2.0)))
    blurred = Image(ndimage.gaussian_filter(image.data.astype(np.float32), 1.5), image.affine)
    fine, coarse = (_measures(_evidence(each))["sharpness"] for each in (image, blurred))
    assert fine is not None
    assert coarse is not None
    assert coarse < 0.8 * fine


def test_otsu_splits_two_heaps() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10.0, 2.0, 3000), rng.normal(100.0, 8.0, 1000)])
    assert 16.0 < otsu_threshold(values) < 75.0
