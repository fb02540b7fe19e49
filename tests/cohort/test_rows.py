"""What a scan's outcome says in its row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from epvs_cohort.cohort.order import InferOrder, PrepareOrder, RunOrder
from epvs_cohort.cohort.rows import failure_row, flag_text, lesion_numbers, qc_row
from epvs_cohort.cohort.tasks import failure_of
from epvs_cohort.data.tables import part_schema
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import RegistrationError
from epvs_cohort.protocol import Bounds, DetectionSettings, InputSettings, Protocol, TrimSettings
from epvs_cohort.records import Lesion, QcValue, Scan

SCAN = Scan("sub-01", Path("sub-01.nii.gz"))


def an_order(protocol: Protocol | None = None, model_id: str = "m", **infer: object) -> RunOrder:
    settings = ScoreSettings("f", 1.0, float(str(infer.get("weight", 0.5))))
    return RunOrder(PrepareOrder(protocol or Protocol(), Path("store")), InferOrder("m", model_id, settings))


def a_lesion(number: int, hemisphere: str, region: str | None, *, in_ac: bool | None) -> Lesion:
    at = (0.0, 0.0, 0.0)
    return Lesion(number, at, at, at, at, region, hemisphere, 1.0, 1.0, 1.0, in_ac, None)


def test_numbers_add_up() -> None:
    lesions = (
        a_lesion(1, "left", "putamen", in_ac=True),
        a_lesion(2, "right", "putamen", in_ac=False),
        a_lesion(3, "right", None, in_ac=True),
    )
    numbers = lesion_numbers(lesions, ("caudate", "putamen"), known_ac=True)
    assert numbers == {"n_lesions": 3, "n_left": 1, "n_right": 2, "n_lesions_ac": 2, "n_by_region": [0, 2, 1]}
    assert lesion_numbers(lesions, ("putamen",), known_ac=False)["n_lesions_ac"] is None


@pytest.mark.parametrize(
    ("value", "bounds", "passed", "text"),
    [
        (5.5, Bounds(high=2.0), False, "m 5.5 mm above 2 mm"),
        (0.5, Bounds(low=1.0), False, "m 0.5 mm below 1 mm"),
        (1.0, Bounds(low=1.0, high=1.0), True, None),
        (1.0, Bounds(), None, None),
        (None, Bounds(low=1.0), None, None),
    ],
)
def test_measures_are_judged_by_their_bounds(
    value: float | None, bounds: Bounds, passed: bool | None, text: str | None
) -> None:
    row = qc_row(QcValue("m", value, "mm"), bounds)
    assert row["passed"] is passed
    if text is not None:
        assert flag_text(row) == text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RegistrationError("no transform", hint="look"), "registration"),
        (MemoryError(), "out_of_memory"),
        (OSError(28, "No space left on device", "volume.nii"), "disk_full"),
        (ZeroDivisionError("x"), "bug"),
    ],
)
def test_every_error_becomes_a_row_that_names_the_scan(error: Exception, kind: str) -> None:
    failure = failure_of(SCAN, "prepare", error, 1.0)
    row = failure_row(failure, an_order())
    assert (row["scan"], row["status"], row["stage"], row["error_kind"]) == (
        "sub-01",
        "failed",
        "prepare",
        kind,
    )
    assert row["error_message"]
    assert row["count"] is None
    pa.Table.from_pylist([row], schema=part_schema())


def test_what_changes_a_result_changes_the_plan() -> None:
    base = an_order()
    trimmed = Protocol(trim=TrimSettings(fraction=0.02))
    connected = Protocol(detection=DetectionSettings(connectivity=6))
    assert an_order(trimmed).prepare.prepare_id != base.prepare.prepare_id
    assert an_order(connected).prepare.prepare_id == base.prepare.prepare_id
    assert len({base.plan_id, an_order(trimmed).plan_id, an_order(connected).plan_id}) == 3
    assert an_order(model_id="other").plan_id != base.plan_id


def test_what_changes_no_result_changes_no_plan() -> None:
    renamed = Protocol(name="other", description="other", input=InputSettings(max_gib=3.0))
    assert an_order(renamed).plan_id == an_order().plan_id
