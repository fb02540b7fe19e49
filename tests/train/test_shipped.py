"""The models that ship count simulated volumes they never saw, and fit the protocols that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epvs_cohort.model.bundle import Bundle, bundled_models, check_fits, load_bundle
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Protocol, load_protocol, pipelines_dir
from epvs_cohort.records import Prediction
from epvs_cohort.simulate.windows import LabelledVolume
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
