"""Every method on one scan: what it finds at the threshold that its network's count sets, and at other thresholds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.compare.matching import MATCH_VOXELS, MatchFigures, match_points
from epvs_cohort.compare.methods.method import Case, Network
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.data.ac_slab import ac_slab
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.detect.forest import BoolArray, Connectivity, component_counts
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.detect.threshold import Settled, choose_threshold, rounded_count, settle_threshold
from epvs_cohort.errors import EpvsError, PredictionError, RoiError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import Device, Predictor
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.records import Float32Array, Prediction, PreparedVolume

#: A scan proposes thresholds of the curves for up to this many times the highest count of any method's network, and for
#: up to so many marks in any case: a network that counts low must not cut its own curve short.
_BEYOND, _LEAST = 4.0, 24


@dataclass(frozen=True)
class Trial:
    """What is tried on each scan.

    Attributes
    ----------
    methods : tuple of str
        Letters, in the order of the table.
    models : mapping of str to str
        Name or folder of the bundle of each network that these methods need.
    protocol : Protocol
    score : ScoreSettings
        The weight of method (f).
    thresholds : mapping of str to tuple of float
        Those of each method's curve, the same for all scans, descending; empty for a proposal.
    device : {"cpu", "cuda"}
    """

    methods: tuple[Method, ...]
    models: Mapping[Network, str]
    protocol: Protocol
    score: ScoreSettings = field(default_factory=ScoreSettings)
    thresholds: Mapping[Method, tuple[float, ...]] = field(default_factory=dict)
    device: Device = "cpu"


@dataclass(frozen=True)
class MarkedScan:
    """A prepared scan whose lesions are known.

    Attributes
    ----------
    store : Path
        Root of the prepared store that holds it.
    points_mm : ndarray, shape (N, 3)
        Its lesions, native RAS; those of the slice of the anterior commissure where that is counted.
    """

    key: str
    subject: str
    store: Path
    points_mm: FloatArray


@dataclass(frozen=True)
class Tried:
    """One method on one scan.

    Attributes
    ----------
    count : float
        Of the method's network.
    settled : Settled
        The threshold that this count sets.
    figures : MatchFigures
        What it finds there.
    curve : tuple of MatchFigures
        At each of the trial's thresholds.
    seconds : float
        Counting, scoring and settling the threshold, as if the method stood alone.
    proposed : tuple of float
        Thresholds for other numbers of marks, the same for all methods, where the trial has none.
    """

    count: float
    settled: Settled
    figures: MatchFigures
    curve: tuple[MatchFigures, ...]
    seconds: float
    proposed: tuple[float, ...] = ()


@dataclass(frozen=True)
class TriedScan:
    """All methods on one scan; ``fault`` says why there is nothing where a method could not be tried."""

    key: str
    subject: str
    n_true: int
    tried: Mapping[Method, Tried]
    fault: str = ""


@dataclass(frozen=True)
class Scored:
    """A scan as one method sees it.

    Attributes
    ----------
    scores : ndarray, shape (N,), float32
        At the N voxels of the mask in C order.
    settled : Settled
    seconds : float
    """

    prediction: Prediction
    scores: Float32Array
    settled: Settled
    seconds: float


@functools.lru_cache(maxsize=4)
def ready_predictor(model: str, device: Device) -> Predictor:
    """Predictor of a bundle by name or folder; loaded once a process."""
    # Every scan has a process of its own, so one thread each.
    return Predictor(load_bundle(model), device, threads=1 if device == "cpu" else None)


def try_scan(scan: MarkedScan, trial: Trial) -> TriedScan:
    """Try every method on a scan; a scan that cannot be used says why instead."""
    try:
        volume = PreparedStore(scan.store).load(scan.key).volume
        truth = apply_affine(volume.grid_from_native, scan.points_mm)
        scored = score_volume(volume, trial)
        highest = max(each.prediction.count for each in scored.values())
        numbers = () if trial.thresholds else marks_proposed(highest)
        tried = {
            letter: _tried(volume, truth, (trial, numbers), (letter, each)) for letter, each in scored.items()
        }
    except EpvsError as error:
        return TriedScan(scan.key, scan.subject, len(scan.points_mm), {}, error.message)
    return TriedScan(scan.key, scan.subject, len(truth), tried)


def score_volume(volume: PreparedVolume, trial: Trial) -> Mapping[Method, Scored]:
    """Scores of a volume by each method, and the threshold that the count of each method's network sets.

    Raises
    ------
    PredictionError, RoiError
        A method cannot be applied to this volume.
    """
    touching = slab_of(volume, trial.protocol)
    counted: dict[Network, tuple[Prediction, float]] = {}
    found: dict[Method, Scored] = {}
    for letter in trial.methods:
        method = METHODS[letter]
        get = functools.partial(ready_predictor, trial.models[method.network], trial.device)
        if method.network not in counted:
            counted[method.network] = _counted(volume, get)
        prediction, seconds = counted[method.network]
        began = time.perf_counter()
        scores = method.score(Case(volume, prediction, get, trial.score))
        n = rounded_count(prediction.count)
        connectivity = trial.protocol.detection.connectivity
        settled = settle_threshold(scores, volume.mask, n, connectivity, touching=touching)
        found[letter] = Scored(prediction, scores, settled, seconds + time.perf_counter() - began)
    return found


def slab_of(volume: PreparedVolume, protocol: Protocol) -> BoolArray | None:
    """Voxels of the slice that is counted in, shape (I, J, K); None where the whole region is.

    Raises
    ------
    RoiError
        The scan has no such slice.
    """
    if protocol.count_target == "roi":
        return None
    slab = ac_slab(volume)
    if slab is None:
        raise RoiError(f"{volume.key}: the scan has no slice through the anterior commissure")
    return slab


def _counted(volume: PreparedVolume, get: Callable[[], Predictor]) -> tuple[Prediction, float]:
    predictor = get()
    began = time.perf_counter()
    result = predictor.predict([volume])[0]
    if isinstance(result, PredictionError):
        raise result
    return result, time.perf_counter() - began


def marks_proposed(count: float) -> tuple[int, ...]:
    """Numbers of marks for which thresholds of a curve are proposed: by steps of a quarter, at least of one.

    >>> marks_proposed(7.0)
    (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 19, 24, 28)
    """
    most, found = max(_LEAST, round(_BEYOND * count)), [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(1.25 * found[-1]))))
    return tuple(found)


def _tried(
    volume: PreparedVolume,
    truth: FloatArray,
    how: tuple[Trial, tuple[int, ...]],
    scored: tuple[Method, Scored],
) -> Tried:
    (trial, numbers), (letter, each) = how, scored
    slab, connectivity = slab_of(volume, trial.protocol), trial.protocol.detection.connectivity

    def matched(threshold: float | None) -> MatchFigures:
        found = np.zeros((0, 3))
        if threshold is not None:
            found = centers_at(volume.mask, each.scores, threshold, slab=slab, connectivity=connectivity)
        return MatchFigures(len(truth), len(found), match_points(truth, found, MATCH_VOXELS))

    proposed: tuple[float, ...] = ()
    if numbers:
        counts = component_counts(each.scores, volume.mask, connectivity, touching=slab)
        settled = (choose_threshold(counts, n).threshold for n in numbers)
        proposed = tuple(threshold for threshold in settled if threshold is not None)
    return Tried(
        count=each.prediction.count,
        settled=each.settled,
        figures=matched(each.settled.threshold),
        curve=tuple(matched(threshold) for threshold in trial.thresholds.get(letter, ())),
        seconds=each.seconds,
        proposed=proposed,
    )


def centers_at(
    mask: BoolArray,
    scores: Float32Array,
    threshold: float,
    *,
    slab: BoolArray | None = None,
    connectivity: Connectivity = 26,
) -> FloatArray:
    """Centres of the components of {score >= threshold}, unweighted, in voxels of the prepared grid.

    Parameters
    ----------
    mask : ndarray, shape (I, J, K), bool
    scores : ndarray, shape (N,), float32
        At the N voxels of the mask in C order.
    threshold : float
    slab : ndarray, shape (I, J, K), bool, optional
        Only components with a voxel here, and of these the centre of what lies here.
    connectivity : {6, 18, 26}

    Returns
    -------
    ndarray, shape (M, 3)
        In no order that means anything.
    """
    components = components_at(mask, scores, threshold, connectivity)
    return centers_of(*components, slab=slab)[0]


def centers_of(
    voxels: npt.NDArray[np.intp], numbers: npt.NDArray[np.intp], *, slab: BoolArray | None = None
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Centres of components, (M, 3), and their numbers, (M,), ascending; see `components_at` and `centers_at`."""
    if slab is not None:
        here = slab[tuple(voxels.T)]
        voxels, numbers = voxels[here], numbers[here]
    sizes = np.bincount(numbers)
    there = np.flatnonzero(sizes)
    sums = [np.bincount(numbers, weights=voxels[:, axis])[there] for axis in range(3)]
    return np.asarray(np.stack(sums, axis=1) / sizes[there, None], dtype=np.float64), there


def components_at(
    mask: BoolArray, scores: Float32Array, threshold: float, connectivity: Connectivity = 26
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Voxels of {score >= threshold}, shape (V, 3), and the number from 1 of the component of each, shape (V,)."""
    above = np.zeros(mask.shape, dtype=np.bool_)
    above[mask] = scores >= np.float32(threshold)
    boxes = ndimage.find_objects(above.astype(np.uint8))
    if not boxes:
        return np.zeros((0, 3), dtype=np.intp), np.zeros(0, dtype=np.intp)
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    labels, _ = ndimage.label(above[boxes[0]], structure)
    within = np.nonzero(labels)
    corner = np.array([side.start for side in boxes[0]], dtype=np.intp)
    return np.stack(within, axis=1) + corner, labels[within].astype(np.intp)
