"""The weight of method (f): tuned on marked validation scans, else that of the bundle."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from epvs_cohort.cohort.comparison import ComparisonOrder, Watch, marked_scans, processes
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.compare.trial import MarkedScan, ready_predictor
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.predict import Device
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.records import Prediction, PreparedVolume
from epvs_cohort.simulate.workers import in_order
from epvs_cohort.train.counted_export import TUNED_SCANS
from epvs_cohort.train.figures import MatchFigures
from epvs_cohort.train.points import Points, tuning_scans
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.validate import PointedVolume, best_weight, heat_scale, try_weights

#: What is done with the scans, for those who watch.
COUNTED: Final = "counted for the weight of method f"
WEIGHED: Final = "tried for the weight of method f"


@dataclass(frozen=True)
class Weight:
    """The weight of method (f), and in words where it is from."""

    score: ScoreSettings
    words: str


@dataclass(frozen=True)
class _Tuning:
    model: str
    device: Device
    protocol: Protocol
    scale: float = 1.0


def check_weight(
    methods: Sequence[Method], bundle: Bundle | None, validation: Sequence[Sample], points: Points
) -> None:
    """Check that there will be a weight for method (f), before networks are trained.

    Parameters
    ----------
    methods : sequence of str
    bundle : Bundle or None
        The FCN, or what it starts from; None is one that is to be trained from nothing.
    validation : sequence of Sample
    points : mapping of str to ndarray, shape (N, 3)

    Raises
    ------
    ModelError
        Method (f) is asked for, no lesion of a validation scan is marked, and the bundle has no weight.
    """
    if not _asked(methods) or tuning_scans(validation, points, TUNED_SCANS):
        return
    if bundle is None or bundle.card.score_weight is None:
        name = "the network is to be trained" if bundle is None else f"model {bundle.card.name!r} has none"
        raise ModelError(
            f"method f: its weight is tuned on marked lesions of validation scans; none is marked, and {name}",
            hint="mark some validation scans, or leave f out of --methods",
        )


def settle_weight(order: ComparisonOrder, watch: Watch = lambda _what, _done, _of: None) -> Weight:
    """Settle the weight of method (f): tuned here where a lesion of a validation scan is marked, else the bundle's.

    It is tuned on the marks of this comparison, whoever trained the bundle and whatever was marked then.

    Raises
    ------
    ModelError
        As `check_weight` does, or a validation scan cannot be counted.
    """
    if not _asked(order.methods):
        return Weight(ScoreSettings(), "")
    model = order.models["fcn"]
    check_weight(order.methods, model.bundle, order.parts.validation, order.points)
    scans = marked_scans(tuning_scans(order.parts.validation, order.points, TUNED_SCANS), order.points)
    if scans:
        return _tuned(order, scans, watch)
    card = model.bundle.card
    if card.heat_scale is None or card.score_weight is None:
        raise ModelError(f"method f: model {card.name!r} has no weight")
    # Positions are used on validation scans alone, so a network that was trained here without any kept its start's.
    words = (
        f"that of the model that {card.name!r} started from" if model.own else f"that of model {card.name!r}"
    )
    if "sensitivity_f" in card.validation:
        words = f"that of model {card.name!r}, tuned on marks that are not of this comparison"
    return Weight(ScoreSettings("f", card.heat_scale, card.score_weight), words)


def _asked(methods: Sequence[Method]) -> bool:
    return any(METHODS[letter].weighted for letter in methods)


def _tuned(order: ComparisonOrder, scans: Sequence[MarkedScan], watch: Watch) -> Weight:
    """Tune on scans, each on a process of its own; the scale of heat must be known of all before a weight is tried."""
    tuning = _Tuning(order.models["fcn"].where, order.device, order.protocol)
    n_procs = processes(order, len(scans))
    highest: list[float] = []
    watch(COUNTED, 0, len(scans))
    for heat in in_order(functools.partial(_highest, tuning=tuning), scans, n_procs):
        highest.append(heat)
        watch(COUNTED, len(highest), len(scans))
    tuning = replace(tuning, scale=heat_scale(highest))
    tried: list[tuple[MatchFigures, ...]] = []
    watch(WEIGHED, 0, len(scans))
    for figures in in_order(functools.partial(_weighed, tuning=tuning), scans, n_procs):
        tried.append(figures)
        watch(WEIGHED, len(tried), len(scans))
    best = best_weight(tried, tuning.scale)
    words = f"tuned on {len(scans)} marked validation scan{'' if len(scans) == 1 else 's'}"
    return Weight(ScoreSettings("f", best.heat_scale, best.weight), words)


def _highest(scan: MarkedScan, tuning: _Tuning) -> float:
    return float(_counted(scan, tuning)[1].heat.max())


def _weighed(scan: MarkedScan, tuning: _Tuning) -> tuple[MatchFigures, ...]:
    volume, prediction = _counted(scan, tuning)
    pointed = PointedVolume(volume, apply_affine(volume.grid_from_native, scan.points_mm))
    return try_weights(pointed, prediction, tuning.protocol, tuning.scale)


def _counted(scan: MarkedScan, tuning: _Tuning) -> tuple[PreparedVolume, Prediction]:
    volume = PreparedStore(scan.store).load(scan.key).volume
    found = ready_predictor(tuning.model, tuning.device).predict([volume])[0]
    if isinstance(found, PredictionError):
        raise ModelError(f"model {tuning.model} fails on a validation scan: {found.message}")
    return volume, found
