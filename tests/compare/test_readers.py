"""Counts of several readers: arranged by scan, compared on the scans that both counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.compare.readers import MACHINE, MEAN, comparisons, reader_counts, rivalries
from epvs_cohort.data.counts import Reading
from epvs_cohort.errors import CountsError

READINGS = (
    Reading("a", "ann", 1, 4), Reading("b", "ann", 1, 6), Reading("c", "ann", 1, 0),
    Reading("a", "ann late", 1, 5), Reading("b", "ann late", 1, 5),
    Reading("a", "bob", 1, 2), Reading("b", "bob", 1, 8), Reading("d", "bob", 1, 9),
)  # fmt: skip
MACHINE_COUNTS = pd.Series({"a": 3.5, "b": 7.5, "c": 0.5, "e": 1.0})


def test_a_later_reading_is_another_reading_of_the_same_reader() -> None:
    counts = reader_counts(READINGS, {"ann late": "ann"})
    assert counts.readers == ("ann", "bob")
    assert counts.numbers("ann") == (1, 2)
    assert counts.of("ann", 2).dropna().to_dict() == {"a": 5.0, "b": 5.0}
    # The mean is that of first readings, of those who counted a scan.
    assert counts.mean().to_dict() == {"a": 3.0, "b": 7.0, "c": 0.0, "d": 9.0}
    assert counts.reference == MEAN


def test_the_lowest_reading_there_is_stands_for_a_first_that_is_not_there() -> None:
    readings = [*READINGS, Reading("c", "bob", 3, 5), Reading("f", "ann late", 1, 7)]
    counts = reader_counts(readings, {"ann late": "ann"})
    assert counts.first("bob").dropna().to_dict() == {"a": 2.0, "b": 8.0, "c": 5.0, "d": 9.0}
    assert counts.mean().to_dict() == {"a": 3.0, "b": 7.0, "c": 2.5, "d": 9.0, "f": 7.0}
    assert counts.later() == ("f: ann, reading 2", "c: bob, reading 3")
    # No reading is compared with itself.
    machine = pd.Series(1.0, index=list("abcdf"))
    of_ann = rivalries(machine, counts)[0]
    assert (of_ann.rival, of_ann.scans) == ("ann, reading 2", ("a", "b"))
    only_late = reader_counts([Reading(key, "ann", 2, n) for n, key in enumerate("abc")], {})
    assert comparisons(machine, only_late)[0].scans == ("a", "b", "c")


def test_what_is_compared_is_what_both_counted() -> None:
    found = {
        (each.kind, each.names): each
        for each in comparisons(MACHINE_COUNTS, reader_counts(READINGS, {"ann late": "ann"}))
    }
    assert list(found) == [
        ("machine", (MACHINE, MEAN)),
        ("machine", (MACHINE, "ann")),
        ("machine", (MACHINE, "bob")),
        ("inter-reader", ("ann", "bob")),
        ("intra-reader", ("ann", "ann, reading 2")),
    ]
    assert found["machine", (MACHINE, MEAN)].scans == ("a", "b", "c")
    assert found["machine", (MACHINE, "bob")].ratings.tolist() == [[3.5, 2.0], [7.5, 8.0]]
    assert found["inter-reader", ("ann", "bob")].ratings.tolist() == [[4.0, 2.0], [6.0, 8.0]]
    assert found["intra-reader", ("ann", "ann, reading 2")].ratings.tolist() == [[4.0, 5.0], [6.0, 5.0]]


def test_one_reader_is_the_reference_and_three_are_compared_together() -> None:
    nameless = reader_counts([Reading("a", "", 1, 3), Reading("b", "", 1, 4)], {})
    assert nameless.reference == "reader"
    assert [each.names for each in comparisons(MACHINE_COUNTS, nameless)] == [(MACHINE, "reader")]
    three = comparisons(MACHINE_COUNTS, reader_counts(READINGS, {}))
    together = next(each for each in three if each.kind == "all readers")
    assert together.names == ("ann", "ann late", "bob")
    assert together.ratings.tolist() == [[4.0, 5.0, 2.0], [6.0, 5.0, 8.0]]


def test_rivals_are_judged_on_the_same_scans() -> None:
    found = rivalries(MACHINE_COUNTS, reader_counts(READINGS, {"ann late": "ann"}))
    assert [(each.reader, each.rival) for each in found] == [
        ("ann", "ann, reading 2"), ("ann", "bob"), ("bob", "ann"),
    ]  # fmt: skip
    # Reader, machine, rival; scan c has no second reading.
    np.testing.assert_array_equal(found[0].ratings, [[4, 3.5, 5], [6, 7.5, 5]])


@pytest.mark.parametrize(
    ("again", "words"),
    [
        ({"nobody": "ann"}, "reader 'nobody': not in the table of counts; there are ann, ann late, bob"),
        ({"bob": "cy"}, "reader 'cy': not in the table"),
        (
            {"ann late": "ann", "bob": "ann late"},
            "reader 'bob': said to be 'ann late', who is said to be 'ann'",
        ),
    ],
)
def test_names_that_lead_nowhere_are_refused(again: dict[str, str], words: str) -> None:
    with pytest.raises(CountsError, match=words):
        reader_counts(READINGS, again)


@pytest.mark.parametrize("name", [MACHINE, MEAN])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(CountsError, match=f"reader '{name}': stands for something else"):
        reader_counts([Reading("a", name, 1, 3)], {})


def test_a_reader_named_as_a_reading_of_another_is_refused() -> None:
    readings = [Reading("a", "A", n, 3) for n in (1, 2)]
    with pytest.raises(CountsError, match="'A, reading 2': stands for reading 2 of reader 'A'"):
        reader_counts([*readings, Reading("a", "A, reading 2", 1, 3)], {})
    assert reader_counts([*readings, Reading("a", "A, reading 3", 1, 3)], {}).readers == ("A", "A, reading 3")


def test_some_counts_without_a_reader_are_refused() -> None:
    with pytest.raises(CountsError, match="scan 'b' has a count without a reader"):
        reader_counts([Reading("a", "ann", 1, 3), Reading("b", "", 1, 4)], {})
