"""All methods by letter. A further one is a file here, a line below and a letter in `protocol.Method`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from epvs_cohort.compare.methods import (
    intensities,
    intensities_and_fcn,
    regression,
    regression_fcn,
    saliency,
    saliency_fcn,
)
from epvs_cohort.compare.methods.method import NETWORK_WORDS, ScoreMethod, network_of
from epvs_cohort.detect.score import ScoreSettings, resolve_score
from epvs_cohort.errors import ModelError
from epvs_cohort.model.bundle import ModelCard
from epvs_cohort.protocol import Method

_ALL: Final = (intensities, saliency, saliency_fcn, regression, regression_fcn, intensities_and_fcn)

METHODS: Final[Mapping[Method, ScoreMethod]] = {module.METHOD.letter: module.METHOD for module in _ALL}


def methods_of(card: ModelCard) -> tuple[Method, ...]:
    """Letters of the methods that a bundle can do."""
    tuned = card.heat_scale is not None and card.score_weight is not None
    return tuple(
        letter
        for letter, method in METHODS.items()
        if method.network == network_of(card) and (tuned or not method.weighted)
    )


def settled_method(asked: Literal["auto"] | Method, card: ModelCard) -> ScoreSettings:
    """Settle the method that is asked for with a bundle.

    ``auto`` is (f) where the bundle has a weight for it, else (e); (d) where it has no upsampling path.

    Raises
    ------
    ModelError
        The bundle cannot do the method.
    """
    if asked == "auto" and network_of(card) == "regression":
        return ScoreSettings("d")
    if asked == "auto":
        return resolve_score("auto", card.heat_scale, card.score_weight)
    method = METHODS[asked]
    if method.network != network_of(card):
        raise ModelError(
            f"method {asked}: {method.name} needs {NETWORK_WORDS[method.network]}; model {card.name!r} is "
            f"{NETWORK_WORDS[network_of(card)]}",
            hint=f"methods that this model can do: {', '.join(methods_of(card))}",
        )
    if asked in ("e", "f"):
        return resolve_score(asked, card.heat_scale, card.score_weight)
    return ScoreSettings(asked)
