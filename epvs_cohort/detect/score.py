"""What is thresholded: the heatmap, method (e), or heatmap plus intensities, method (f) (paper, Sec. 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from epvs_cohort.errors import ModelError, PredictionError, ProtocolError, RoiError
from epvs_cohort.protocol import Method
from epvs_cohort.records import Float32Array, Prediction, PreparedVolume


@dataclass(frozen=True)
class ScoreSettings:
    """How the score of a voxel is made of heat and intensity.

    Attributes
    ----------
    method : {"a", "b", "c", "d", "e", "f"}
        Only (e) and (f) are scored here; the others are in `compare.methods`.
    heat_scale : float
        Heat that counts as 1, positive; used by (f) only.
    weight : float
        Weight of the intensities, not negative; used by (f) only.

    Raises
    ------
    ModelError
        Scale or weight is not finite or out of range.
    """

    method: Method = "e"
    heat_scale: float = 1.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.heat_scale) and self.heat_scale > 0):
            raise ModelError(f"heat_scale of method f: {self.heat_scale} found, must be finite and above 0")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ModelError(f"weight of method f: {self.weight} found, must be finite and at least 0")


def resolve_score(
    method: Literal["auto", "e", "f"], heat_scale: float | None, weight: float | None
) -> ScoreSettings:
    """Settle the method; ``auto`` is (f) where the bundle has scale and weight, else (e).

    Raises
    ------
    ModelError
        Method (f) is asked for and the bundle has no scale or weight, or an illegal one.

    Examples
    --------
    >>> resolve_score("auto", None, None)
    ScoreSettings(method='e', heat_scale=1.0, weight=0.0)
    """
    if heat_scale is not None and weight is not None and method != "e":
        return ScoreSettings("f", heat_scale, weight)
    if method == "f":
        raise ModelError(
            f"method f: the model bundle has heat_scale {heat_scale} and weight {weight}; both must be set",
            hint="use method e, or a bundle whose weight was tuned",
        )
    return ScoreSettings()


def score_of(volume: PreparedVolume, prediction: Prediction, settings: ScoreSettings) -> Float32Array:
    """Score of each voxel of the mask.

    Method (e) is M; method (f) is M / heat_scale + weight x intensity.

    Returns
    -------
    ndarray, shape (N,), float32
        At the N voxels of the mask in C order.

    Raises
    ------
    RoiError
        The mask is empty.
    PredictionError
        The heatmap is not finite or does not fit the mask.
    ProtocolError
        The method is neither (e) nor (f).
    """
    if settings.method not in ("e", "f"):
        raise ProtocolError(f"score of method {settings.method!r}: legal here are 'e' and 'f'")
    mask = volume.mask
    heat = checked_heat(volume, prediction)
    if settings.method == "e":
        return heat
    intensities = volume.intensities[mask].astype(np.float32, copy=False)
    return heat / np.float32(settings.heat_scale) + np.float32(settings.weight) * intensities


def checked_heat(volume: PreparedVolume, prediction: Prediction) -> Float32Array:
    """Heat at the voxels of the mask, shape (N,), float32, after the checks that `score_of` names."""
    n_voxels = int(np.count_nonzero(volume.labels))
    if n_voxels == 0:
        raise RoiError(f"{volume.key}: the mask of the prepared volume is empty")
    if prediction.heat.shape != (n_voxels,):
        raise PredictionError(
            f"{volume.key}: the heatmap has shape {prediction.heat.shape}, the mask has {n_voxels} voxels"
        )
    if not np.isfinite(prediction.heat).all():
        raise PredictionError(f"{volume.key}: the heatmap is not finite everywhere")
    return np.asarray(prediction.heat, dtype=np.float32)
