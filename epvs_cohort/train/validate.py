"""Whole volumes: scaling the last layer on counts, tuning method (f), and figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol as Structure

import numpy as np

from epvs_cohort.detect.lesions import detect
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.predict import Device, Predictor
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Detection, Prediction, PreparedVolume
from epvs_cohort.simulate.windows import LabelledVolume
from epvs_cohort.train.figures import CountFigures, MatchFigures, count_figures, match_points

_log = logging.getLogger(__name__)

#: Weights of the intensities that are tried for method (f); heat is divided by its usual peak.
SCORE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0)


class Pointed(Structure):
    """A volume whose lesions are known, such as `PointedVolume` or `simulate.windows.LabelledVolume`."""

    @property
    def volume(self) -> PreparedVolume:
        """The volume."""

    @property
    def points(self) -> FloatArray:
        """Centres of its lesions in voxels of the prepared grid, shape (N, 3); of the slice's, where that counts."""


@dataclass(frozen=True)
class PointedVolume:
    """A volume and the centres of its lesions in voxels of the prepared grid, shape (N, 3)."""

    volume: PreparedVolume
    points: FloatArray


@dataclass(frozen=True)
class ScoreTuning:
    """Method (f) tuned on points, and what (e) and (f) find at the count that the network gives.

    Attributes
    ----------
    weight : float
        Of the intensities.
    heat_scale : float
        Mean over scans of the highest heat.
    heatmap, combined : MatchFigures
        Methods (e) and (f).
    """

    weight: float
    heat_scale: float
    heatmap: MatchFigures
    combined: MatchFigures


def predict_volumes(
    bundle: Bundle, volumes: Sequence[LabelledVolume], device: Device = "cpu"
) -> list[Prediction]:
    """Predict simulated volumes.

    Raises
    ------
    ModelError
        A volume could not be predicted: the network is broken.
    """
    results = Predictor(bundle, device, precision="float32").predict([each.volume for each in volumes])
    predictions: list[Prediction] = []
    for result in results:
        if isinstance(result, PredictionError):
            raise ModelError(f"model {bundle.card.name!r} fails on a simulated volume: {result.message}")
        predictions.append(result)
    return predictions


def compare_counts(volumes: Sequence[LabelledVolume], predictions: Sequence[Prediction]) -> CountFigures:
    """Agreement of predicted with true counts."""
    return count_figures([each.count for each in volumes], [each.count for each in predictions])


def count_scale(volumes: Sequence[LabelledVolume], predictions: Sequence[Prediction]) -> float:
    """Factor s that brings s times the predicted counts nearest to the true ones, least squares.

    Windows are cut off where a volume goes on, so a network that is right on windows may be a few per cent off
    on volumes; one factor on w of Eq. 2 takes that up and leaves every heatmap's order as it is.
    """
    truth = np.array([each.count for each in volumes], dtype=np.float64)
    estimate = np.array([each.count for each in predictions], dtype=np.float64)
    below = float(estimate @ estimate)
    return float(truth @ estimate) / below if below > 0 else 1.0


def tune_score(
    volumes: Sequence[Pointed], predictions: Sequence[Prediction], protocol: Protocol
) -> ScoreTuning:
    """Choose the weight of method (f) that matches most lesions (highest F1, the smaller weight on ties).

    Where the count is that of the anterior commissure's slice, lesions are matched within it, by the centres of
    their cross-sections.
    """
    scale = float(np.mean([prediction.heat.max() for prediction in predictions]))
    scale = max(scale, float(np.finfo(np.float32).tiny))
    heatmap = _found(volumes, predictions, protocol, ScoreSettings())
    best_weight, best = 0.0, heatmap
    for weight in SCORE_WEIGHTS:
        figures = _found(volumes, predictions, protocol, ScoreSettings("f", scale, weight))
        _log.info(
            "method f, weight %.2f: sensitivity %.3f, false discovery rate %.3f",
            weight, figures.sensitivity, figures.false_discovery_rate,
        )  # fmt: skip
        if figures.f1 > best.f1:
            best_weight, best = weight, figures
    return ScoreTuning(best_weight, scale, heatmap, best)


def _found(
    volumes: Sequence[Pointed],
    predictions: Sequence[Prediction],
    protocol: Protocol,
    score: ScoreSettings,
) -> MatchFigures:
    true = found = matched = 0
    settings = protocol.detection.model_copy(update={"method": score.method})
    for each, prediction in zip(volumes, predictions, strict=True):
        detection = detect(each.volume, prediction, settings, protocol.count_target, score)
        centers = _centers(each.volume, detection, protocol)
        true += len(each.points)
        found += len(centers)
        matched += match_points(each.points, centers)
    return MatchFigures(true, found, matched)


def _centers(volume: PreparedVolume, detection: Detection, protocol: Protocol) -> FloatArray:
    if protocol.count_target == "roi":
        places = [lesion.grid_voxel for lesion in detection.lesions]
        return np.array(places, dtype=np.float64).reshape(-1, 3)
    places = [lesion.ac_mm for lesion in detection.lesions if lesion.ac_mm is not None]
    return apply_affine(volume.grid_from_native, np.array(places, dtype=np.float64).reshape(-1, 3))
