"""Lesions of one counted scan against its truth, by each method; what ``heldout.py`` sums up."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epvs_cohort.compare.bootstrap import IndexArray, bootstrap
from epvs_cohort.compare.matching import MatchFigures, match_points, pool_matches, summarize_matches
from epvs_cohort.data.ac_slab import BoolArray, ac_slab
from epvs_cohort.data.store import PreparedStore, Stored
from epvs_cohort.detect.lesions import detect
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import PredictionError, RoiError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.model.bundle import Bundle, load_bundle
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import CountTarget, Protocol
from epvs_cohort.records import AcSlice, Detection, Prediction, PreparedVolume

#: Where lesions are compared: the whole region, the slice as the program finds it, and the true slice, as a
#: manifest's ``ac_slice`` would name it.
PLACES = ("roi", "ac", "ac_given")
#: Heatmap, heatmap plus intensities, and intensities alone at the true count (the difficulty of the cohort).
METHODS = ("e", "f", "a")


@dataclass(frozen=True)
class LesionTruth:
    """Lesions of one scan as they were simulated.

    Attributes
    ----------
    points_mm : ndarray, shape (N, 3)
        Centres, native RAS.
    crossings_mm : ndarray, shape (C, 3)
        Centres of the cross-sections with the slice of the commissure, native RAS.
    ac : AcSlice or None
        That slice.
    """

    points_mm: FloatArray
    crossings_mm: FloatArray
    ac: AcSlice | None


@dataclass(frozen=True)
class Job:
    """One scan to measure; ``counted`` is False where the run failed on it."""

    key: str
    store: Path
    model: str
    protocol: Protocol
    truth: LesionTruth
    counted: bool


@dataclass
class ScanLesions:
    """What came out of one scan.

    Attributes
    ----------
    figures : dict
        Place and method, for example ``("roi", "f")``, to matches.
    slices_off : int or None
        By how many slices the program's slice of the commissure is off the true one.
    notes : list of str
        What could not be measured, and why; its lesions count as missed.
    """

    key: str
    figures: dict[tuple[str, str], MatchFigures] = field(default_factory=dict)
    slices_off: int | None = None
    notes: list[str] = field(default_factory=list)


def lesion_measures(jobs: Sequence[Job], subjects: Sequence[str], n_procs: int, seed: int) -> dict[str, Any]:
    """Sensitivity, false discovery rate and false positives a scan, by place and method, with intervals."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        n_procs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        scans = list(pool.map(measure_scan, jobs))
    names = list(scans[0].figures)
    off = [scan.slices_off for scan in scans if scan.slices_off is not None]
    return {
        "measures": {
            f"{place} {method}": _summary(scans, (place, method), subjects, seed) for place, method in names
        },
        "ac_slices_off": {
            "scans": len(off),
            "mean": float(np.mean(off)) if off else None,
            "mean_absolute": float(np.mean(np.abs(off))) if off else None,
            "greatest": int(np.max(np.abs(off))) if off else None,
        },
        "notes": {scan.key: scan.notes for scan in scans if scan.notes},
    }


def _summary(
    scans: Sequence[ScanLesions], name: tuple[str, str], subjects: Sequence[str], seed: int
) -> dict[str, Any]:
    own = [scan.figures[name] for scan in scans]

    def interval(rate: Callable[[MatchFigures], float]) -> dict[str, Any]:
        return asdict(bootstrap(subjects, lambda rows: rate(_pooled(own, rows)), seed=seed))

    summary = summarize_matches(own)
    return {
        **asdict(summary),
        "mean_true": summary.pooled.true / len(own),
        "sensitivity": interval(lambda sums: sums.sensitivity if sums.true else float("nan")),
        "false_discovery_rate": interval(
            lambda sums: sums.false_discovery_rate if sums.found else float("nan")
        ),
        "false_positives": interval(lambda sums: (sums.found - sums.matched) / len(own)),
        "f1": summary.pooled.f1,
    }


def _pooled(own: Sequence[MatchFigures], rows: IndexArray) -> MatchFigures:
    return pool_matches([own[row] for row in rows])


def methods_of(bundle: Bundle, target: CountTarget) -> list[tuple[str, str]]:
    """Places and methods that a bundle can be measured on."""
    with_weight = bundle.card.score_weight is not None
    places = PLACES if target == "roi" else PLACES[1:]
    return [(place, method) for place in places for method in METHODS if method != "f" or with_weight]


