"""The page ``docs/tables.md``, written from the schemas so that it cannot differ from them."""

from __future__ import annotations

from collections.abc import Iterable

from epvs_cohort.data.tables import DECISION_COLUMNS, LESION_COLUMNS, QC_COLUMNS, Column, counts_columns
from epvs_cohort.protocol import Protocol

_HEAD = """# The three tables

`epvs-cohort run SCANS --out counts.parquet` writes `counts.parquet`, `counts.lesions.parquet` and
`counts.qc.parquet`. Each is readable alone by `pandas.read_parquet`; the unit and description below
stand in the metadata of each column, and the metadata of each file holds the version of the program,
the protocol, the model card and their hashes as JSON under the key `epvs_cohort`. Unknown is null,
never 0. Coordinates are RAS millimetres (x to the right, y to the front, z upwards).

This page is written by `python -m epvs_cohort.data.table_docs`.
"""


def tables_markdown() -> str:
    """Markdown page that describes every column of the three tables under the built-in protocol."""
    regions = Protocol().roi.regions
    return "\n".join(
        [
            _HEAD,
            _section("counts: one row per scan asked for, failures included", counts_columns(regions)),
            "After these come the covariates of the manifest or of `participants.tsv`.\n",
            _section("counts, last: where the run was given `--decisions`", DECISION_COLUMNS),
            _section("lesions: one row per located lesion", LESION_COLUMNS),
            _section("qc: one row per scan and quality measure", QC_COLUMNS),
        ]
    )


def _section(title: str, columns: Iterable[Column]) -> str:
    rows = [f"| `{c.name}` | {c.type} | {c.unit} | {c.description} |" for c in columns]
    return "\n".join(
        [f"## {title}", "", "| column | type | unit | meaning |", "|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(tables_markdown())
