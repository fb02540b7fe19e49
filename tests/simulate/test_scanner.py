"""Bias field, motion ghosts and noise."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.geometry import centered_grid
from epvs_cohort.simulate.scanner import Scanner, bias_field, blur, draw_scanner, ghosted, rician


def test_bias_field_keeps_its_limit() -> None:
    field = bias_field(np.random.default_rng(2), centered_grid((40, 50, 30), (4.0, 4.0, 5.0), (0, 0, 0)), 0.2)
    assert np.abs(field - 1.0).max() == pytest.approx(0.2, abs=1e-5)
    assert np.abs(np.diff(field, axis=0)).max() < 0.05


def test_rician_noise_in_air_and_tissue() -> None:
    rng = np.random.default_rng(4)
    air = rician(rng, np.zeros((40, 40, 40), dtype=np.float32), 0.1)
    assert air.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)
    tissue = rician(rng, np.ones((40, 40, 40), dtype=np.float32), 0.05)
    assert tissue.std() == pytest.approx(0.05, rel=0.03)


def test_scanners_differ() -> None:
    drawn = [draw_scanner(np.random.default_rng(seed)) for seed in range(20)]
    assert len({scanner.noise_sigma for scanner in drawn}) == 20
    assert all(0.0 < scanner.bias <= 0.2 for scanner in drawn)


def test_some_scans_have_ghosts_and_most_have_none() -> None:
    drawn = [draw_scanner(np.random.default_rng(seed)) for seed in range(400)]
    moved = [scanner for scanner in drawn if scanner.ghost > 0.0]
    assert 8 < len(moved) < 48
    assert all(scanner.ghost_mm >= 15.0 for scanner in moved)


def test_ghosts_lie_to_the_front_and_the_back_and_keep_the_signal() -> None:
    grid = centered_grid((5, 40, 5), (1.0, 2.0, 1.0), (0, 0, 0))
    image = np.zeros(grid.shape, dtype=np.float32)
    image[2, 20, 2] = 1.0
    still = Scanner((0.3, 0.3, 0.5), 0.03, 0.1)
    assert ghosted(image, grid, still) is image
    seen = ghosted(image, grid, Scanner((0.3, 0.3, 0.5), 0.03, 0.1, ghost=0.05, ghost_mm=16.0))
    assert seen[2, [12, 20, 28], 2] == pytest.approx([0.05, 0.9, 0.05])
    assert seen.sum() == pytest.approx(1.0)


def test_blur_follows_the_axes_of_the_grid() -> None:
    grid = centered_grid((41, 41, 41), (0.5, 0.5, 1.0), (0, 0, 0))
    image = np.zeros(grid.shape, dtype=np.float32)
    image[20, 20, 20] = 1.0
    seen = blur(image, grid, (1.0, 1.0, 2.0))
    offset = np.arange(41) - 20.0
    widths = [
        float(np.sqrt((seen.sum(axis=other) * (offset * step) ** 2).sum()))
        for other, step in (((1, 2), 0.5), ((0, 1), 1.0))
    ]
    assert widths == pytest.approx([1.0, 2.0], rel=0.05)
