"""Evaluation by covariates: of the table of counts, of participants, and the same bands for all figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.compare.evaluate import EvaluateInput, evaluate
from epvs_cohort.compare.groups import Grouping
from epvs_cohort.compare.readers import reader_counts
from epvs_cohort.data.manifest import Table
from epvs_cohort.errors import ManifestError, UsageError
from tests.compare.cohorts import AT, SETTINGS, Row, readings, told, value, write_cohort


def test_groups_are_of_covariates_and_of_the_status(given: EvaluateInput) -> None:
    asked = replace(SETTINGS, groupings=(Grouping("age", (60.0,)), Grouping("site")))
    found = evaluate(given, asked)
    assert value(found, "machine", "bias", by="age", group="below 60") == pytest.approx(0.4)
    assert value(found, "machine", "bias", by="age", group="60 and above") == pytest.approx(0.6 / 4)
    assert value(found, "machine", "bias", by="site", group="N") == pytest.approx(-0.2)
    assert value(found, "machine", "bias", by="status", group="flagged") == pytest.approx(-0.6)
    assert value(found, "lesions", "sensitivity", by="site", group="S") == pytest.approx(3 / 6)
    assert value(found, "machine", "mae", by="count, in thirds", group="0 to 2") == pytest.approx(0.3)
    with pytest.raises(UsageError, match=r"no such column; there are session, status, scanner, .* age, site"):
        evaluate(given, replace(SETTINGS, groupings=(Grouping("sex"),)))
    with pytest.raises(UsageError, match="age: given 2 times"):
        evaluate(given, replace(SETTINGS, groupings=(Grouping("age"), Grouping("age", (60.0,)))))
    with pytest.raises(UsageError, match="no such column"):
        evaluate(given, replace(SETTINGS, groupings=(Grouping("count_rounded"),)))


def test_bands_are_the_same_for_counts_and_lesions(tmp_path: Path) -> None:
    rows = [Row(f"s{n}", float(n), str(n), lesions=AT[:1], covariates={"age": 50 + n}) for n in range(12)]
    cohort = write_cohort(tmp_path / "ages.parquet", rows)
    # The first six were counted, the last five marked: too few values of either for bands of their own.
    counted = reader_counts(readings({f"s{n}": n for n in range(6)}), {})
    points = {f"s{n}": np.array(AT[:1]) for n in range(7, 12)}
    asked = replace(SETTINGS, groupings=(Grouping("age"),))
    figures = evaluate(EvaluateInput(cohort, counted, points), asked).figures
    of_age = figures[figures["by"] == "age"]
    assert of_age[of_age["kind"] == "machine"]["group"].unique().tolist() == ["50 to 53", "54 to 57"]
    lesions = of_age[of_age["kind"] == "lesions"].drop_duplicates("group")
    assert dict(zip(lesions["group"], lesions["scans"], strict=True)) == {
        "50 to 53": 1, "54 to 57": 1, "58 to 61": 4,
    }  # fmt: skip


def participants(*rows: Sequence[str]) -> Table:
    return Table(
        Path("people.tsv"),
        ("participant_id", "sex", "site"),
        tuple((n, tuple(row)) for n, row in enumerate(rows, 2)),
    )


def test_participants_bring_covariates_by_subject(given: EvaluateInput) -> None:
    people = participants(("sub-1", "F", "N"), ("2", "M", "N"), ("sub-3", "F", "n/a"), ("sub-4", "M", "S"))
    found = evaluate(replace(given, participants=people), replace(SETTINGS, groupings=(Grouping("sex"),)))
    assert value(found, "machine", "bias", by="sex", group="F") == pytest.approx(0.3)
    other = participants(("sub-1", "F", "S"))
    with pytest.raises(
        ManifestError, match=r"column site: 'S' for scan 'a', but the table of counts has 'N'"
    ):
        evaluate(replace(given, participants=other), SETTINGS)
    with pytest.raises(ManifestError, match="participant '1' stands twice"):
        evaluate(replace(given, participants=participants(("1", "F", "N"), ("sub-1", "F", "N"))), SETTINGS)


def test_participants_and_subjects_who_do_not_fit_are_named(given: EvaluateInput) -> None:
    people = participants(("sub-1", "F", "N"), ("2", "M", "N"), ("sub-3", "F", "S"), ("9", "M", "S"))
    notes = told(evaluate(replace(given, participants=people), SETTINGS))
    unknown = "subjects without a row in the table of participants, whose columns are unknown"
    assert notes[unknown] == ("4", "5", "g")
    assert notes["participants without a scan in the table of counts"] == ("9",)
    with pytest.raises(ManifestError, match=r"none of its 2 participants is a subject .* '001', .* as '1'"):
        evaluate(replace(given, participants=participants(("001", "F", "N"), ("002", "M", "N"))), SETTINGS)
