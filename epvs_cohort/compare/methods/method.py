"""What a method is: a rule that gives each voxel of a counted volume a score (paper, Sec. 3, Baseline Methods)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.model.bundle import ModelCard
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Method
from epvs_cohort.records import Float32Array, Prediction, PreparedVolume

#: ``fcn``: the paper's network. ``regression``: the same without the upsampling path.
Network = Literal["fcn", "regression"]

#: Networks in words.
NETWORK_WORDS: dict[Network, str] = {
    "fcn": "a network with the upsampling path",
    "regression": "a network without the upsampling path",
}


def network_of(card: ModelCard) -> Network:
    """Which of the paper's two networks a bundle is."""
    return "regression" if card.architecture.upsampling == "none" else "fcn"


@dataclass(frozen=True)
class Case:
    """One prepared volume and the count that a network gives it.

    Attributes
    ----------
    volume : PreparedVolume
    prediction : Prediction
        Count and heatmap of the method's own network.
    predictor : callable
        Gives that network, ready for volumes; called only where the method needs more than the prediction.
    score : ScoreSettings
        The weight of method (f); other methods need nothing of it.
    """

    volume: PreparedVolume
    prediction: Prediction
    predictor: Callable[[], Predictor]
    score: ScoreSettings


@dataclass(frozen=True)
class ScoreMethod:
    """One method: all that is thresholded differently.

    The threshold is settled by the count of the method's own network, by the one rule of `detect.threshold`.

    Attributes
    ----------
    letter : str
        As in the paper's Table 1.
    name : str
        As there, in words.
    network : {"fcn", "regression"}
        Whose count and maps it uses.
    score : callable
        From a `Case` to the scores at the N voxels of its mask in C order, shape (N,), float32; the higher, the more
        like a lesion. Raises `RoiError` or `PredictionError` where the volume cannot be scored.
    weighted : bool
        It needs a weight that is tuned on marked lesions.
    """

    letter: Method
    name: str
    network: Network
    score: Callable[[Case], Float32Array]
    weighted: bool = False
