"""Parts are whole, later ones overrule earlier ones, and the tables are assembled from them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from epvs_cohort.data import part_rows
from epvs_cohort.data import parts as module
from epvs_cohort.data.cohort_tables import about_table, assemble, assembled, read_cohort, write_tables
from epvs_cohort.data.parts import OutputPaths, Parts
from epvs_cohort.data.tables import (
    LESION_COLUMNS,
    METADATA_KEY,
    QC_COLUMNS,
    counts_columns,
    covariate_table,
    keys_of,
    part_schema,
)
from epvs_cohort.errors import UsageError
from epvs_cohort.protocol import Protocol

RUN = {
    "run_id": "1",
    "protocol": Protocol().model_dump(mode="json"),
    "model": {"name": "test"},
    "protocol_id": "p",
    "model_id": "m",
    "trained_on": "nothing",
    "count_target": "roi",
    "method": "e",
}


def a_row(key: str, count: float | None = 2.0, n: int = 2) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(part_schema().names)
    lesion = {column.name: None for column in LESION_COLUMNS if column.name != "scan"}
    measure = {column.name: None for column in QC_COLUMNS if column.name != "scan"}
    row.update(scan=key, status="failed" if count is None else "ok", count=count, flags=[])
    row["lesions"] = [
        lesion | {"lesion": i + 1, "x_mm": float(i)} for i in range(n if count is not None else 0)
    ]
    row["qc"] = [] if count is None else [measure | {"measure": "snr", "value": 10.0, "unit": "ratio"}]
    row["n_by_region"] = None if count is None else [0, n, 0, 0, 0]
    return row


def asked(keys: list[str], valid_from: int = 1, **covariates: list[Any]) -> pa.Table:
    empty = pa.array([None] * len(keys), type=pa.string())
    valid = [valid_from] * len(keys)
    table = pa.table({"scan": keys, "subject": empty, "session": empty, "path": keys, "valid_from": valid})
    rows = [dict(zip(covariates, values, strict=True)) for values in zip(*covariates.values(), strict=True)]
    extra = covariate_table(rows)
    for name in extra.column_names:
        table = table.append_column(extra.schema.field(name), extra.column(name))
    return table


def test_the_newest_row_of_a_scan_counts(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts")
    assert parts.last_number == 0
    assert parts.read().num_rows == 0
    assert parts.write([a_row("b", 1.0), a_row("a", 2.0)]) == 1
    assert parts.write([a_row("b", 3.0)]) == 2
    rows = {row["scan"]: (row["count"], row["part_number"]) for row in parts.read().to_pylist()}
    assert rows == {"a": (2.0, 1), "b": (3.0, 2)}


def test_consolidating_keeps_the_rows_and_one_file(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    for count in (1.0, 2.0, 3.0):
        parts.write([a_row("a", count), a_row(f"only-{count}", count)])
    before = parts.read(["scan", "count"]).drop_columns(["part_number"]).sort_by("scan")
    assert parts.consolidate() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["base-00000003.parquet"]
    assert parts.read(["scan", "count"]).drop_columns(["part_number"]).sort_by("scan").equals(before)
    assert parts.write([a_row("a", 9.0)]) == 4
    assert parts.consolidate() == 4
    assert parts.consolidate() == 4


def test_a_base_overrules_parts_that_a_crash_left(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.write([a_row("a", 1.0)])
    stale = (tmp_path / "part-00000001.parquet").read_bytes()
    parts.write([a_row("a", 2.0)])
    parts.consolidate()
    (tmp_path / "part-00000001.parquet").write_bytes(stale)
    assert parts.read(["scan", "count"]).column("count").to_pylist() == [2.0]


def test_tables_hold_each_asked_scan_once_in_order_of_keys(tmp_path: Path) -> None:
    paths = OutputPaths.of(tmp_path / "counts.parquet")
    parts = Parts(paths.parts)
    parts.begin(RUN, asked(["c", "a", "b"], age=[70, None, 60]))
    parts.write([a_row("b", 3.0, n=3), a_row("unasked"), a_row("a", None), a_row("c", 1.0, n=1)])
    write_tables(paths, [assemble(parts)])
    scans, lesions = pd.read_parquet(paths.counts), pd.read_parquet(paths.lesions)
    assert scans["scan"].tolist() == ["a", "b", "c"]
    assert scans["status"].tolist() == ["failed", "ok", "ok"]
    assert scans["n_putamen"].tolist()[1:] == [3, 1]
    assert pd.isna(scans["n_putamen"][0])
    assert scans["age"].tolist()[1:] == [60, 70]
    assert pd.isna(scans["age"][0])
    assert lesions[["scan", "lesion"]].to_numpy().tolist() == [["b", 1], ["b", 2], ["b", 3], ["c", 1]]
    assert pd.read_parquet(paths.qc)["scan"].tolist() == ["b", "c"]


def test_rows_from_before_a_change_are_not_shown(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "counts.parts")
    parts.write([a_row("a", 1.0), a_row("b", 1.0)])
    parts.begin(RUN, asked(["a", "b"], valid_from=2))
    parts.write([a_row("b", 2.0)])
    cohort = read_cohort(tmp_path / "counts.parquet")
    assert cohort.scans["scan"].tolist() == ["b"]
    assert cohort.n_asked == 2
    assert not cohort.finished


def test_a_finished_run_reads_from_the_tables_alone(tmp_path: Path) -> None:
    paths = OutputPaths.of(tmp_path / "counts.parquet")
    parts = Parts(paths.parts)
    parts.begin(RUN, asked(["a"]))
    parts.write([a_row("a")])
    write_tables(paths, [assemble(parts)])
    parts.consolidate()
    for path in paths.parts.iterdir():
        path.unlink()
    cohort = read_cohort(paths.counts)
    assert cohort.finished
    assert cohort.about["model_id"] == "m"
    assert len(cohort.lesions) == 2


def test_every_column_says_its_unit_and_meaning(tmp_path: Path) -> None:
    paths = OutputPaths.of(tmp_path / "counts.parquet")
    parts = Parts(paths.parts)
    parts.begin(RUN, asked(["a"], age=[3]))
    parts.write([a_row("a")])
    write_tables(paths, [assemble(parts)])
    for path in (paths.counts, paths.lesions, paths.qc):
        schema = pq.read_schema(path)
        assert METADATA_KEY in schema.metadata
        for field in schema:
            assert field.metadata is not None, field.name
            assert field.metadata[b"description"], field.name
            assert b"unit" in field.metadata
    names = [column.name for column in counts_columns(Protocol().roi.regions)]
    assert pq.read_schema(paths.counts).names == [*names, "age"]


def test_files_that_are_no_tables_of_ours_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(UsageError, match=r"other\.parquet.*not a table"):
        about_table(other)
    other.write_text("no parquet")
    with pytest.raises(UsageError, match="not a readable Parquet"):
        about_table(other)
    with pytest.raises(UsageError, match="no run was begun"):
        read_cohort(tmp_path / "nothing.parquet")
    with pytest.raises(UsageError, match=r"\.parquet"):
        OutputPaths.of(tmp_path / "counts.csv")
    assert keys_of(pa.table({"scan": ["x"]})) == ["x"]


def test_rows_that_an_overwriting_start_made_stale_do_not_pass_for_new(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.write([a_row("a", 1.0), a_row("b", 1.0)])
    parts.write([a_row("a", 2.0)])
    parts.consolidate(stale_below=2)
    assert parts.read(["scan", "count"]).to_pylist() == [{"scan": "a", "count": 2.0, "part_number": 2}]


def test_many_parts_of_a_run_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 3)
    before = Parts(tmp_path)
    before.write([a_row("a", 1.0), a_row("stale", 1.0)])
    parts = Parts(tmp_path)
    parts.begin(RUN, asked(["a", "stale", *(f"n{n}" for n in range(9))], valid_from=2))
    most = 0
    for n in range(9):
        parts.write([a_row(f"n{n}", float(n)), a_row("a", 10.0 + n)])
        most = max(most, len(list(tmp_path.glob("part-*"))))
    assert most <= 4
    cohort = assemble(parts).counts.select(["scan", "count"]).to_pylist()
    assert {row["scan"]: row["count"] for row in cohort} == {
        "a": 18.0,
        **{f"n{n}": float(n) for n in range(9)},
    }
    assert set(parts.read(["scan"]).column("scan").to_pylist()) >= {"stale"}
    assert parts.write([a_row("last")]) == 11


def test_a_crash_between_putting_together_and_removing_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path)
    parts.begin(RUN, asked(["a", "b", "c"]))
    for key, count in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0)):
        parts.write([a_row(key, count)])
    wanted = assemble(parts)
    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", _crash)
        with pytest.raises(KeyboardInterrupt):
            parts.merge_new()
    assert len(parts.files()) == 4
    assert assemble(parts).counts.equals(wanted.counts)
    parts.merge_new()
    assert len(parts.files()) == 1
    assert assemble(parts).counts.equals(wanted.counts)


def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_tables_made_in_pieces_are_those_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = OutputPaths.of(tmp_path / "counts.parquet")
    parts, keys = Parts(paths.parts), [f"s{n:02d}" for n in range(11)]
    parts.begin(RUN, asked(keys, age=list(range(11))))
    for some in (keys[5:8], keys[:5], keys[8:]):
        parts.write([a_row(key, float(key[1:]), n=int(key[1:]) % 3) for key in reversed(some)])
    parts.consolidate()
    parts.write([a_row("s04", 40.0), a_row("s09", None)])
    whole = assemble(parts)
    monkeypatch.setattr(part_rows, "ROWS_AT_ONCE", 2)
    pieces = list(assembled(parts))
    assert [each.counts.num_rows for each in pieces] == [2, 2, 2, 2, 2, 1]
    write_tables(paths, pieces)
    for name in ("counts", "lesions", "qc"):
        assert pq.read_table(getattr(paths, name)).equals(getattr(whole, name))
    assert read_cohort(paths.counts).scans["count"].tolist()[4] == 40.0


def test_tables_once_opened_stay_what_they_were(tmp_path: Path) -> None:
    paths = OutputPaths.of(tmp_path / "counts.parquet")
    parts = Parts(paths.parts)
    parts.begin(RUN, asked(["a"]))
    parts.write([a_row("a", n=2)])
    write_tables(paths, assembled(parts))
    cohort = read_cohort(paths.counts)
    parts.write([a_row("a", n=5)])
    write_tables(paths, assembled(parts))
    assert (len(cohort.scans), len(cohort.lesions), len(cohort.qc)) == (1, 2, 1)
    assert len(read_cohort(paths.counts).lesions) == 5


def test_a_reader_meets_whole_rows_while_parts_are_put_into_one(tmp_path: Path) -> None:
    parts, over = Parts(tmp_path), threading.Event()
    parts.write([a_row("a", 1.0)])

    def work() -> None:
        for count in range(40):
            parts.write([a_row("b", float(count))])
            parts.consolidate()
        over.set()

    writer = threading.Thread(target=work)
    writer.start()
    looks = 0
    while not over.is_set():
        keys = keys_of(Parts(tmp_path).read(["scan"]))
        assert keys in (["a"], ["a", "b"])
        looks += 1
    writer.join()
    assert looks > 5


def test_a_reader_reads_anew_what_was_put_together_between_its_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path)
    parts.begin(RUN, asked(["a", "b", "c"]))
    for key, count in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        parts.write([a_row(key, count)])
    wanted, looked = assemble(parts), part_rows.newest_places

    def meanwhile(files: part_rows.Listed) -> pa.Table:
        places = looked(files)
        with monkeypatch.context() as once:
            once.setattr("epvs_cohort.data.cohort_tables.newest_places", looked)
            if len(parts.files()) > 1:
                parts.merge_new()
        return places

    monkeypatch.setattr("epvs_cohort.data.cohort_tables.newest_places", meanwhile)
    assert assemble(parts).counts.equals(wanted.counts)
    assert len(parts.files()) == 1
