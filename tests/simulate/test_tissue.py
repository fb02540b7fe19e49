"""Contrast and texture."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.geometry import centered_grid
from epvs_cohort.simulate.tissue import Tissue, TissueModel, draw_tissue, paint, texture_field, tissue_of


def test_contrast_lies_between_the_measured_rows() -> None:
    drawn = [draw_tissue(np.random.default_rng(seed)) for seed in range(200)]
    for tissue, low, high in ((Tissue.CORTEX, 1.18, 1.43), (Tissue.PALLIDUM, 0.6, 0.95)):
        levels = np.array([model.level[tissue] for model in drawn])
        assert low < levels.mean() < high
        assert levels.min() > 0.8 * low
        assert levels.max() < 1.2 * high
    fluids = np.array([model.fluid for model in drawn])
    assert fluids.min() > 1.2
    assert fluids.std() > 0.15
    assert all(model.level[Tissue.WHITE] == 1.0 for model in drawn)


def test_labels_map_to_tissues() -> None:
    labels = np.array([0, 2, 12, 51, 4, 24, 300, 515, 215, 506, 60, 999, 80], dtype=np.int16)
    expected = [
        Tissue.AIR, Tissue.WHITE, Tissue.PUTAMEN, Tissue.PUTAMEN, Tissue.VENTRICLE, Tissue.SULCUS, Tissue.CAPSULE,
        Tissue.BONE, Tissue.BONE, Tissue.EYE, Tissue.DIENCEPHALON, Tissue.SOFT, Tissue.WHITE,
    ]  # fmt: skip
    assert tissue_of(labels).tolist() == [int(tissue) for tissue in expected]


def model_of(**levels: float) -> TissueModel:
    level = np.ones(len(Tissue), dtype=np.float32)
    for name, value in levels.items():
        level[Tissue[name]] = value
    return TissueModel(level, np.zeros_like(level))


def test_borders_are_partial_volume_and_nuclei_shade_more_widely() -> None:
    labels = np.full((40, 6, 6), 2, dtype=np.int16)
    labels[10:20], labels[30:] = 12, 4
    image = paint(labels, model_of(PUTAMEN=0.5, VENTRICLE=2.0), 0.7, 1.6)
    assert image[15, 3, 3] == pytest.approx(0.5, abs=0.01)
    assert image[25, 3, 3] == pytest.approx(1.0, abs=0.01)
    assert image[29:31, 3, 3].mean() == pytest.approx(1.5, abs=0.01)
    assert image[9:11, 3, 3].mean() == pytest.approx(0.75, abs=0.01)
    slope_shaded = (image[9, 3, 3] - image[10, 3, 3]) / 0.5
    slope_sharp = image[30, 3, 3] - image[29, 3, 3]
    assert 0.1 < slope_shaded < 0.7 * slope_sharp


def test_texture_has_about_unit_variance_and_is_correlated() -> None:
    field = texture_field(np.random.default_rng(3), centered_grid((60, 60, 40), (0.49, 0.49, 0.8), (0, 0, 0)))
    assert field.std() == pytest.approx(0.95, abs=0.2)
    neighbours = np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1]
    assert 0.4 < neighbours < 0.98
