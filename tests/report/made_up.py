"""Tables of a made-up run, written the way a run writes them: two scanners, drift, failures, flags and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Pillow

import epvs_cohort
from epvs_cohort.cohort.rows import flag_text, qc_row
from epvs_cohort.data.cohort_tables import Cohort, assemble, read_cohort, write_tables
from epvs_cohort.data.parts import OutputPaths, Parts
from epvs_cohort.data.picture_layers import LAYERS
from epvs_cohort.data.pictures import encode, grey_panel
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.data.tables import VALID_FROM, part_schema
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import QcValue

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;\u202e\u2028 é'
SCANNERS = ("Maker One 3T", "Maker Two 1.5T")
#: Measure, unit, middle and spread.
MEASURES = (
    ("slice_thickness_mm", "mm", 0.8, 0.0),
    ("similarity_affine", "nats", 0.3, 0.02),
    ("similarity_rigid", "nats", 0.25, 0.02),
    ("roi_volume_left_mm3", "mm3", 11000.0, 900.0),
    ("roi_volume_right_mm3", "mm3", 11200.0, 900.0),
    ("roi_asymmetry", "share", 0.05, 0.01),
    ("csf_wm_ratio", "ratio", 1.8, 0.1),
    ("roi_snr", "ratio", 25.0, 3.0),
    ("roi_cnr", "ratio", 20.0, 2.0),
    ("sharpness", "1/mm", 0.13, 0.01),
    ("foreground_background_ratio", "ratio", 90.0, 9.0),
    ("mask_bright_share", "share", 0.08, 0.01),
)


@dataclass(frozen=True)
class MadeUp:
    """What is made up: every ``failed_every``-th scan failed, every ``flagged_every``-th has thick slices."""

    scans: int
    seed: int = 1
    failed_every: int = 10
    flagged_every: int = 7
    pictures: bool = True
    covariates: bool = True
    hostile: bool = False
    asked_more: int = 0
    more_measures: int = 0


def write_made_up(out: Path, plan: MadeUp) -> Cohort:
    """Write parts, tables and pictures of a made-up run, and read the cohort back."""
    paths = OutputPaths.of(out)
    rng = np.random.default_rng(plan.seed)
    keys = [f"sub-{n:04d}_PDw" for n in range(1, plan.scans + 1)]
    if plan.hostile:
        keys[0] = HOSTILE
    rows = [_row(key, n, plan, rng) for n, key in enumerate(keys, start=1)]
    parts = Parts(paths.parts)
    parts.begin(_about(), _asked([*keys, *(f"later-{n}" for n in range(plan.asked_more))], plan))
    parts.write(rows)
    # A run writes its tables when it ends; until then they are read from the parts.
    if not plan.asked_more:
        write_tables(paths, [assemble(parts)])
    if plan.pictures:
        _write_pictures(
            PreparedStore(paths.store), [row["scan"] for row in rows if row["status"] != "failed"]
        )
    return read_cohort(out)


def _about() -> dict[str, Any]:
    protocol = Protocol()
    return {
        "run_id": "made-up",
        "tool": "epvs-cohort",
        "version": epvs_cohort.__version__,
        "protocol": protocol.model_dump(mode="json"),
        "model": {"name": "tiny", "limits": "Not for people."},
        "protocol_id": protocol.protocol_id,
        "model_id": "m" * 16,
        "atlas_id": "a" * 12,
        "trained_on": "simulated windows only",
        "count_target": "roi",
        "method": "f",
    }


def _asked(keys: Sequence[str], plan: MadeUp) -> pa.Table:
    rng = np.random.default_rng(plan.seed + 1)
    columns: dict[str, Any] = {
        "scan": keys,
        "subject": [f"{n:04d}" for n in range(len(keys))],
        "session": pa.array([None] * len(keys), type=pa.string()),
        "path": [f"/data/{key}.nii.gz" for key in keys],
        VALID_FROM: [0] * len(keys),
    }
    if plan.covariates:
        columns["age"] = rng.integers(45, 90, len(keys))
        columns["sex"] = rng.choice(["F", "M"], len(keys))
    return pa.table(columns)


def _row(key: str, n: int, plan: MadeUp, rng: np.random.Generator) -> dict[str, Any]:
    second = n % 2 == 0
    row: dict[str, Any] = dict.fromkeys(part_schema().names)
    date = np.datetime64("2015-01-01") + n * 2200 // plan.scans
    row.update(
        scan=key,
        flags=[],
        notes=[],
        lesions=[],
        qc=[],
        scanner=SCANNERS[int(second)],
        acquisition_date=str(date),
    )
    if n % plan.failed_every == 0:
        words = "truncated file: 12 of 90 MB" if n % 20 else "registration: similarity 0.02 is below 0.03"
        kind, stage = ("unreadable", "read") if n % 20 else ("registration", "prepare")
        return row | {
            "status": "failed",
            "stage": stage,
            "error_kind": kind,
            "error_message": f"{key}: {words}",
            "hint": "copy the file anew" if n % 20 else "look at its orientation",
        }
    count = float(rng.gamma(2.0, 6.0 if second else 4.0))
    qc = _measures(n, plan, rng)
    flags = [flag_text(item) for item in qc if item["passed"] is False]
    lesions = [_lesion(number, rng) for number in range(1, int(count + 0.5) + 1)]
    left = sum(lesion["hemisphere"] == "left" for lesion in lesions)
    return row | {
        "status": "flagged" if flags else "ok",
        "count": count,
        "count_rounded": int(count + 0.5),
        "n_lesions": len(lesions),
        "n_left": left,
        "n_right": len(lesions) - left,
        "n_lesions_ac": sum(lesion["in_ac_slice"] for lesion in lesions),
        "n_by_region": [0, len(lesions), 0, 0, 0],
        "threshold": 0.5,
        "threshold_how": "exact",
        "flags": flags,
        "grid_from_native": np.eye(4).ravel().tolist(),
        "input_sha256": f"{n:064d}",
        "lesions": lesions,
        "qc": qc,
    }


def _measures(n: int, plan: MadeUp, rng: np.random.Generator) -> list[dict[str, Any]]:
    bounds, found = Protocol().quality.bounds, []
    for name, unit, middle, spread in MEASURES:
        value = middle + spread * float(rng.standard_normal())
        if name == "slice_thickness_mm" and n % plan.flagged_every == 0:
            value = 5.5
        if name == "roi_snr":
            value -= 6.0 * n / plan.scans  # A coil that fails slowly.
        found.append(qc_row(QcValue(name, value, unit), bounds.get(name, _OPEN)))
    # As of a scan that brings no outline of its own.
    found.append(qc_row(QcValue("roi_entropy_inside", 0.2, "nats"), _OPEN))
    found += [qc_row(QcValue(f"more_{at}", rng.normal(), "ratio"), _OPEN) for at in range(plan.more_measures)]
    return found


_OPEN = Protocol().quality.bounds["roi_snr"].model_copy(update={"low": None, "high": None})


def _lesion(number: int, rng: np.random.Generator) -> dict[str, Any]:
    side = "left" if rng.random() < 0.5 else "right"
    x = (-26.0 if side == "left" else 26.0) + 3.0 * float(rng.standard_normal())
    y, z = (float(at) for at in (2.0, 0.0) + 5.0 * rng.standard_normal(2))
    lesion = dict.fromkeys(("i", "j", "k", "x_mm", "y_mm", "z_mm"), 10.0) | {"lesion": number}
    return lesion | {
        "mni_x_mm": x,
        "mni_y_mm": y,
        "mni_z_mm": z,
        "region": "putamen",
        "hemisphere": side,
        "component_mm3": 9.0,
        "peak_heat": 0.01,
        "mean_heat": 0.005,
        "in_ac_slice": bool(abs(z + 4.5) < 1.0),
        "ac_x_mm": None,
        "ac_y_mm": None,
        "ac_z_mm": None,
    }


def _layers() -> dict[str, bytes]:
    """Layers of one slice and of the planes, as counting stores them."""
    clear = encode(Pillow.new("RGBA", (168, 128), (200, 80, 30, 90)))
    marks = {"lesions": [[1, 60.0, 40.0]], "heat": "layer_0_heat.webp"}
    view = {
        "title": "AC",
        "slice": 31,
        "size": [168, 128],
        "under": "slice_031.webp",
        "lines": "layer_0_lines.webp",
    }
    planes = {"under": "roi_plain.webp", "outline": "roi.webp", "size": [112, 84]}
    layers = {"slices": [view | marks], "planes": planes | marks}
    grey = encode(Pillow.new("RGB", (56, 42), (90, 90, 90)))
    return {
        "layer_0_heat.webp": clear,
        "layer_0_lines.webp": clear,
        "roi_plain.webp": grey,
        "registration_plain.webp": grey,
        LAYERS: json.dumps(layers).encode(),
    }


def _write_pictures(store: PreparedStore, keys: Sequence[str]) -> None:
    shades = np.tile(np.arange(84, dtype=np.uint8)[:, None] * 3, (1, 112))
    picture = encode(grey_panel(shades, (112, 84)))
    slices = [encode(grey_panel(np.full((128, 168), 40 + 8 * n, np.uint8), (168, 128))) for n in range(20)]
    for n, key in enumerate(keys):
        store.folder(key).mkdir(parents=True, exist_ok=True)
        pictures = dict.fromkeys(("roi.webp", "registration.webp", "lesions_ac.webp"), picture)
        # Of an earlier version, which stored no layers; every fifth scan has them.
        pictures |= _layers() if n % 5 == 0 else {}
        # The middle one of three is at the anterior commissure.
        around = {f"slice_{k:03d}.webp": slices[n % 20] if k == 31 else slices[0] for k in (30, 31, 32)}
        store.add_pictures(key, pictures | around)
