"""What is left to do: every scan asked for against what is committed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from epvs_cohort.cohort.infer_task import map_paths
from epvs_cohort.cohort.order import RunOrder, state_of
from epvs_cohort.data.decisions import Decision, decision_table
from epvs_cohort.data.parts import Parts
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.data.tables import VALID_FROM, covariate_table, keys_of
from epvs_cohort.errors import UnreadableError
from epvs_cohort.records import Scan

#: Rough bytes a scan takes in the store beyond its voxels: side-car and pictures.
_OVERHEAD_BYTES = 200_000


@dataclass(frozen=True)
class Plan:
    """Scans of a run by what is left to do with them.

    Attributes
    ----------
    todo : tuple of Scan
        To be done in this start: new, changed, or failed before.
    done : tuple of Scan
        Their committed rows still hold.
    prepared : int
        How many of ``todo`` have a prepared volume that seems to hold.
    store_bytes : int
        Disk that the rest of ``todo`` will take in the store.
    """

    todo: tuple[Scan, ...]
    done: tuple[Scan, ...]
    prepared: int
    store_bytes: int


def make_plan(scans: Sequence[Scan], order: RunOrder, parts: Parts) -> Plan:
    """Compare the scans asked for with the committed rows and the store."""
    todo, done = split(scans, order, parts)
    prepared = sum(_is_prepared(scan, order) for scan in todo)
    voxels = math.prod(order.prepare.protocol.grid.shape)
    # uint16 intensities and uint8 labels everywhere, float32 heat within a mask of about a quarter of the box.
    per_scan = voxels * 3 + voxels + _OVERHEAD_BYTES
    return Plan(todo, done, prepared, (len(todo) - prepared) * per_scan)


def split(scans: Sequence[Scan], order: RunOrder, parts: Parts) -> tuple[tuple[Scan, ...], tuple[Scan, ...]]:
    """Scans that are to be done, and those whose committed rows still hold; the store is not looked at."""
    committed = _committed(order, parts)
    fresh = not (order.prepare.anew or order.prepare.verify)
    todo: list[Scan] = []
    done: list[Scan] = []
    for scan in scans:
        holds = fresh and scan.key in committed and _state(scan) == committed[scan.key]
        (done if holds and _has_maps(scan, order) else todo).append(scan)
    return tuple(todo), tuple(done)


def _committed(order: RunOrder, parts: Parts) -> dict[str, str]:
    """State of the input of each scan that was counted as the order says."""
    # An overwriting start that was cut off has made all older rows stale.
    stale_below = (parts.run() or {}).get("stale_below", 0)
    rows = parts.read(["scan", "status", "plan_id", "input_state"])
    counted = pc.and_(
        pc.not_equal(rows.column("status"), "failed"), pc.equal(rows.column("plan_id"), order.plan_id)
    )
    rows = rows.filter(pc.and_(counted, pc.greater_equal(rows.column("part_number"), stale_below)))
    return dict(zip(keys_of(rows), rows.column("input_state").to_pylist(), strict=True))


def _state(scan: Scan) -> str | None:
    try:
        return state_of(scan)
    except UnreadableError:
        return None


def _has_maps(scan: Scan, order: RunOrder) -> bool:
    return order.infer.maps is None or all(path.is_file() for path in map_paths(order.infer.maps, scan.key))


def _is_prepared(scan: Scan, order: RunOrder) -> bool:
    if order.prepare.anew:
        return False
    known = PreparedStore(order.prepare.store).provenance(scan.key)
    return (
        known is not None
        and known.prepare_id == order.prepare.prepare_id
        and known.input_state == _state(scan)
    )


def asked_table(
    scans: Sequence[Scan], plan: Plan, first_new_part: int, decisions: Mapping[str, Decision] | None = None
) -> pa.Table:
    """Scans of the run with covariates and decisions; rows of parts below ``valid_from`` are stale."""
    done = {scan.key for scan in plan.done}
    table = pa.table(
        {
            "scan": pa.array([scan.key for scan in scans], type=pa.string()),
            "subject": pa.array([scan.subject for scan in scans], type=pa.string()),
            "session": pa.array([scan.session for scan in scans], type=pa.string()),
            "path": pa.array([str(scan.path) for scan in scans], type=pa.string()),
            VALID_FROM: pa.array([0 if s.key in done else first_new_part for s in scans], type=pa.int64()),
        }
    )
    added = [covariate_table([scan.covariates for scan in scans])]
    if decisions is not None:
        added.append(decision_table([scan.key for scan in scans], decisions))
    for columns in added:
        for name in columns.column_names:
            table = table.append_column(columns.schema.field(name), columns.column(name))
    return table


def left_out(parts: Parts, scans: Sequence[Scan]) -> int:
    """Committed scans that the present run does not ask for."""
    return len(set(keys_of(parts.read(["scan"]))) - {scan.key for scan in scans})
