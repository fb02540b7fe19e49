"""Rows of the part files: what one scan's outcome says, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epvs_cohort.cohort.order import RunOrder
from epvs_cohort.data.store import Stored
from epvs_cohort.data.tables import part_schema
from epvs_cohort.detect.threshold import rounded_count
from epvs_cohort.geometry import Grid
from epvs_cohort.protocol import Bounds
from epvs_cohort.records import AcquisitionFacts, Detection, Failure, Lesion, Prediction, QcValue

Row = dict[str, Any]


@dataclass(frozen=True)
class Counted:
    """All that is known of a scan once its lesions are found."""

    stored: Stored
    prediction: Prediction
    detection: Detection
    seconds_infer: float


def _empty(key: str) -> Row:
    row: Row = dict.fromkeys(part_schema().names)
    row.update(scan=key, flags=[], notes=[], lesions=[], qc=[])
    return row


def failure_row(failure: Failure, order: RunOrder) -> Row:
    """Row of a scan that has no count."""
    return _empty(failure.key) | {
        "status": "failed",
        "stage": failure.stage,
        "error_kind": failure.kind,
        "error_message": failure.message,
        "hint": failure.hint or None,
        f"seconds_{failure.stage}": failure.seconds,
        "plan_id": order.plan_id,
        **failure.known,
    }


def acquisition_columns(native: Grid, facts: AcquisitionFacts) -> Row:
    """What reading alone tells of a scan, as columns of the table of counts."""
    names = ("voxel_i_mm", "voxel_j_mm", "voxel_k_mm")
    columns: Row = dict(zip(names, native.spacing_mm, strict=True))
    return columns | {"scanner": facts.scanner, "acquisition_date": facts.acquisition_date}


def counted_row(counted: Counted, order: RunOrder) -> Row:
    """Row of a counted scan, flagged where a quality measure is out of bounds."""
    volume, provenance = counted.stored.volume, counted.stored.provenance
    protocol, detection = order.prepare.protocol, counted.detection
    excess = counted.prediction.count - detection.n_components
    measures = (*volume.quality, QcValue("count_minus_components", abs(excess), "lesions"))
    qc = [qc_row(item, protocol.quality.bounds.get(item.measure, Bounds())) for item in measures]
    flags = [flag_text(item) for item in qc if item["passed"] is False]
    return _empty(volume.key) | {
        "status": "flagged" if flags else "ok",
        "count": counted.prediction.count,
        "count_rounded": rounded_count(counted.prediction.count),
        **lesion_numbers(detection.lesions, protocol.roi.regions, known_ac=volume.ac is not None),
        "threshold": detection.threshold,
        "threshold_how": detection.threshold_how,
        "flags": flags,
        "notes": list(volume.notes),
        "seconds_prepare": provenance.seconds,
        "seconds_infer": counted.seconds_infer,
        **acquisition_columns(volume.native, volume.facts),
        "grid_from_native": volume.grid_from_native.ravel().tolist(),
        "input_sha256": provenance.input_sha256,
        "plan_id": order.plan_id,
        "fingerprint": provenance.fingerprint,
        "input_state": provenance.input_state,
        "lesions": [lesion_row(lesion) for lesion in detection.lesions],
        "qc": qc,
    }


def lesion_numbers(lesions: tuple[Lesion, ...], regions: tuple[str, ...], *, known_ac: bool) -> Row:
    """Lesions in all, by hemisphere, by region and in the AC slice (null where that slice is unknown)."""
    return {
        "n_lesions": len(lesions),
        "n_left": sum(lesion.hemisphere == "left" for lesion in lesions),
        "n_right": sum(lesion.hemisphere == "right" for lesion in lesions),
        "n_lesions_ac": sum(lesion.in_ac_slice is True for lesion in lesions) if known_ac else None,
        "n_by_region": [
            *(sum(lesion.region == region for lesion in lesions) for region in regions),
            sum(lesion.region not in regions for lesion in lesions),
        ],
    }


def lesion_row(lesion: Lesion) -> Row:
    """One lesion as columns of the table of lesions, the scan's key apart."""
    row: Row = {
        "lesion": lesion.number,
        "region": lesion.region or "other",
        "hemisphere": lesion.hemisphere,
        "component_mm3": lesion.component_mm3,
        "peak_heat": lesion.peak_heat,
        "mean_heat": lesion.mean_heat,
        "in_ac_slice": lesion.in_ac_slice,
    }
    row.update(zip(("i", "j", "k"), lesion.native_voxel, strict=True))
    row.update(zip(("x_mm", "y_mm", "z_mm"), lesion.native_mm, strict=True))
    row.update(zip(("mni_x_mm", "mni_y_mm", "mni_z_mm"), lesion.mni_mm, strict=True))
    row.update(zip(("ac_x_mm", "ac_y_mm", "ac_z_mm"), lesion.ac_mm or (None, None, None), strict=True))
    return row


def qc_row(item: QcValue, bounds: Bounds) -> Row:
    """One quality measure with its bounds and whether it passes."""
    return {
        "measure": item.measure,
        "value": item.value,
        "unit": item.unit,
        "low": bounds.low,
        "high": bounds.high,
        "passed": bounds.holds(item.value),
    }


def flag_text(row: Row) -> str:
    """Words for a measure out of bounds.

    >>> flag_text({"measure": "slice_thickness", "value": 5.5, "unit": "mm", "low": None, "high": 2.0})
    'slice_thickness 5.5 mm above 2 mm'
    """
    unit = f" {row['unit']}" if row["unit"] else ""
    low = row["low"] is not None and row["value"] < row["low"]
    side, bound = ("below", row["low"]) if low else ("above", row["high"])
    return f"{row['measure']} {row['value']:.4g}{unit} {side} {bound:.4g}{unit}"
