"""One task: a batch of prepared volumes becomes rows of results."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib

from epvs_cohort.cohort.order import RunOrder
from epvs_cohort.cohort.prepare_task import make
from epvs_cohort.cohort.rows import Counted, Row, counted_row
from epvs_cohort.compare.methods.method import Case
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.data.files import whole_file
from epvs_cohort.data.picture_layers import lesion_layers
from epvs_cohort.data.pictures import lesion_pictures
from epvs_cohort.data.store import PreparedStore, Stored, folder_name
from epvs_cohort.detect.lesions import detect_scores, heat_volume
from epvs_cohort.detect.maps import native_maps
from epvs_cohort.errors import EpvsError, ModelError, PredictionError, StoreError
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import Precision, Predictor
from epvs_cohort.records import Prediction, Scan

_log = logging.getLogger(__name__)

MAP_ENDINGS = ("_heatmap.nii.gz", "_lesions.nii.gz")


@functools.lru_cache(maxsize=2)
def _predictor(model: str, model_id: str, device: str, precision: Precision) -> Predictor:
    bundle = load_bundle(model)
    if bundle.model_id != model_id:
        raise ModelError(f"{model}: holds model {bundle.model_id}, the run was started with {model_id}")
    # Threads are those that the cluster settings give the process.
    return Predictor(bundle, "cuda" if device == "cuda" else "cpu", precision=precision)


def _predictor_of(order: RunOrder) -> Predictor:
    settings = order.infer
    return _predictor(settings.model, settings.model_id, settings.device, settings.precision)


@dataclass(frozen=True)
class Ready:
    """A prepared scan that waits for prediction, with the fingerprint of the volume that is meant."""

    scan: Scan
    fingerprint: str


def infer(batch: Sequence[Ready], order: RunOrder) -> list[Row | EpvsError]:
    """Predict and detect a batch of prepared scans; an error stands in the place of its scan's row."""
    store = PreparedStore(order.prepare.store)
    scans = [item.scan for item in batch]
    stored: dict[str, Stored | EpvsError] = {item.scan.key: _load(store, item, order) for item in batch}
    usable = {key: item for key, item in stored.items() if isinstance(item, Stored)}
    predictions = _predict(store, usable, order)
    rows: list[Row | EpvsError] = []
    for scan in scans:
        item = stored[scan.key]
        answer = item if isinstance(item, EpvsError) else predictions[scan.key]
        if isinstance(answer, EpvsError) or isinstance(item, EpvsError):
            rows.append(
                answer if isinstance(answer, EpvsError) else PredictionError(f"{scan.path}: no answer")
            )
            continue
        try:
            rows.append(_finish(store, item, answer, order))
        except EpvsError as error:
            rows.append(error)
    return rows


def _load(store: PreparedStore, ready: Ready, order: RunOrder) -> Stored | EpvsError:
    try:
        stored = store.load(ready.scan.key)
        if stored.provenance.fingerprint == ready.fingerprint:
            return stored
    except StoreError as error:
        _log.warning("%s: %s; made again", ready.scan.key, error.message)
    # Flipped bytes, or another run's volume in its place: the input is still there, so it is made again.
    try:
        made = make(ready.scan, order.prepare)
        stored = store.load(ready.scan.key)
        if stored.provenance.fingerprint != made.fingerprint:
            raise StoreError(
                f"{ready.scan.path}: another run keeps replacing its prepared volume in {store.root}",
                hint="give runs with different protocols a --store each",
            )
        return stored
    except EpvsError as error:
        return error


def _predict(
    store: PreparedStore, stored: Mapping[str, Stored], order: RunOrder
) -> dict[str, tuple[Prediction, float] | EpvsError]:
    """Predictions with their seconds: kept ones where volume and model are the same, else new ones."""
    done: dict[str, tuple[Prediction, float] | EpvsError] = {}
    if not order.prepare.anew:
        for key, item in stored.items():
            kept = store.load_heat(key, order.infer.model_id, item.checksum)
            if kept is not None and kept.heat.shape[0] == int(item.volume.mask.sum()):
                done[key] = (kept, 0.0)
    missing = [key for key in stored if key not in done]
    if missing:
        began = time.perf_counter()
        answers = _predictor_of(order).predict([stored[key].volume for key in missing])
        seconds = (time.perf_counter() - began) / len(missing)
        for key, answer in zip(missing, answers, strict=True):
            if isinstance(answer, Prediction):
                store.save_heat(answer, stored[key].checksum)
                done[key] = (answer, seconds)
            else:
                done[key] = answer
    return done


def _finish(store: PreparedStore, item: Stored, answer: tuple[Prediction, float], order: RunOrder) -> Row:
    began = time.perf_counter()
    prediction, seconds = answer
    volume, protocol = item.volume, order.prepare.protocol
    score = order.infer.score
    scores = METHODS[score.method].score(Case(volume, prediction, lambda: _predictor_of(order), score))
    detection = detect_scores(volume, prediction, scores, protocol.detection, protocol.count_target)
    pictured = replace(volume, pictures=store.pictures(volume.key))
    heat = heat_volume(volume, prediction)
    layers = lesion_layers(pictured, heat, detection)
    store.add_pictures(volume.key, {**lesion_pictures(pictured, heat, detection), **layers})
    if order.infer.maps is not None:
        images = native_maps(volume, prediction, detection)
        for path, image in zip(map_paths(order.infer.maps, volume.key), images, strict=True):
            _save(image, path)
    return counted_row(Counted(item, prediction, detection, seconds + time.perf_counter() - began), order)


def map_paths(folder: Path, key: str) -> tuple[Path, Path]:
    """Files of the heatmap and the lesion labels of a scan."""
    heat, lesions = (folder / f"{folder_name(key)}{ending}" for ending in MAP_ENDINGS)
    return heat, lesions


def _save(image: nib.Nifti1Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        # nibabel takes the format from the name.
        named = temporary.with_name(temporary.name + ".nii.gz")
        nib.save(image, named)
        named.rename(temporary)
