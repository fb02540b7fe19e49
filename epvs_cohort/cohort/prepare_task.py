"""One task: a scan becomes a prepared volume in the store, or the one that is there still holds."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

from epvs_cohort.cohort.order import PrepareOrder, side_files, state_of
from epvs_cohort.cohort.rows import acquisition_columns
from epvs_cohort.data.files import sweep
from epvs_cohort.data.identity import sha256_of
from epvs_cohort.data.images import read_image
from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.errors import ModelError
from epvs_cohort.model.roi_bundle import load_roi_pair
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.roi import roi_way
from epvs_cohort.prepare.scan import prepare_scan
from epvs_cohort.prepare.segmented import Looks
from epvs_cohort.protocol import digest
from epvs_cohort.records import PreparedRef, Scalar, Scan


def prepare(scan: Scan, order: PrepareOrder, known: dict[str, Scalar]) -> PreparedRef:
    """Prepare a scan unless the store holds it, made from the same bytes under the same settings.

    Parameters
    ----------
    scan : Scan
        What to prepare.
    order : PrepareOrder
        How.
    known : dict
        Filled with what is known of the scan as the work goes on, for the row of a scan that fails.

    Raises
    ------
    ScanError
        The scan cannot be read, registered or outlined.
    """
    store = PreparedStore(order.store)
    sweep(store.folder(scan.key))
    earlier = store.provenance(scan.key)
    wanted = _provenance(scan, order, earlier)
    known["input_sha256"] = wanted.input_sha256
    if earlier is not None and not order.anew and earlier.fingerprint == wanted.fingerprint:
        if earlier != wanted:
            store.restate(scan.key, wanted)
        return _ref(store, scan, wanted, reused=True)
    return _make(scan, order, wanted, known)


def make(scan: Scan, order: PrepareOrder) -> PreparedRef:
    """Prepare a scan and store it in place of whatever is there."""
    return _make(scan, order, _provenance(scan, order, None), {})


def _make(scan: Scan, order: PrepareOrder, wanted: Provenance, known: dict[str, Scalar]) -> PreparedRef:
    store = PreparedStore(order.store)
    began = time.perf_counter()
    image = read_image(scan.path, order.protocol.input)
    known.update(acquisition_columns(image.grid, image.facts))
    volume = prepare_scan(scan, image, order.protocol, _looks(scan, order))
    made = replace(wanted, seconds=time.perf_counter() - began)
    store.save(volume, made)
    return _ref(store, scan, made, reused=False)


def _looks(scan: Scan, order: PrepareOrder) -> Looks | None:
    if order.roi_model_id is None or roi_way(scan, order.protocol) != "network":
        return None
    roi = order.protocol.roi
    return _loaded_looks(roi.head_model, roi.near_model, order.roi_model_id)


@functools.lru_cache(maxsize=1)
def _loaded_looks(head_model: str | None, near_model: str | None, model_id: str) -> Looks:
    pair = load_roi_pair(head_model, near_model)
    if pair.model_id != model_id:
        raise ModelError(
            f"the networks that outline are {pair.model_id}, the run was started with {model_id}",
            hint="every worker must see the bundles that roi.head_model and roi.near_model name, unchanged",
        )
    # Preparation is CPU work, and in float32: the outline is then the same on every worker.
    return Looks(Segmenter(pair.head).segment, Segmenter(pair.near).segment_around)


def _ref(store: PreparedStore, scan: Scan, made: Provenance, *, reused: bool) -> PreparedRef:
    return PreparedRef(
        key=scan.key,
        path=store.folder(scan.key),
        fingerprint=made.fingerprint,
        input_sha256=made.input_sha256,
        seconds=made.seconds,
        reused=reused,
    )


def _provenance(scan: Scan, order: PrepareOrder, known: Provenance | None) -> Provenance:
    state = state_of(scan)
    if known is not None and known.input_state == state and not order.verify:
        input_sha256, sides = known.input_sha256, known.side_sha256
    else:
        input_sha256 = sha256_of(scan.path)
        sides = {name: sha256_of(path) for name, path in side_files(scan)}
    prepare_id = order.prepare_id
    made_from = {"prepare": prepare_id, "input": input_sha256, "sides": sides, "ac_slice": scan.ac_slice}
    return Provenance(
        fingerprint=digest(made_from),
        prepare_id=prepare_id,
        input_path=str(scan.path),
        input_state=state,
        input_sha256=input_sha256,
        side_sha256=sides,
        seconds=known.seconds if known is not None else 0.0,
    )
