"""The three tables as Arrow schemas: every column with its unit and description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from epvs_cohort.records import Scalar

#: Raised when a column changes its name, type or meaning.
SCHEMA_VERSION = 1

#: Key of the file metadata that holds tool version, protocol, model card and hashes as JSON.
METADATA_KEY = b"epvs_cohort"


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit (empty where it has none) and what it says."""

    name: str
    type: pa.DataType
    unit: str
    description: str

    def field(self) -> pa.Field:
        """Arrow field with unit and description in its metadata."""
        return pa.field(self.name, self.type, metadata={"unit": self.unit, "description": self.description})


_TEXT, _REAL, _WHOLE, _FLAG = pa.string(), pa.float64(), pa.int32(), pa.bool_()

_IDENTITY = (
    Column("scan", _TEXT, "", "Key of the scan: BIDS stem, else relative path without extension"),
    Column("subject", _TEXT, "", "Subject label, where the input tells it"),
    Column("session", _TEXT, "", "Session label, where the input tells it"),
    Column("path", _TEXT, "", "File or DICOM folder that was read"),
    Column("status", _TEXT, "", "ok, flagged (counted, but a quality measure is out of bounds) or failed"),
)

_COUNTS = (
    Column("count", _REAL, "lesions", "Real-valued count of the regression network, y-hat of Eq. 2"),
    Column("count_rounded", _WHOLE, "lesions", "max(0, floor(count + 0.5))"),
    Column("count_target", _TEXT, "", "What is counted: roi (whole region) or ac_slice (one axial slice)"),
    Column(
        "method", _TEXT, "", "Score that is thresholded, a to f; e is the heatmap, f heatmap plus intensities"
    ),
    Column("n_lesions", _WHOLE, "lesions", "Lesions located in the region of interest"),
    Column("n_left", _WHOLE, "lesions", "Located lesions in the left hemisphere"),
    Column("n_right", _WHOLE, "lesions", "Located lesions in the right hemisphere"),
)

_DETECTION = (
    Column(
        "n_lesions_ac", _WHOLE, "lesions", "Located lesions that touch the slice of the anterior commissure"
    ),
    Column(
        "threshold", _REAL, "score", "Components are those of score >= threshold; null where none is sought"
    ),
    Column(
        "threshold_how",
        _TEXT,
        "",
        "exact, nearest (the number jumped over the count or never reached it) or none (count 0)",
    ),
    Column("flags", pa.list_(pa.string()), "", "Quality measures out of bounds, each with value and bound"),
    Column("notes", pa.list_(pa.string()), "", "What was found and settled while the scan was read"),
    Column("stage", _TEXT, "", "Stage in which a failed scan failed"),
    Column("error_kind", _TEXT, "", "Kind of the failure, a short stable name"),
    Column("error_message", _TEXT, "", "What was found and what is legal"),
    Column("hint", _TEXT, "", "What can be done about it"),
    Column("seconds_prepare", _REAL, "s", "Time that preparing took, when the prepared volume was made"),
    Column("seconds_infer", _REAL, "s", "Time that prediction and detection took"),
    Column("voxel_i_mm", _REAL, "mm", "Edge length of a native voxel along i"),
    Column("voxel_j_mm", _REAL, "mm", "Edge length of a native voxel along j"),
    Column("voxel_k_mm", _REAL, "mm", "Edge length of a native voxel along k"),
    Column("scanner", _TEXT, "", "Manufacturer, model and field strength, where the input tells them"),
    Column("acquisition_date", _TEXT, "", "Date of acquisition, YYYY-MM-DD, where the input tells it"),
    Column(
        "grid_from_native",
        pa.list_(pa.float64()),
        "",
        "16 numbers, row by row: native RAS mm to 0-based voxel of the prepared grid",
    ),
    Column("input_sha256", _TEXT, "", "SHA-256 of the bytes that were read"),
    Column("protocol_id", _TEXT, "", "Hash of every setting of the protocol"),
    Column("model_id", _TEXT, "", "Hash of the model bundle"),
    Column("trained_on", _TEXT, "", "What the model was trained on, in words"),
)

LESION_COLUMNS = (
    Column("scan", _TEXT, "", "Key of the scan"),
    Column("lesion", _WHOLE, "", "Number of the lesion within the scan, 1 the highest score"),
    Column("i", _REAL, "voxel", "Centre, 0-based native voxel index, real-valued"),
    Column("j", _REAL, "voxel", "Centre, 0-based native voxel index, real-valued"),
    Column("k", _REAL, "voxel", "Centre, 0-based native voxel index, real-valued"),
    Column("x_mm", _REAL, "mm", "Centre, native RAS, to the right"),
    Column("y_mm", _REAL, "mm", "Centre, native RAS, to the front"),
    Column("z_mm", _REAL, "mm", "Centre, native RAS, upwards"),
    Column("mni_x_mm", _REAL, "mm", "Centre in MNI152 RAS through the affine or B-spline map"),
    Column("mni_y_mm", _REAL, "mm", "Centre in MNI152 RAS through the affine or B-spline map"),
    Column("mni_z_mm", _REAL, "mm", "Centre in MNI152 RAS through the affine or B-spline map"),
    Column("region", _TEXT, "", "Structure in which the centre lies, or other"),
    Column("hemisphere", _TEXT, "", "left or right"),
    Column("component_mm3", _REAL, "mm3", "Size of the thresholded component; depends on the threshold"),
    Column("peak_heat", _REAL, "heat", "Highest heat within the component"),
    Column("mean_heat", _REAL, "heat", "Mean heat within the component"),
    Column("in_ac_slice", _FLAG, "", "Touches the native axial slice of the anterior commissure"),
    Column("ac_x_mm", _REAL, "mm", "Centre of its cross-section with that slice, native RAS"),
    Column("ac_y_mm", _REAL, "mm", "Centre of its cross-section with that slice, native RAS"),
    Column("ac_z_mm", _REAL, "mm", "Centre of its cross-section with that slice, native RAS"),
)

