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
    scale = heat_scale([float(prediction.heat.max()) for prediction in predictions])
    pairs = zip(volumes, predictions, strict=True)
    return best_weight([try_weights(each, prediction, protocol, scale) for each, prediction in pairs], scale)


def heat_scale(highest: Sequence[float]) -> float:
    """What heat is divided by in method (f), from the highest heat of each scan: their mean, above 0.

    >>> heat_scale([1.0, 3.0])
    2.0
    """
    return max(float(np.mean(highest)), float(np.finfo(np.float32).tiny))


def try_weights(
    pointed: Pointed, prediction: Prediction, protocol: Protocol, scale: float
) -> tuple[MatchFigures, ...]:
    """What is found on a volume by method (e), and by (f) with each of `SCORE_WEIGHTS`."""
    scores = (ScoreSettings(), *(ScoreSettings("f", scale, weight) for weight in SCORE_WEIGHTS))
    return tuple(_found(pointed, prediction, protocol, score) for score in scores)


def best_weight(tried: Sequence[Sequence[MatchFigures]], scale: float) -> ScoreTuning:
    """Choose the weight of method (f) of the highest F1 over all volumes, the smaller one on ties.

    Parameters
    ----------
    tried : sequence of sequence of MatchFigures
        Of each volume, from `try_weights`.
    scale : float
        That they were tried with, from `heat_scale`.
    """
    heatmap, *sums = (
        MatchFigures(
            sum(each.true for each in column),
            sum(each.found for each in column),
            sum(each.matched for each in column),
        )
        for column in zip(*tried, strict=True)
    )
    best, chosen = heatmap, 0.0
    for weight, figures in zip(SCORE_WEIGHTS, sums, strict=True):
        _log.info(
            "method f, weight %.2f: sensitivity %.3f, false discovery rate %.3f",
            weight, figures.sensitivity, figures.false_discovery_rate,
        )  # fmt: skip
        if figures.f1 > best.f1:
            best, chosen = figures, weight
    return ScoreTuning(chosen, scale, heatmap, best)


def _found(
    pointed: Pointed, prediction: Prediction, protocol: Protocol, score: ScoreSettings
) -> MatchFigures:
    settings = protocol.detection.model_copy(update={"method": score.method})
    detection = detect(pointed.volume, prediction, settings, protocol.count_target, score)
    centers = _centers(pointed.volume, detection, protocol)
    return MatchFigures(len(pointed.points), len(centers), match_points(pointed.points, centers))


def _centers(volume: PreparedVolume, detection: Detection, protocol: Protocol) -> FloatArray:
    if protocol.count_target == "roi":
        places = [lesion.grid_voxel for lesion in detection.lesions]
        return np.array(places, dtype=np.float64).reshape(-1, 3)
    places = [lesion.ac_mm for lesion in detection.lesions if lesion.ac_mm is not None]
    return apply_affine(volume.grid_from_native, np.array(places, dtype=np.float64).reshape(-1, 3))
