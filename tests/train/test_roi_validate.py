"""Figures of segmentations, of a network whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from epvs_cohort.head_classes import CLASS_NAMES, HeadClass
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet
from epvs_cohort.model.unet import ConvUnit
from epvs_cohort.simulate.whole_heads import HeadSample
from epvs_cohort.train.roi_validate import validate


def threshold() -> RoiUnet:
    """A network that says left putamen where the image is above 0.5."""
    network = RoiUnet(RoiArchitecture(widths=(1,), convs_per_level=1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        (unit,) = (each for each in network.modules() if isinstance(each, ConvUnit))
        unit.conv.weight[0, 0, 1, 1, 1] = 1.0
        network.head.weight[HeadClass.LEFT_PUTAMEN] = 20.0
        network.head.bias = nn.Parameter(10.0 * (torch.arange(len(CLASS_NAMES)) == HeadClass.NOT_BRAIN))
    return network.eval()


def head(shift: int) -> HeadSample:
    """A bright block of 8 x 8 x 8, and a true putamen shifted by some voxels along i."""
    image, classes = np.zeros((16, 16, 16), np.float32), np.zeros((16, 16, 16), np.uint8)
    image[4:12, 4:12, 4:12] = 1.0
    classes[4 + shift : 12 + shift, 4:12, 4:12] = HeadClass.LEFT_PUTAMEN
    return HeadSample(image, classes)


def test_figures_are_means_over_heads() -> None:
    figures = validate(threshold(), [head(0), head(2)], 4.0)
    assert figures["dice left putamen"] == pytest.approx((1.0 + 0.75) / 2, abs=1e-4)
    assert figures["dice basal ganglia"] == pytest.approx(0.875, abs=1e-4)
    assert figures["lowest dice basal ganglia"] == 0.75
    assert figures["volume error basal ganglia"] == 0.0
    assert figures["heads"] == 2.0
    assert "dice right putamen" not in figures


def test_a_sliver_of_a_class_counts_nowhere() -> None:
    # 512 voxels of 0.5 mm are 0.06 mL.
    figures = validate(threshold(), [head(0)], 0.5)
    assert set(figures) == {"heads", "dice not brain"}


def test_a_mask_of_twice_the_volume_is_an_error_of_one() -> None:
    sample = head(0)
    half = sample.classes.copy()
    half[4:8] = 0
    figures = validate(threshold(), [HeadSample(sample.intensities, half)], 4.0)
    assert figures["volume error basal ganglia"] == 1.0
    assert figures["dice basal ganglia"] == pytest.approx(2 / 3, abs=1e-4)
