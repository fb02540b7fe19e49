"""The models that ship count simulated volumes they never saw, and fit the protocols that name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.model.bundle import Bundle, bundled_models, bundles_dir, check_fits, load_bundle
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Protocol, load_protocol, pipelines_dir
from epvs_cohort.records import Prediction
from epvs_cohort.simulate.anatomy import bundled_anatomy
from epvs_cohort.simulate.heads import Acquisition, draw_person, draw_person_lesions
from epvs_cohort.simulate.prepared_cohort import Preparation, scan_prepared
from epvs_cohort.simulate.windows import LabelledVolume
from epvs_cohort.train.recipe import load_recipe
from epvs_cohort.train.scenes import Order, volumes_of


@pytest.fixture(scope="module")
def drawn() -> list[LabelledVolume]:
    """Two volumes of the bundled anatomy, which no shipped model was trained on."""
    return volumes_of(Order(None, ((77, 0), (77, 1)), Protocol()))


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle("gp-unet-sim")


def test_each_protocol_names_a_model_that_fits() -> None:
    paths = sorted((pipelines_dir() / "protocols").glob("*.toml"))
    named = [load_protocol(path.stem) for path in paths]
    assert {protocol.model for protocol in named} <= set(bundled_models())
    for protocol in [Protocol(), *named]:
        check_fits(load_bundle(protocol.model), protocol)


@pytest.mark.parametrize(
    ("name", "model_id"), [("gp-unet-sim", "d325b427b4c65402"), ("gp-unet-sim-ac", "e48d2a99dec0fe69")]
)
def test_a_shipped_model_keeps_the_name_that_its_published_figures_have(name: str, model_id: str) -> None:
    assert load_bundle(name).model_id == model_id


def test_the_card_says_that_the_scans_are_simulated(shipped: Bundle) -> None:
    assert "simulated" in shipped.card.trained_on
    assert "simulated" in shipped.card.validated_on
    assert shipped.card.score_weight is not None
    assert {"icc", "mae", "sensitivity_f", "false_discovery_rate_f"} <= set(shipped.card.validation)
    words = (Path(__file__).parents[2] / "epvs_cohort/model/bundles/gp-unet-sim/README.md").read_text()
    assert f"{shipped.card.validation['icc']:.3f}" in words
    for field in ("trained_on", "supervision", "limits", "validated_on"):
        assert getattr(shipped.card, field) in words


def test_counts_are_near_the_truth(shipped: Bundle, drawn: list[LabelledVolume]) -> None:
    for each, result in zip(drawn, Predictor(shipped).predict([d.volume for d in drawn]), strict=True):
        assert isinstance(result, Prediction)
        assert abs(result.count - each.count) < 3.0 + 0.25 * each.count


def test_the_model_of_the_slice_counts_those_that_cross_it() -> None:
    how = Preparation(Acquisition(), load_protocol("rotterdam-ac-slice"), true_slice=True)
    predictor = Predictor(load_bundle("gp-unet-sim-ac"))
    true, counted = [], []
    for number, n in enumerate((0, 12, 30)):
        rng = np.random.default_rng((78, number))
        person = draw_person(rng, bundled_anatomy(), 0.0)
        scan = scan_prepared(rng, person, draw_person_lesions(rng, person, n), how)
        result = predictor.predict([scan.volume])[0]
        assert isinstance(result, Prediction)
        true.append(sum(middle is not None for middle in scan.crossings_mm))
        counted.append(result.count)
    assert true[0] < true[1] < true[2]
    # A region full of faint lesions may come out low; on 200 heads the mean absolute error was 0.95.
    assert np.mean(np.abs(np.subtract(counted, true))) < 2.0
    assert counted[0] == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize("name", bundled_models())
def test_what_ships_was_trained_as_its_recipe_says(name: str) -> None:
    record = json.loads((bundles_dir() / name / "recipe.json").read_text())
    recipe = load_recipe(name).model_dump(mode="json")
    # Voxels of the augmentation are those of the protocol.
    for settings in (recipe, record["recipe"]):
        settings.get("augment", {}).pop("voxel_mm", None)
    assert record["recipe"] == recipe


def test_a_predicted_count_is_within_a_twentieth_of_the_plain_forward_pass(
    shipped: Bundle, drawn: list[LabelledVolume]
) -> None:
    volume = drawn[0].volume
    result = Predictor(shipped).predict([volume])[0]
    with torch.inference_mode():
        plain = shipped.network(
            torch.from_numpy(volume.intensities)[None, None], torch.from_numpy(volume.mask)[None, None]
        )
    assert isinstance(result, Prediction)
    assert result.count == pytest.approx(float(plain[0]), abs=0.05)
