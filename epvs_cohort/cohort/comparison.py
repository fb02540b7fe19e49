"""A comparison of methods: tune what needs tuning on validation scans, then try each method on each test scan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from epvs_cohort.cohort.comparison_models import Model
from epvs_cohort.compare.method_table import curve_thresholds
from epvs_cohort.compare.methods.method import Network
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.compare.trial import MarkedScan, Trial, TriedScan, try_scan
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.predict import Device, Predictor
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.records import Prediction
from epvs_cohort.simulate.workers import in_order
from epvs_cohort.train.counted_export import TUNED_SCANS
from epvs_cohort.train.material import stored_volume
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.test_split import ThreeParts
from epvs_cohort.train.validate import PointedVolume, tune_score

#: Scans that are tried once more, before all, to place the thresholds of the curves.
PILOTS: Final = 6

Points = Mapping[str, FloatArray]
#: Told how many scans are done, of how many.
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparisonOrder:
    """What is compared, on what.

    Attributes
    ----------
    methods : tuple of str
    models : mapping of str to Model
        Of each network that the methods need.
    parts : ThreeParts
        Its validation scans are tuned on, its test scans tried.
    points : mapping of str to ndarray, shape (N, 3)
        Native RAS mm of the lesions of each marked scan.
    protocol : Protocol
    n_procs : int
        Scans at the same time.
    device : {"cpu", "cuda"}
        With a GPU one scan at a time.
    """

    methods: tuple[Method, ...]
    models: Mapping[Network, Model]
    parts: ThreeParts
    points: Points
    protocol: Protocol
    n_procs: int = 1
    device: Device = "cpu"


@dataclass(frozen=True)
class Weight:
    """The weight of method (f), and in words where it is from."""

    score: ScoreSettings
    words: str


def lesions_of(sample: Sample, points: Points) -> FloatArray | None:
    """Lesions of a scan, native RAS mm; None where they are not known, which is not the same as none."""
    found = points.get(sample.key)
    if found is None and sample.count == 0 and points:
        return next(iter(points.values()))[:0]
    return found


def marked_scans(samples: Sequence[Sample], points: Points) -> tuple[MarkedScan, ...]:
    """The samples whose lesions are known."""
    known = ((sample, lesions_of(sample, points)) for sample in samples)
    return tuple(
        MarkedScan(sample.key, sample.subject, sample.folder.parent, places)
        for sample, places in known
        if places is not None
    )


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
    if not any(METHODS[letter].weighted for letter in methods):
        return
    if any(len(points.get(sample.key, ())) for sample in validation):
        return
    if bundle is None or bundle.card.score_weight is None:
        name = "the network is to be trained" if bundle is None else f"model {bundle.card.name!r} has none"
        raise ModelError(
            f"method f: its weight is tuned on marked lesions of validation scans; none is marked, and {name}",
            hint="mark some validation scans, or leave f out of --methods",
        )


def settle_weight(order: ComparisonOrder) -> Weight:
    """Settle the weight of method (f): tuned on marked validation scans, else the bundle's.

    A bundle that was trained in this comparison was tuned on the same scans already.

    Raises
    ------
    ModelError
        As `check_weight` does, or a validation scan cannot be counted.
    """
    if not any(METHODS[letter].weighted for letter in order.methods):
        return Weight(ScoreSettings(), "")
    model = order.models["fcn"]
    card = model.bundle.card
    kept = (
        None
        if card.heat_scale is None or card.score_weight is None
        else ScoreSettings("f", card.heat_scale, card.score_weight)
    )
    if kept is not None and model.own:
        return Weight(kept, "tuned on the validation scans when the network was trained")
    found = None if model.own else _tuned(order, model)
    if found is not None:
        return found
    if kept is None:
        raise ModelError(
            f"method f: no lesion of a validation scan is marked, and model {card.name!r} has no weight of its own"
        )
    return Weight(kept, f"that of model {card.name!r}")


def _tuned(order: ComparisonOrder, model: Model) -> Weight | None:
    validation = [sample for sample in order.parts.validation if lesions_of(sample, order.points) is not None]
    predictor = Predictor(model.bundle, order.device)
    volumes: list[PointedVolume] = []
    predictions: list[Prediction] = []
    for sample in validation[:TUNED_SCANS]:
        volume, places = stored_volume(sample), lesions_of(sample, order.points)
        prediction = predictor.predict([volume])[0]
        if isinstance(prediction, PredictionError):
            raise ModelError(f"model {model.where} fails on a validation scan: {prediction.message}")
        if places is not None:
            volumes.append(PointedVolume(volume, apply_affine(volume.grid_from_native, places)))
            predictions.append(prediction)
    if not any(len(each.points) for each in volumes):
        return None
    tuning = tune_score(volumes, predictions, order.protocol)
    return Weight(
        ScoreSettings("f", tuning.heat_scale, tuning.weight),
        f"tuned on {len(volumes)} validation scans",
    )


def trial_of(order: ComparisonOrder, weight: Weight) -> Trial:
    """What is tried on each scan; the thresholds of the curves are still to come."""
    models = {network: model.where for network, model in order.models.items()}
    return Trial(order.methods, models, order.protocol, weight.score, device=order.device)


def try_methods(
    order: ComparisonOrder, weight: Weight, watch: Watch = lambda _done, _of: None
) -> tuple[tuple[TriedScan, ...], Trial]:
    """Try every method on every marked test scan.

    Parameters
    ----------
    order : ComparisonOrder
    weight : Weight
        From `settle_weight`.
    watch : callable

    Returns
    -------
    tuple of TriedScan, Trial
        In the order of the test scans; and the trial with the thresholds of its curves.
    """
    scans = marked_scans(order.parts.test, order.points)
    trial = trial_of(order, weight)
    n_procs = 1 if order.device == "cuda" else min(order.n_procs, len(scans))
    pilots = scans[:: max(1, -(-len(scans) // PILOTS))]
    total = len(pilots) + len(scans)
    first: list[TriedScan] = []
    watch(0, total)
    for tried in in_order(functools.partial(try_scan, trial=trial), pilots, n_procs):
        first.append(tried)
        watch(len(first), total)
    trial = replace(trial, thresholds=curve_thresholds(first, trial))
    every: list[TriedScan] = []
    for tried in in_order(functools.partial(try_scan, trial=trial), scans, n_procs):
        every.append(tried)
        watch(len(first) + len(every), total)
    return tuple(every), trial
