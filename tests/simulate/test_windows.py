"""Windows show as many lesions as their label says, whatever the tissue looks like."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.geometry import centered_grid
from epvs_cohort.prepare.mask import SoftMask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import LABEL_NO_REGION
from epvs_cohort.simulate.lesions import LesionShape, NegativeBinomial, Placement
from epvs_cohort.simulate.prepared import Canvas
from epvs_cohort.simulate.windows import Scene, WindowSettings, draw_volume, draw_windows, scene_of

SHAPE = (64, 56, 40)
PROTOCOL = Protocol()
PLAIN = WindowSettings((32, 32, 24), clip_jitter=0.0, gamma_jitter=0.0)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    """One ball of grey matter, with sharp lesions and hardly any noise."""
    grid = centered_grid(SHAPE, (0.49, 0.49, 0.8), (0.0, 0.0, 0.0))
    voxels = np.argwhere(np.ones(SHAPE, np.bool_))
    points = (voxels - (np.array(SHAPE) - 1) / 2) * np.array(grid.spacing_mm)
    ball = (np.linalg.norm(points, axis=1) < 9.0).reshape(SHAPE)
    chosen = (np.linalg.norm(points, axis=1) < 8.0).nonzero()[0][::7]
    placement = Placement(
        points_mm=points[chosen],
        weights=np.full(len(chosen), 1.0 / len(chosen)),
        regions=np.full(len(chosen), 3, np.uint8),
        up=(0.0, 0.0, 1.0),
        focus_mm=(0.0, 0.0, -25.0),
        jitter_mm=0.2,
        shape=LesionShape(radius_range_mm=(0.6, 0.9), length_range_mm=(1.5, 3.0), contrast_range=(0.9, 1.0)),
    )
    regions = np.where(ball, 3, 0).astype(np.uint8)
    return Canvas(
        image=np.where(ball, 1.0, 0.8).astype(np.float32),
        bias=np.ones(SHAPE, np.float32),
        fluid=2.5,
        noise_sigma=0.005,
        psf_sigma_mm=(0.2, 0.2, 0.3),
        regions=regions,
        roi=regions,
        placement=placement,
        grid=grid,
        ac_mm=np.zeros(3),
    )


@pytest.fixture(scope="module")
def scene(canvas: Canvas) -> Scene:
    return scene_of(canvas, PROTOCOL, np.random.default_rng(0))


def test_a_window_shows_as_many_bright_spots_as_its_count_says(scene: Scene) -> None:
    settings = dataclasses.replace(PLAIN, max_count=4, border_share=0.2)
    batch = draw_windows((scene,), 24, settings, np.random.default_rng(1))
    assert batch.counts.max() >= 4
    assert batch.counts.min() == 0
    for window, mask, count in zip(batch.intensities, batch.mask, batch.counts, strict=True):
        deep = ndimage.binary_erosion(mask, iterations=2, border_value=1)
        level = float(np.median(window[deep]))
        _, found = ndimage.label(deep & (window > 1.25 * level), np.ones((3, 3, 3)))
        assert found == count


def test_windows_are_prepared_intensities(scene: Scene) -> None:
    batch = draw_windows((scene,), 8, PLAIN, np.random.default_rng(2))
    assert batch.intensities.shape == (8, 32, 32, 24)
    assert batch.intensities.dtype == np.float32
    assert float(batch.intensities.min()) >= 0.0
    assert float(batch.intensities.max()) <= 1.0
    # Far from the mask nothing is left of the head.
    assert float(batch.intensities[~batch.mask].min()) < 1e-3


def test_counts_do_not_depend_on_contrast_or_noise(scene: Scene) -> None:
    other = dataclasses.replace(
        scene, tissue=(scene.tissue * np.float16(0.6)), noise_sigma=0.2, clip_value=3.0 * scene.clip_value
    )
    one = draw_windows((scene,), 1, PLAIN, np.random.default_rng(3))
    two = draw_windows((other,), 1, PLAIN, np.random.default_rng(3))
    assert one.counts.tolist() == two.counts.tolist()
    assert not np.allclose(one.intensities, two.intensities)


def test_one_seed_gives_one_batch(scene: Scene) -> None:
    a, b, c = (draw_windows((scene,), 4, PLAIN, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert a.intensities.tobytes() == b.intensities.tobytes()
    assert a.counts.tolist() == b.counts.tolist()
    assert a.intensities.tobytes() != c.intensities.tobytes()


def test_counts_are_spread_evenly(scene: Scene) -> None:
    whole = dataclasses.replace(PLAIN, size=SHAPE, max_count=3, border_share=0.0)
    counts = draw_windows((scene,), 120, whole, np.random.default_rng(7)).counts
    assert set(counts.tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert min(np.bincount(counts.astype(int))) > 15


def test_faint_lesions_can_be_left_for_later(scene: Scene) -> None:
    faint = dataclasses.replace(scene.visible.shape, contrast_range=(0.1, 0.6), contrast_beta=(1.0, 1.0))
    dim = dataclasses.replace(scene, visible=dataclasses.replace(scene.visible, shape=faint), noise_sigma=0.0)
    floor = dataclasses.replace(PLAIN, max_count=1, border_share=0.0, contrast_floor=0.55)
    peaks = {}
    for name, settings in (("all", dataclasses.replace(floor, contrast_floor=0.0)), ("plain", floor)):
        batch = draw_windows((dim,), 40, settings, np.random.default_rng(8))
        peaks[name] = batch.intensities[batch.counts == 1].max(axis=(1, 2, 3))
    assert peaks["plain"].min() > peaks["all"].min() + 0.05


def test_places_outside_the_mask_are_not_visible(canvas: Canvas) -> None:
    half = canvas.roi.copy()
    half[32:] = 0
    shifted = dataclasses.replace(canvas, roi=half, regions=half)
    scene = scene_of(shifted, PROTOCOL, np.random.default_rng(0))
    assert 0.4 < len(scene.visible.weights) / len(scene.placement.weights) < 0.8
    assert scene.visible.weights.sum() == pytest.approx(1.0)
    voxels = np.rint((scene.visible.points_mm - scene.grid.affine[:3, 3]) / scene.grid.spacing_mm).astype(int)
    assert (scene.labels[tuple(voxels.T)] > 0).all()


def test_a_volume_is_trimmed_as_a_scan_is(scene: Scene) -> None:
    quiet = dataclasses.replace(scene, noise_sigma=0.0)
    drawn = draw_volume(quiet, "a", PROTOCOL, np.random.default_rng(1), NegativeBinomial(1e-6, 1.0))
    assert drawn.count == 0
    mask = SoftMask(scene.weight.astype(np.float32), scene.labels)
    expected = trim(scene.tissue.astype(np.float32), mask, PROTOCOL.trim).intensities
    np.testing.assert_allclose(drawn.volume.intensities, expected, atol=1e-6)
    assert set(np.unique(drawn.volume.labels)) == {0, 3, LABEL_NO_REGION}


def test_points_of_a_volume_lie_on_its_lesions(scene: Scene) -> None:
    drawn = draw_volume(scene, "a", PROTOCOL, np.random.default_rng(4), NegativeBinomial(6.0, 50.0))
    assert drawn.count == len(drawn.points) > 2
    at = np.rint(drawn.points).astype(int)
    background = float(np.median(drawn.volume.intensities[drawn.volume.labels == 3]))
    assert (drawn.volume.intensities[tuple(at.T)] > 1.25 * background).all()
