from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epvs_cohort.detect.score import ScoreSettings, resolve_score, score_of
from epvs_cohort.errors import ModelError, PredictionError, ProtocolError, RoiError
from epvs_cohort.records import Prediction, PreparedVolume

Make = Callable[..., PreparedVolume]


def test_auto_is_f_where_the_bundle_has_a_weight() -> None:
    assert resolve_score("auto", 2.0, 0.5) == ScoreSettings("f", 2.0, 0.5)
    assert resolve_score("f", 2.0, 0.5) == ScoreSettings("f", 2.0, 0.5)
    assert resolve_score("auto", None, 0.5).method == "e"
    assert resolve_score("auto", 2.0, None).method == "e"
    assert resolve_score("e", 2.0, 0.5).method == "e"


def test_f_without_a_weight_is_refused() -> None:
    with pytest.raises(ModelError, match=r"heat_scale 2\.0 and weight None"):
        resolve_score("f", 2.0, None)


@pytest.mark.parametrize(
    ("scale", "weight"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, -0.1), (1.0, float("inf"))]
)
def test_illegal_scale_or_weight_is_refused(scale: float, weight: float) -> None:
    with pytest.raises(ModelError, match="method f"):
        ScoreSettings("f", scale, weight)


def test_scores_of_both_methods(make_volume: Make, labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    intensities = rng.random(labels.shape, dtype=np.float32)
    volume = make_volume(intensities=intensities)
    heat = rng.standard_normal(volume.mask.sum()).astype(np.float32)
    prediction = Prediction("sub-01", 3.0, heat, "m")
    np.testing.assert_array_equal(score_of(volume, prediction, ScoreSettings("e", 4.0, 9.0)), heat)
    both = score_of(volume, prediction, ScoreSettings("f", 4.0, 0.25))
    assert both.dtype == np.float32
    expected = heat.astype(np.float64) / 4.0 + 0.25 * intensities[labels > 0].astype(np.float64)
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-6)


def test_only_e_and_f_are_scored_here(make_volume: Make) -> None:
    volume = make_volume()
    prediction = Prediction("sub-01", 1.0, np.zeros(volume.mask.sum(), np.float32), "m")
    with pytest.raises(ProtocolError, match="score of method 'b': legal here are 'e' and 'f'"):
        score_of(volume, prediction, ScoreSettings("b"))


def test_heat_that_does_not_fit_is_named(make_volume: Make) -> None:
    volume = make_volume()
    n = int(volume.mask.sum())
    with pytest.raises(PredictionError, match=rf"sub-01.*\({n - 1},\).*{n} voxels"):
        score_of(volume, Prediction("sub-01", 1.0, np.zeros(n - 1, np.float32), "m"), ScoreSettings())
    with pytest.raises(PredictionError, match=r"sub-01.*not finite"):
        score_of(volume, Prediction("sub-01", 1.0, np.full(n, np.nan, np.float32), "m"), ScoreSettings())
    empty = make_volume(labels=np.zeros(volume.labels.shape, dtype=np.uint8))
    with pytest.raises(RoiError, match=r"sub-01.*empty"):
        score_of(empty, Prediction("sub-01", 1.0, np.empty(0, np.float32), "m"), ScoreSettings())
