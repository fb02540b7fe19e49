"""A prediction is Eq. 2 and Eq. 3 of the whole volume, however it is batched or cropped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epvs_cohort.errors import PredictionError
from epvs_cohort.model.bundle import Bundle, load_bundle
from epvs_cohort.model.network import Architecture, raised_heat
from epvs_cohort.model.predict import Predictor, needed_box
from epvs_cohort.records import AcSlice, Prediction
from tests.model.conftest import random_volume, save_tiny


def _one(result: Prediction | PredictionError) -> Prediction:
    assert isinstance(result, Prediction), result
    return result


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "mean"},
        {"pooling": "max"},
        {"last_layer": "free"},
        {"pool_within": "crop", "last_layer": "free"},
    ],
    ids=str,
)
def test_prediction_is_the_networks_own_forward_pass(tmp_path: Path, settings: dict[str, Any]) -> None:
    bundle = save_tiny(tmp_path, Architecture.model_validate({"widths": (3, 4), **settings}))
    volume = random_volume("a", 1)
    result = _one(Predictor(bundle, precision="float32").predict([volume])[0])
    tensor = torch.from_numpy(volume.intensities)[None, None]
    mask = torch.from_numpy(volume.mask)[None, None]
    with torch.inference_mode():
        count = float(bundle.network(tensor, mask)[0])
        heat = bundle.network.heatmap(bundle.network.features(tensor))[0].numpy()[volume.mask]
    assert result.count == pytest.approx(count, rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(result.heat, heat, rtol=1e-4, atol=1e-6)
    assert result.heat.dtype == np.float32
    assert result.model_id == bundle.model_id


@pytest.mark.parametrize("corner", [(40, 44, 41), (0, 50, 79), (47, 3, 45)])
def test_the_needed_box_gives_what_the_whole_volume_gives(
    tmp_path: Path, corner: tuple[int, int, int]
) -> None:
    architecture = Architecture(widths=(3, 4, 5), convs_per_level=1)
    shape = (96, 96, 88)
    bundle = save_tiny(tmp_path, architecture, shape)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(at, at + 9) for at in corner)] = 1
    volume = dataclasses.replace(random_volume("a", 2, shape), labels=labels)
    box = needed_box(labels, architecture)
    assert all(side.start % 4 == 0 and side.stop % 4 == 0 for side in box)
    assert np.prod([side.stop - side.start for side in box]) < 0.5 * labels.size
    result = _one(Predictor(bundle, precision="float32").predict([volume])[0])
    with torch.inference_mode():
        features = bundle.network.features(torch.from_numpy(volume.intensities)[None, None])
        heat = bundle.network.heatmap(features)[0].numpy()[volume.mask]
    np.testing.assert_allclose(result.heat, heat, rtol=1e-5, atol=1e-6)
    assert result.count == pytest.approx(float(heat.astype(np.float64).sum()), rel=1e-5)


@pytest.mark.parametrize("corner", [(40, 44, 41), (0, 50, 79)])
def test_without_the_way_up_the_needed_box_gives_what_the_whole_volume_gives(
    tmp_path: Path, corner: tuple[int, int, int]
) -> None:
    shape = (96, 96, 88)
    architecture = Architecture(widths=(3, 4, 5), convs_per_level=1, upsampling="none")
    bundle = save_tiny(tmp_path, architecture, shape)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(at, at + 9) for at in corner)] = 1
    volume = dataclasses.replace(random_volume("a", 2, shape), labels=labels)
    result = _one(Predictor(bundle, precision="float32").predict([volume])[0])
    mask = torch.from_numpy(volume.mask)[None, None]
    with torch.inference_mode():
        features = bundle.network.features(torch.from_numpy(volume.intensities)[None, None])
        cells = bundle.network.pooled(mask)[0, 0]
        heat = bundle.network.heatmap(features)[0]
    assert result.count == pytest.approx(float(heat[cells].double().sum()), rel=1e-5)
    expected = raised_heat(heat, cells, 4).numpy()[volume.mask]
    np.testing.assert_allclose(result.heat, expected, rtol=1e-4, atol=1e-6)


def test_without_the_way_up_a_slice_is_pooled_over_the_cells_it_crosses(tmp_path: Path) -> None:
    architecture = Architecture(widths=(3, 4), pool_within="ac_slice", upsampling="none")
    bundle = save_tiny(tmp_path, architecture)
    volume = dataclasses.replace(random_volume("a", 1), ac=AcSlice(axis=2, index=7))
    result = _one(Predictor(bundle, precision="float32").predict([volume])[0])
    with torch.inference_mode():
        heat = bundle.network.heatmap(
            bundle.network.features(torch.from_numpy(volume.intensities)[None, None])
        )
    # Slice 7 lies in cells 3; the mask in cells 4 to 11 and 3 to 8.
    assert result.count == pytest.approx(float(heat[0, 4:12, 3:9, 3].sum()), rel=1e-4)
    assert len(result.heat) == volume.mask.sum()


def test_a_model_of_the_slice_pools_within_it(tmp_path: Path) -> None:
    bundle = save_tiny(tmp_path, Architecture(widths=(3, 4), pool_within="ac_slice"))
    volume = dataclasses.replace(random_volume("a", 1), ac=AcSlice(axis=2, index=7))
    result = _one(Predictor(bundle, precision="float32").predict([volume])[0])
    heat = np.zeros(volume.labels.shape)
    heat[volume.mask] = result.heat
    assert result.count == pytest.approx(heat[:, :, 7].sum(), rel=1e-4)
    assert heat.sum() > 1.5 * heat[:, :, 7].sum() > 0, "the heatmap is of the whole mask"


@pytest.mark.parametrize("ac", [None, AcSlice(axis=2, index=1)], ids=["no slice", "beside the mask"])
def test_a_model_of_the_slice_needs_the_slice(tmp_path: Path, ac: AcSlice | None) -> None:
    bundle = save_tiny(tmp_path, Architecture(widths=(3, 4), pool_within="ac_slice"))
    result = Predictor(bundle).predict([dataclasses.replace(random_volume("a", 1), ac=ac)])[0]
    assert isinstance(result, PredictionError)
    assert "anterior commissure" in result.message


def test_a_batch_gives_the_bits_of_its_volumes_alone(tiny_bundle: Bundle) -> None:
    volumes = [random_volume(key, seed) for seed, key in enumerate("abc")]
    predictor = Predictor(tiny_bundle)
    together = [_one(result) for result in predictor.predict(volumes)]
    alone = [_one(predictor.predict([volume])[0]) for volume in reversed(volumes)][::-1]
    for a, b in zip(together, alone, strict=True):
        assert (a.key, a.count) == (b.key, b.count)
        assert a.heat.tobytes() == b.heat.tobytes()


def test_the_number_of_threads_changes_no_bit_of_the_shipped_model() -> None:
    bundle = load_bundle("gp-unet-sim")
    volume = random_volume("a", 3, bundle.card.requires.grid.shape)
    before = torch.get_num_threads()
    try:
        one, two = (_one(Predictor(bundle, threads=threads).predict([volume])[0]) for threads in (1, 2))
    finally:
        torch.set_num_threads(before)
    assert one.count == two.count
    assert one.heat.tobytes() == two.heat.tobytes()


def test_a_volume_that_cannot_be_counted_spoils_no_other(tiny_bundle: Bundle) -> None:
    good = random_volume("good", 1)
    broken = good.intensities.copy()
    broken[16, 12, 8] = np.nan
    volumes = [
        dataclasses.replace(good, key="nan", intensities=broken),
        good,
        dataclasses.replace(good, key="small", intensities=broken[:8], labels=good.labels[:8]),
        dataclasses.replace(good, key="empty", labels=np.zeros_like(good.labels)),
    ]
    nan, counted, small, empty = Predictor(tiny_bundle).predict(volumes)
    assert isinstance(nan, PredictionError)
    assert "nan: the network gave no finite count" in nan.message
    assert _one(counted).key == "good"
    assert isinstance(small, PredictionError)
    assert "(8, 24, 16)" in small.message
    assert isinstance(empty, PredictionError)
    assert "empty: the mask is empty" in empty.message


def test_no_volumes_give_no_predictions(tiny_bundle: Bundle) -> None:
    assert Predictor(tiny_bundle).predict([]) == []


def test_bfloat16_stays_close_to_float32(tiny_bundle: Bundle) -> None:
    volume = random_volume("a", 5)
    exact = _one(Predictor(tiny_bundle, precision="float32").predict([volume])[0])
    rounded = _one(Predictor(tiny_bundle, precision="bfloat16").predict([volume])[0])
    assert rounded.count == pytest.approx(exact.count, rel=0.02)
    assert rounded.count != exact.count


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_agrees_with_the_cpu(tiny_bundle: Bundle) -> None:
    volumes = [random_volume(str(seed), seed) for seed in range(11)]
    on_cpu = Predictor(tiny_bundle, precision="float32").predict(volumes)
    on_gpu = Predictor(tiny_bundle, "cuda", precision="float32").predict(volumes)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert _one(b).count == pytest.approx(_one(a).count, rel=1e-3)
