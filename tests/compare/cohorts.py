"""Small tables as a run writes them, with chosen counts and lesions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from epvs_cohort.compare.evaluate import EvaluateSettings, Evaluation
from epvs_cohort.compare.resamples import Drawing
from epvs_cohort.data.cohort_tables import Cohort, Tables, read_cohort, write_tables
from epvs_cohort.data.counts import Reading
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.tables import (
    LESION_COLUMNS,
    METADATA_KEY,
    QC_COLUMNS,
    counts_columns,
    covariate_table,
    schema_of,
)
from epvs_cohort.geometry import FloatArray
from epvs_cohort.protocol import Protocol

#: A turned and shifted grid of the paper's spacing, so that voxels and mm differ, and axes too.
_TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
GRID_FROM_NATIVE: FloatArray = np.eye(4)
GRID_FROM_NATIVE[:3, :3] = np.diag(1.0 / np.array([0.49, 0.49, 0.8])) @ _TURN
GRID_FROM_NATIVE[:3, 3] = (80.0, 60.0, 40.0)


@dataclass(frozen=True)
class Row:
    """One scan of a table; ``lesions`` are native RAS mm, the surest first."""

    scan: str
    count: float | None
    subject: str | None = None
    session: str | None = None
    status: str = "ok"
    lesions: Sequence[Sequence[float]] = ()
    covariates: Mapping[str, Any] = field(default_factory=dict)
    scanner: str | None = "Maker One 3T"
    sha256: str | None = None


def write_cohort(path: Path, rows: Sequence[Row], target: str = "roi", **about: Any) -> Cohort:
    """Write the three tables of a run that counted these scans, and read them back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    protocol = Protocol().model_copy(update={"count_target": target})
    told = {
        "run_id": path.stem,
        "version": "0.1.0",
        "count_target": target,
        "protocol": protocol.model_dump(mode="json"),
        "protocol_id": "p" * 16,
        "model": {"name": "tiny", "limits": "Not for people."},
        "model_id": "m" * 16,
        "method": "f",
        "trained_on": "simulated windows",
        "compacted_through": 0,
        **about,
    }
    columns = counts_columns(protocol.roi.regions)
    counts = pa.Table.from_pylist([_count_row(row, target) for row in rows], schema=schema_of(columns))
    covariates = covariate_table([row.covariates for row in rows])
    for name in covariates.column_names:
        counts = counts.append_column(covariates.schema.field(name), covariates.column(name))
    lesions = pa.Table.from_pylist(
        [_lesion_row(row, n, target) for row in rows for n in range(len(row.lesions))],
        schema=schema_of(LESION_COLUMNS),
    )
    tables = {"counts": counts, "lesions": lesions, "qc": schema_of(QC_COLUMNS).empty_table()}
    marked = {
        name: table.replace_schema_metadata({METADATA_KEY: json.dumps({**told, "table": name}).encode()})
        for name, table in tables.items()
    }
    write_tables(OutputPaths.of(path), [Tables(**marked)])
    return read_cohort(path)


def _count_row(row: Row, target: str) -> dict[str, Any]:
    failed = row.status == "failed"
    return {
        "scan": row.scan,
        "subject": row.subject,
        "session": row.session,
        "path": f"/data/{row.scan}.nii.gz",
        "status": row.status,
        "count": row.count,
        "count_target": target,
        "method": "f",
        "flags": ["roi_snr 2 below 5"] if row.status == "flagged" else [],
        "notes": [],
        "error_message": f"{row.scan}.nii.gz: truncated" if failed else None,
        "scanner": row.scanner,
        "grid_from_native": None if failed else GRID_FROM_NATIVE.ravel().tolist(),
        "input_sha256": row.sha256,
    }


def _lesion_row(row: Row, n: int, target: str) -> dict[str, Any]:
    x, y, z = row.lesions[n]
    in_slice = target == "ac_slice"
    # The whole lesion reaches beyond the slice, so its centre lies elsewhere than that of the cross-section.
    offset = 5.0 if in_slice else 0.0
    found = {
        "scan": row.scan,
        "lesion": n + 1,
        **dict(zip(("x_mm", "y_mm", "z_mm"), (x, y, z + offset), strict=True)),
        **dict(zip(("mni_x_mm", "mni_y_mm", "mni_z_mm"), (x, y, z), strict=True)),
        "region": "putamen",
        "hemisphere": "left",
        "peak_heat": 1.0 - 0.1 * n,
        "mean_heat": 0.5,
        "in_ac_slice": in_slice,
    }
    if in_slice:
        found.update(zip(("ac_x_mm", "ac_y_mm", "ac_z_mm"), (x, y, z), strict=True))
    return found


SETTINGS = EvaluateSettings("roi", drawing=Drawing(1, 100))
AT = [[float(20 * n), 0.0, 0.0] for n in range(5)]

ROWS = [
    Row("a", 2.2, "1", lesions=AT[:2], covariates={"age": 61, "site": "N"}),
    Row("b", 3.4, "2", lesions=AT[:3], status="flagged", covariates={"age": 72, "site": "N"}),
    Row("c", 0.4, "3", covariates={"age": 55, "site": "S"}),
    Row("d", 5.0, "4", lesions=AT[:5], covariates={"age": 80, "site": "S"}),
    Row("e", None, "5", status="failed", covariates={"age": 58, "site": "S"}),
    Row("f", 4.0, "4", session="2", lesions=AT[:4], covariates={"age": 81, "site": "S"}),
    Row("g", 1.0, covariates={"age": None, "site": "N"}),
]
#: Of all scans but g, and of one more.
COUNTS = {"a": 2, "b": 4, "c": 0, "d": 4, "e": 2, "f": 4, "z": 1}
POINTS = {"a": AT[:2], "b": AT[:4], "d": [*AT[:3], [0.0, 50.0, 0.0]], "e": AT[:2], "z": AT[:1]}


def readings(counts: dict[str, int], reader: str = "") -> list[Reading]:
    return [Reading(key, reader, 1, count) for key, count in counts.items()]


def value(evaluation: Evaluation, kind: str, figure: str, *, by: str = "", group: str = "") -> float:
    table = evaluation.figures
    rows = table[
        (table["kind"] == kind)
        & (table["figure"] == figure)
        & (table["by"] == by)
        & (table["group"] == group)
    ]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def told(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    return {note.words: note.names for note in evaluation.notes}
