"""The schemas hold what they promise, and their page in the documentation is theirs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from epvs_cohort.data.table_docs import tables_markdown
from epvs_cohort.data.tables import covariate_table, covariate_type, part_schema, reserved_names


def test_the_page_of_the_tables_is_written_from_the_schemas() -> None:
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    assert page.read_text(encoding="utf-8") == tables_markdown()


def test_covariates_take_the_narrowest_type_that_holds_them_all() -> None:
    assert covariate_type([True, None]) == pa.bool_()
    assert covariate_type([1, 2]) == pa.int64()
    assert covariate_type([1, 2.5]) == pa.float64()
    assert covariate_type([None, None]) == pa.string()
    table = covariate_table([{"age": 60, "sex": "F"}, {"age": None}, {"site": "007", "sex": 1}])
    assert table.to_pylist() == [
        {"age": 60, "sex": "F", "site": None},
        {"age": None, "sex": None, "site": None},
        {"age": None, "sex": "1", "site": "007"},
    ]


def test_reserved_names_cover_the_table_and_no_more() -> None:
    names = reserved_names(["putamen"])
    assert {"scan", "count", "n_putamen", "n_other", "trained_on"} <= names
    assert not {"age", "fingerprint", "lesions"} & names


def test_part_rows_nest_lesions_and_measures() -> None:
    schema = part_schema()
    assert pa.types.is_list(schema.field("lesions").type)
    assert "scan" not in [field.name for field in schema.field("qc").type.value_type]