QC_COLUMNS = (
    Column("scan", _TEXT, "", "Key of the scan"),
    Column("measure", _TEXT, "", "Name of the quality measure"),
    Column("value", _REAL, "", "Its value; the column unit says in what; null where unknown"),
    Column("unit", _TEXT, "", "Unit of value, low and high"),
    Column("low", _REAL, "", "Smallest value that passes; null where there is no such bound"),
    Column("high", _REAL, "", "Largest value that passes; null where there is no such bound"),
    Column("passed", _FLAG, "", "Within bounds; null where the value is unknown or there is no bound"),
)

#: Behind the covariates, where the run was given decisions about its scans.
DECISION_COLUMNS = (
    Column("decision", _TEXT, "", "What people decided: accept, doubt or reject; null where undecided"),
    Column("decision_reason", _TEXT, "", "Why"),
    Column("decision_initials", _TEXT, "", "Who decided"),
    Column("decision_comment", _TEXT, "", "What they wrote beside it"),
)

#: Columns of the part files that stay out of the tables: what a second start needs to know.
BOOKKEEPING_COLUMNS = (
    Column("n_by_region", pa.list_(_WHOLE), "lesions", "Lesions per region of the protocol, then other"),
    Column("plan_id", _TEXT, "", "Hash of all that the result depends on beyond the input"),
    Column("fingerprint", _TEXT, "", "Fingerprint of the prepared volume"),
    Column("input_state", _TEXT, "", "Size, mtime and inode of the input files, as JSON"),
)

#: Bookkeeping column of ``asked.parquet``: rows of parts below this number are stale.
VALID_FROM = "valid_from"

#: Filled from the run as a whole when tables are assembled, never stored per scan.
RUN_COLUMNS = ("protocol_id", "model_id", "trained_on", "count_target", "method")


def region_columns(regions: Sequence[str]) -> tuple[Column, ...]:
    """One column per region of the protocol, and one for lesions in none of them.

    >>> [column.name for column in region_columns(["putamen"])]
    ['n_putamen', 'n_other']
    """
    return tuple(
        Column(f"n_{name}", _WHOLE, "lesions", f"Located lesions in: {name}") for name in (*regions, "other")
    )


def counts_columns(regions: Sequence[str]) -> tuple[Column, ...]:
    """Columns of the table of counts, covariates apart, in their order."""
    return (*_IDENTITY, *_COUNTS, *region_columns(regions), *_DETECTION)


def reserved_names(regions: Sequence[str]) -> frozenset[str]:
    """Column names that a covariate must not have."""
    return frozenset(column.name for column in counts_columns(regions)) | {VALID_FROM}


def part_schema() -> pa.Schema:
    """Schema of one part file: one row per scan, its lesions and measures nested in it."""
    plain = [c for c in (*_IDENTITY, *_COUNTS, *_DETECTION) if c.name not in RUN_COLUMNS]
    nested = [
        pa.field(name, pa.list_(pa.struct([c.field() for c in columns if c.name != "scan"])))
        for name, columns in (("lesions", LESION_COLUMNS), ("qc", QC_COLUMNS))
    ]
    return pa.schema([*(c.field() for c in (*plain, *BOOKKEEPING_COLUMNS)), *nested])


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Arrow schema of some columns."""
    return pa.schema([column.field() for column in columns])


def covariate_type(values: Iterable[Scalar]) -> pa.DataType:
    """Narrowest Arrow type that holds all known values of a covariate.

    >>> covariate_type([1, None, 2.5]), covariate_type([1, "a"])
    (DataType(double), DataType(string))
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        return pa.bool_()
    if kinds and kinds <= {int}:
        return pa.int64()
    if kinds and kinds <= {int, float}:
        return pa.float64()
    return pa.string()


def covariate_table(rows: Sequence[Mapping[str, Scalar]]) -> pa.Table:
    """Covariates of the scans, in their order; a scan without one has null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays, fields = [], []
    for name in names:
        kind = covariate_type(row.get(name) for row in rows)
        values = [row.get(name) for row in rows]
        if pa.types.is_string(kind):
            values = [None if value is None else str(value) for value in values]
        arrays.append(pa.array(values, type=kind))
        fields.append(pa.field(name, kind, metadata={"unit": "", "description": "Covariate of the input"}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def keys_of(table: pa.Table) -> list[str]:
    """Scan keys of a table, in its order."""
    keys: list[str] = table.column("scan").to_pylist()
    return keys