def measure_scan(job: Job) -> ScanLesions:
    """Compare the lesions of one scan with its truth, by each method."""
    bundle = _bundle(job.model)
    out = ScanLesions(job.key)
    names = methods_of(bundle, job.protocol.count_target)
    out.figures.update({name: _missed(job.truth, name[0]) for name in names})
    if not job.counted:
        out.notes.append("failed; its lesions count as missed")
        return out
    stored = PreparedStore(job.store).load(job.key)
    own = stored.volume
    given = replace(own, ac=job.truth.ac)
    if own.ac is not None and job.truth.ac is not None and own.ac.axis == job.truth.ac.axis:
        out.slices_off = own.ac.index - job.truth.ac.index
    prediction = _prediction(stored, job)
    counted = {"roi": (own, prediction), "ac": (own, prediction), "ac_given": (given, prediction)}
    if job.protocol.count_target == "ac_slice" and given.ac != own.ac and given.ac is not None:
        # A network that counts within the slice gives another slice another count.
        counted["ac_given"] = (given, _predicted(bundle, given))
    for place, method in names:
        volume, its_prediction = counted[place]
        try:
            centers = _found(volume, its_prediction, job, (place, method))
        except RoiError as error:
            out.notes.append(f"{place} {method}: {error.message}")
            continue
        truth = apply_affine(volume.grid_from_native, _truth_mm(job.truth, place))
        out.figures[place, method] = MatchFigures(len(truth), len(centers), match_points(truth, centers))
    return out


def _found(volume: PreparedVolume, prediction: Prediction, job: Job, name: tuple[str, str]) -> FloatArray:
    """Centres of found lesions, (M, 3) voxels of the prepared grid: whole ones, or their cross-sections."""
    place, method = name
    settings = job.protocol.detection.model_copy(update={"method": "auto"})
    target, score = job.protocol.count_target, ScoreSettings()
    if method == "a":
        # The brightest components, as many as there are, where they are counted.
        target = "roi" if place == "roi" else "ac_slice"
        n = len(_truth_mm(job.truth, place))
        prediction = Prediction(volume.key, float(n), volume.intensities[volume.mask], "intensities")
    elif method == "f":
        card = _bundle(job.model).card
        if card.heat_scale is None or card.score_weight is None:
            raise ValueError(f"model {card.name!r} has no weight for method f")
        score = ScoreSettings("f", card.heat_scale, card.score_weight)
    detection = detect(volume, prediction, settings, target, score)
    if place == "roi":
        return _points(lesion.grid_voxel for lesion in detection.lesions)
    slab = ac_slab(volume)
    if slab is None:
        raise RoiError(f"{volume.key}: the scan has no slice through the anterior commissure")
    return _cross_sections(detection, slab)


def _cross_sections(detection: Detection, slab: BoolArray) -> FloatArray:
    inside = np.where(slab, detection.component_labels, 0)
    numbers = np.unique(inside[inside > 0])
    return _points(np.argwhere(inside == number).mean(axis=0) for number in numbers)


def _points(points: Iterable[tuple[float, float, float]] | Iterable[FloatArray]) -> FloatArray:
    return np.array(list(points), dtype=np.float64).reshape(-1, 3)


def _truth_mm(truth: LesionTruth, place: str) -> FloatArray:
    return truth.points_mm if place == "roi" else truth.crossings_mm


def _missed(truth: LesionTruth, place: str) -> MatchFigures:
    return MatchFigures(len(_truth_mm(truth, place)), 0, 0)


def _prediction(stored: Stored, job: Job) -> Prediction:
    """Heat of the store; where another model's run has replaced it, predicted again."""
    bundle = _bundle(job.model)
    kept = PreparedStore(job.store).load_heat(job.key, bundle.model_id, stored.checksum)
    if kept is not None:
        return kept
    return _predicted(bundle, stored.volume)


def _predicted(bundle: Bundle, volume: PreparedVolume) -> Prediction:
    (found,) = Predictor(bundle, threads=1).predict([volume])
    if isinstance(found, PredictionError):
        raise found
    return found


@lru_cache(maxsize=2)
def _bundle(model: str) -> Bundle:
    return load_bundle(model)
