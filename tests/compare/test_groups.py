"""Scans by a covariate: values, given bands, thirds, and what is no covariate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.compare.groups import MOST_GROUPS, Grouping, groups_of, order_of, thirds
from epvs_cohort.errors import UsageError


def test_given_edges_make_bands_that_begin_with_them() -> None:
    ages = pd.Series([59.9, 60.0, 69.0, 70.0, 88.0, np.nan])
    groups = groups_of(ages, Grouping.of("age=60,70"))
    assert groups == [
        "below 60",
        "60 to below 70",
        "60 to below 70",
        "70 and above",
        "70 and above",
        "unknown",
    ]
    assert order_of(groups[::-1], list(ages)[::-1]) == [
        "below 60",
        "60 to below 70",
        "70 and above",
        "unknown",
    ]


def test_a_number_with_many_values_is_cut_in_thirds() -> None:
    groups = groups_of(pd.Series(np.arange(9.0)), Grouping("icv"))
    assert groups == ["0 to 2"] * 3 + ["3 to 5"] * 3 + ["6 to 8"] * 3


def test_few_values_and_words_are_groups_of_their_own() -> None:
    assert groups_of(pd.Series([1.5, 3.0, None]), Grouping("field")) == ["1.5", "3", "unknown"]
    assert groups_of(pd.Series(["F", None, "M"]), Grouping("sex")) == ["F", "unknown", "M"]
    assert groups_of(pd.Series([True, False]), Grouping("smoker")) == ["True", "False"]


def test_scans_of_one_value_stay_in_one_third() -> None:
    assert thirds(np.array([4.0] * 8 + [9.0])) == ["4"] * 8 + ["9"]
    assert thirds(np.zeros(0)) == []


def test_different_numbers_never_share_a_group() -> None:
    dates = pd.Series([20240101 + n for n in range(9)])
    assert groups_of(dates, Grouping("date")) == [
        name
        for name in ("20240101 to 20240103", "20240104 to 20240106", "20240107 to 20240109")
        for _ in "abc"
    ]
    assert groups_of(pd.Series([1234567.0, 1234568.0, None]), Grouping("unit")) == [
        "1234567", "1234568", "unknown",
    ]  # fmt: skip
    assert groups_of(pd.Series([1000002.0, 1000004.0, 1000007.0]), Grouping("n", (1000003.0, 1000006.0))) == [
        "below 1000003", "1000003 to below 1000006", "1000006 and above",
    ]  # fmt: skip
    close = pd.Series([1 + n * 1e-9 for n in range(9)])
    assert len(set(groups_of(close, Grouping("ratio")))) == 3
    huge = pd.Series([1e17 + n * 1e3 for n in range(3)])
    assert len(set(groups_of(huge, Grouping("id")))) == 3


@pytest.mark.parametrize("text", ["", "=3", "age=", "age=70,60", "age=old", "age=60,60", "age=nan"])
def test_what_names_no_column_or_no_bands_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="rising numbers"):
        Grouping.of(text)


def test_bands_of_words_and_identifiers_are_refused() -> None:
    with pytest.raises(UsageError, match="holds no numbers"):
        groups_of(pd.Series(["F", "M"]), Grouping("sex", (1.0,)))
    with pytest.raises(UsageError, match="no scan has a value of it"):
        groups_of(pd.Series([None, None]), Grouping("age", (60.0,)))
    with pytest.raises(UsageError, match=f"{MOST_GROUPS + 1} values found, at most {MOST_GROUPS}"):
        groups_of(pd.Series([f"id{n}" for n in range(MOST_GROUPS + 1)]), Grouping("name"))
