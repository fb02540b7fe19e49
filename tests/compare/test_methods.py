"""Every method gives what its definition says, and a bundle that cannot do one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from epvs_cohort.compare.methods.method import Case
from epvs_cohort.compare.methods.registry import METHODS, methods_of, settled_method
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.network import Architecture
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Method
from epvs_cohort.records import AcSlice, Prediction, PreparedVolume
from tests.model.conftest import random_volume, save_tiny

Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Bundles with random weights, with the upsampling path or without."""

    def made(**settings: Any) -> Bundle:
        architecture = Architecture.model_validate({"widths": (3, 6), "convs_per_level": 1, **settings})
        return save_tiny(tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}", architecture)

    return made


def case(bundle: Bundle, volume: PreparedVolume, score: ScoreSettings | None = None) -> Case:
    predictor = Predictor(bundle)
    prediction = predictor.predict([volume])[0]
    assert isinstance(prediction, Prediction)
    return Case(volume, prediction, lambda: predictor, score or ScoreSettings())


def test_the_registry_holds_every_letter_under_its_own() -> None:
    assert set(METHODS) == set(get_args(Method))
    assert all(method.letter == letter for letter, method in METHODS.items())
    assert [letter for letter, method in METHODS.items() if method.network == "regression"] == ["b", "d"]


@pytest.mark.parametrize("letter", sorted(METHODS))
def test_scores_are_one_finite_number_a_voxel_of_the_mask(letter: Method, make: Make) -> None:
    method = METHODS[letter]
    bundle = make(upsampling="none" if method.network == "regression" else "nearest")
    given = case(bundle, random_volume("a", 3), ScoreSettings(letter, 2.0, 0.5))
    scores = method.score(given)
    assert scores.dtype == np.float32
    assert scores.shape == (int(given.volume.mask.sum()),)
    assert np.isfinite(scores).all()
    assert scores.std() > 0


def test_intensities_heat_and_their_sum(make: Make) -> None:
    given = case(make(), random_volume("a", 3), ScoreSettings("f", 2.0, 0.5))
    plain = given.volume.intensities[given.volume.mask]
    np.testing.assert_array_equal(METHODS["a"].score(given), plain)
    np.testing.assert_array_equal(METHODS["e"].score(given), given.prediction.heat)
    np.testing.assert_allclose(
        METHODS["f"].score(given), given.prediction.heat / 2.0 + 0.5 * plain, rtol=1e-6
    )


@pytest.mark.parametrize(("letter", "upsampling"), [("b", "none"), ("c", "nearest")])
@pytest.mark.parametrize("within", ["mask", "ac_slice", "crop"])
def test_saliency_is_the_change_of_the_count_with_a_voxel(
    letter: Method, upsampling: str, within: str, make: Make
) -> None:
    bundle = make(upsampling=upsampling, pool_within=within)
    volume = replace(random_volume("a", 3), ac=AcSlice(axis=2, index=7))
    given = case(bundle, volume)
    pooled = volume.mask & (np.arange(16) == 7) if within == "ac_slice" else volume.mask
    whole = torch.from_numpy(volume.intensities)[None, None].requires_grad_(True)
    count = bundle.network(whole, torch.from_numpy(pooled)[None, None])
    assert float(count.detach()) == pytest.approx(given.prediction.count, rel=1e-4)
    (slope,) = torch.autograd.grad(count.sum(), whole)
    expected = slope[0, 0].abs().numpy()[volume.mask]
    assert expected.std() > 0
    np.testing.assert_allclose(METHODS[letter].score(given), expected, rtol=1e-3, atol=1e-5)


def test_saliency_of_a_volume_that_cannot_be_counted_is_refused(make: Make) -> None:
    volume = random_volume("a", 3)
    predictor = Predictor(make())
    with pytest.raises(PredictionError, match="mask is empty"):
        predictor.saliency(replace(volume, labels=np.zeros_like(volume.labels)))


def test_what_a_bundle_can_do(make: Make) -> None:
    full, coarse = make().card, make(upsampling="none").card
    tuned = full.model_copy(update={"score_weight": 0.5, "heat_scale": 2.0})
    assert methods_of(full) == ("a", "c", "e")
    assert methods_of(tuned) == ("a", "c", "e", "f")
    assert methods_of(coarse) == ("b", "d")
    assert settled_method("auto", full) == ScoreSettings("e")
    assert settled_method("auto", tuned) == ScoreSettings("f", 2.0, 0.5)
    assert settled_method("auto", coarse).method == "d"
    assert [settled_method(letter, tuned).method for letter in ("a", "c", "e", "f")] == ["a", "c", "e", "f"]


@pytest.mark.parametrize(
    ("asked", "upsampling"), [("b", "nearest"), ("d", "nearest"), ("a", "none"), ("e", "none")]
)
def test_a_bundle_that_cannot_do_the_method_is_refused(asked: Method, upsampling: str, make: Make) -> None:
    with pytest.raises(ModelError, match=f"method {asked}: .* 'tiny' is a network") as caught:
        settled_method(asked, make(upsampling=upsampling).card)
    assert "b, d" in caught.value.hint if upsampling == "none" else "a, c, e" in caught.value.hint


def test_f_without_a_weight_is_refused(make: Make) -> None:
    with pytest.raises(ModelError, match="method f: the model bundle has heat_scale None"):
        settled_method("f", make().card)
