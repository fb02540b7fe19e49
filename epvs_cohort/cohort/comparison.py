"""A comparison of methods: each is tried on each test scan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from epvs_cohort.cohort.comparison_models import Model
from epvs_cohort.compare.method_table import curve_thresholds
from epvs_cohort.compare.methods.method import Network
from epvs_cohort.compare.trial import MarkedScan, Trial, TriedScan, try_scan
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.model.predict import Device
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.simulate.workers import in_order
from epvs_cohort.train.points import Points, lesions_of
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.test_split import ThreeParts

#: Scans that are tried once more, before all, to place the thresholds of the curves.
PILOTS: Final = 6

#: What is done with the scans, for those who watch.
PLACED: Final = "looked at to place the thresholds of the curves"
TRIED: Final = "tried by every method"

#: Told what is done with scans, with how many it is, of how many.
Watch = Callable[[str, int, int], None]


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


def marked_scans(samples: Sequence[Sample], points: Points) -> tuple[MarkedScan, ...]:
    """The samples whose lesions are known."""
    known = ((sample, lesions_of(sample, points)) for sample in samples)
    return tuple(
        MarkedScan(sample.key, sample.subject, sample.folder.parent, places)
        for sample, places in known
        if places is not None
    )


def processes(order: ComparisonOrder, scans: int) -> int:
    """Processes that so many scans are shared out to."""
    return 1 if order.device == "cuda" else max(1, min(order.n_procs, scans))


def trial_of(order: ComparisonOrder, score: ScoreSettings) -> Trial:
    """What is tried on each scan; the thresholds of the curves are still to come."""
    models = {network: model.where for network, model in order.models.items()}
    return Trial(order.methods, models, order.protocol, score, device=order.device)


def try_methods(
    order: ComparisonOrder, score: ScoreSettings, watch: Watch = lambda _what, _done, _of: None
) -> tuple[tuple[TriedScan, ...], Trial]:
    """Try every method on every marked test scan.

    Parameters
    ----------
    order : ComparisonOrder
    score : ScoreSettings
        The weight of method (f), from `comparison_weight.settle_weight`.
    watch : callable

    Returns
    -------
    tuple of TriedScan, Trial
        In the order of the test scans; and the trial with the thresholds of its curves.
    """
    scans = marked_scans(order.parts.test, order.points)
    trial = trial_of(order, score)
    first = _tried(scans[:: max(1, -(-len(scans) // PILOTS))], trial, order, (PLACED, watch))
    trial = replace(trial, thresholds=curve_thresholds(first, trial))
    return tuple(_tried(scans, trial, order, (TRIED, watch))), trial


def _tried(
    scans: Sequence[MarkedScan], trial: Trial, order: ComparisonOrder, told: tuple[str, Watch]
) -> list[TriedScan]:
    what, watch = told
    found: list[TriedScan] = []
    watch(what, 0, len(scans))
    for tried in in_order(functools.partial(try_scan, trial=trial), scans, processes(order, len(scans))):
        found.append(tried)
        watch(what, len(found), len(scans))
    return found
