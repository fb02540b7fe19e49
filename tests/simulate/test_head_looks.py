"""Contrast, pathology and scanner of simulated heads."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.geometry import Grid
from epvs_cohort.head_classes import HeadClass
from epvs_cohort.simulate.head_looks import LookSettings, acquire, add_pathology, draw_contrast
from epvs_cohort.simulate.tissue import Tissue, TissueModel

CLEAN = LookSettings(thick_share=0.0, coarse_share=0.0, blur_mm=(0.0, 0.0), bias=(0.0, 0.0), noise=(0.0, 0.0))
GRID = Grid((32, 40, 24), np.diag([2.0, 2.0, 2.0, 1.0]))


def test_real_contrasts_have_bright_fluid_and_random_ones_do_not_all() -> None:
    rng = np.random.default_rng(0)
    real = [draw_contrast(rng, LookSettings(realistic_share=1.0)).level for _ in range(20)]
    assert all(level[Tissue.VENTRICLE] > level[Tissue.CORTEX] > level[Tissue.WHITE] * 0.9 for level in real)
    random = [draw_contrast(rng, LookSettings(realistic_share=0.0)).level for _ in range(40)]
    brighter = sum(bool(level[Tissue.VENTRICLE] > level[Tissue.WHITE]) for level in random)
    assert 8 < brighter < 32
    assert max(float(level.max()) for level in real + random) <= 1.0


def test_a_clean_scanner_changes_nothing() -> None:
    image = np.random.default_rng(1).random(GRID.shape, dtype=np.float32)
    np.testing.assert_allclose(acquire(np.random.default_rng(2), image, GRID, CLEAN), image, atol=1e-5)


def test_thick_slices_blur_one_axis_and_keep_the_sum() -> None:
    image = np.zeros(GRID.shape, dtype=np.float32)
    image[16, 20, 12] = 1.0
    settings = CLEAN.model_copy(update={"thick_share": 1.0, "thick_mm": (6.0, 6.0)})
    axes = set()
    for seed in range(12):
        out = acquire(np.random.default_rng(seed), image, GRID, settings)
        (axis,) = (a for a in range(3) if len(np.unique(np.argwhere(out > 1e-6)[:, a])) > 1)
        axes.add(axis)
        assert float(out.sum()) == pytest.approx(1.0, rel=0.35)
        assert float(out.max()) < 0.5
    assert len(axes) > 1


def test_a_flat_image_stays_flat_to_its_borders() -> None:
    image = np.full(GRID.shape, 0.5, dtype=np.float32)
    settings = CLEAN.model_copy(update={"thick_share": 1.0, "coarse_share": 1.0, "blur_mm": (2.0, 2.0)})
    for seed in range(5):
        np.testing.assert_allclose(
            acquire(np.random.default_rng(seed), image, GRID, settings), 0.5, atol=1e-4
        )


def test_noise_is_what_was_asked_for() -> None:
    image = np.full(GRID.shape, 0.8, dtype=np.float32)
    settings = CLEAN.model_copy(update={"noise": (0.05, 0.05)})
    assert acquire(np.random.default_rng(3), image, GRID, settings).std() == pytest.approx(0.05, rel=0.1)


def test_lesions_lie_in_white_matter_near_the_ventricles() -> None:
    classes = np.full((48, 48, 48), HeadClass.WHITE_MATTER, dtype=np.uint8)
    classes[:, :, :10] = HeadClass.CORTEX
    classes[16:32, 16:32, 16:32] = HeadClass.LATERAL_VENTRICLES
    level = np.full(len(Tissue), 0.3, dtype=np.float32)
    level[Tissue.WHITE_LESION] = level[Tissue.VENTRICLE] = 0.9
    image = np.full(classes.shape, 0.3, dtype=np.float32)
    settings = LookSettings(lesion_share=1.0, speck_share=0.0, mass_share=0.0)
    add_pathology(np.random.default_rng(4), image, classes, TissueModel(level, level * 0), settings)
    changed = image != np.float32(0.3)
    assert changed.any()
    assert (classes[changed] == HeadClass.WHITE_MATTER).all()
    distance = np.linalg.norm(np.argwhere(changed) - 23.5, axis=1)
    assert (
        distance.mean() < np.linalg.norm(np.argwhere(classes == HeadClass.WHITE_MATTER) - 23.5, axis=1).mean()
    )


def test_specks_and_masses_leave_what_is_no_brain() -> None:
    classes = np.zeros((32, 32, 32), dtype=np.uint8)
    classes[8:24, 8:24, 8:24] = HeadClass.LEFT_PUTAMEN
    level = np.full(len(Tissue), 0.3, dtype=np.float32)
    level[Tissue.VENTRICLE] = 1.0
    for specks, masses in ((1.0, 0.0), (0.0, 1.0)):
        image = np.full(classes.shape, 0.3, dtype=np.float32)
        settings = LookSettings(lesion_share=0.0, speck_share=specks, mass_share=masses)
        add_pathology(np.random.default_rng(5), image, classes, TissueModel(level, level * 0), settings)
        changed = image != np.float32(0.3)
        assert changed.any()
        assert (classes[changed] > 0).all()
