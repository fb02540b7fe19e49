"""Segmenting a native scan: where the answer lies, how sure it is, and what becomes of a badly centred grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from epvs_cohort.data.head_grid import ROI_FROM_CENTER_MM, HeadGrid
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.head_classes import CLASS_NAMES, HeadClass
from epvs_cohort.model.bundle_files import NO_HASH
from epvs_cohort.model.roi_bundle import RoiBundle, RoiCard
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.model.unet import ConvUnit
from epvs_cohort.records import Image
from epvs_cohort.simulate.warp import random_rigid

#: A brightness at which the network of the test says putamen, and one at which it says white matter.
PUTAMEN, WHITE = 1.0, 0.6


def bundle() -> RoiBundle:
    """A network without depth whose classes are thresholds of the intensity: known answers without training."""
    architecture = RoiArchitecture(widths=(2,), convs_per_level=1)
    network = RoiUnet(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        (unit,) = (each for each in network.modules() if isinstance(each, ConvUnit))
        unit.conv.weight[:, 0, 1, 1, 1] = 1.0
        unit.conv.bias = nn.Parameter(torch.tensor([0.0, -0.8]))
        # 40 v: white matter wins above 0.25; 400 max(v - 0.8, 0): left putamen above 0.9.
        network.head.bias = nn.Parameter(10.0 * (torch.arange(len(CLASS_NAMES)) == HeadClass.NOT_BRAIN))
        network.head.weight[HeadClass.WHITE_MATTER, 0] = 40.0
        network.head.weight[HeadClass.LEFT_PUTAMEN, 1] = 400.0
    card = RoiCard(
        name="thresholds",
        architecture=architecture,
        grid=HeadGrid(shape=(32, 40, 32), spacing_mm=5.0),
        trained_on="nothing: weights set by hand",
        weights_sha256=NO_HASH,
    )
    return RoiBundle(card, network.eval())


def head(deep_mm: tuple[float, float, float], spacing: float = 2.5) -> Image:
    """A ball of 60 mm around the origin of the world, with a bright ball of 18 mm in it, i running to the left."""
    shape = tuple(round(200.0 / spacing) for _ in range(3))
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (100.0, -100.0, -100.0)
    points = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    data = np.where(np.linalg.norm(points, axis=-1) < 60.0, WHITE, 0.0)
    data[np.linalg.norm(points - np.asarray(deep_mm), axis=-1) < 18.0] = PUTAMEN
    return Image((1000.0 * data).astype(np.float32)[::-1], affine @ _flip(shape[0]))


def _flip(n: int) -> np.ndarray:
    out = np.diag([-1.0, 1.0, 1.0, 1.0])
    out[0, 3] = n - 1.0
    return out


def test_what_is_found_lies_in_native_millimetres() -> None:
    found = Segmenter(bundle()).segment(head((10.0, 20.0, 5.0)))
    assert found.grid.shape == found.labels.shape == (32, 40, 32)
    voxels = np.argwhere(found.labels == HeadClass.LEFT_PUTAMEN)
    assert apply_affine(found.grid.affine, voxels.mean(axis=0)) == pytest.approx((10.0, 20.0, 5.0), abs=1.5)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1.0, atol=1e-4)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.labels)
    assert set(found.volumes_ml) == set(CLASS_NAMES[1:])
    assert found.volumes_ml["left putamen"] == pytest.approx(4 / 3 * np.pi * 1.8**3, rel=0.35)


def test_the_border_is_less_sure_than_the_inside() -> None:
    found = Segmenter(bundle()).segment(head((10.0, 20.0, 5.0)))
    assert found.entropy_inside is not None
    assert found.entropy_border is not None
    assert 0.0 <= found.entropy_inside < found.entropy_border < np.log(len(CLASS_NAMES))


def test_a_scan_without_basal_ganglia_has_no_entropy_of_them() -> None:
    black = Segmenter(bundle()).segment(Image(np.zeros((40, 40, 40), np.float32), np.eye(4)))
    assert not black.labels.any()
    assert (black.entropy_inside, black.entropy_border) == (None, None)
    assert black.volumes_ml["left putamen"] < 0.5


def test_a_grid_far_from_the_basal_ganglia_is_laid_anew() -> None:
    deep = (0.0, -38.0, 0.0)
    found = Segmenter(bundle()).segment(head(deep))
    assert found.grid.center_mm == pytest.approx(np.asarray(deep) - ROI_FROM_CENTER_MM, abs=2.0)


def test_around_a_point_the_answer_lies_in_the_frame_given() -> None:
    deep = (10.0, 20.0, 5.0)
    turn = random_rigid(np.random.default_rng(3), (0.0, 0.0, 0.0), 20.0, 10.0)
    middle = apply_affine(np.linalg.inv(turn), deep) + 4.0
    found = Segmenter(bundle()).segment_around(head(deep), turn, middle)
    assert found.grid.center_mm == pytest.approx(apply_affine(turn, middle), abs=1e-6)
    np.testing.assert_allclose(found.grid.affine[:3, :3] / 5.0, turn[:3, :3], atol=1e-9)
    voxels = np.argwhere(found.labels == HeadClass.LEFT_PUTAMEN)
    assert apply_affine(found.grid.affine, voxels.mean(axis=0)) == pytest.approx(deep, abs=1.5)
    # The network of the test calls every bright voxel left; its mirror image says right, and each has half.
    there = tuple(voxels[len(voxels) // 2])
    left, right = found.probabilities[[HeadClass.LEFT_PUTAMEN, HeadClass.RIGHT_PUTAMEN], *there]
    assert left == pytest.approx(right, abs=1e-5)
    assert left + right > 0.9


def test_values_that_are_not_finite_are_an_error_of_ours() -> None:
    broken = bundle()
    with torch.no_grad():
        broken.network.head.weight[0] = float("inf")
    with pytest.raises(PredictionError, match="not finite"):
        Segmenter(broken).segment(head((0.0, 0.0, 0.0)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no usable GPU"):
        Segmenter(bundle(), "cuda")


def test_the_bundle_is_left_as_it_was() -> None:
    given = bundle()
    before = {name: tensor.clone() for name, tensor in given.network.state_dict().items()}
    Segmenter(given, precision="bfloat16").segment(head((0.0, 10.0, 0.0)))
    for name, tensor in given.network.state_dict().items():
        assert torch.equal(tensor, before[name])
