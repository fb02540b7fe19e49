"""Decisions about scans: read, and refused where they cannot be told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from epvs_cohort.data.decisions import Decision, decision_table, decisions_in, read_decisions
from epvs_cohort.errors import ManifestError


def write(folder: Path, text: str) -> Path:
    path = folder / "decisions.csv"
    path.write_text(text)
    return path


def test_decisions_are_read_with_their_words(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "scan,decision,reason,initials,comment,seconds\n"
        "a,reject,motion,AB,see k 40,12\nb,Accept,,AB,,3\nc,doubt,outline,CD,,9\n",
    )
    assert read_decisions(path) == {
        "a": Decision("reject", "motion", "AB", "see k 40"),
        "b": Decision("accept", "", "AB", ""),
        "c": Decision("doubt", "outline", "CD", ""),
    }


def test_people_who_agree_may_both_stand_there(tmp_path: Path) -> None:
    path = write(tmp_path, "scan,decision,initials\na,reject,AB\na,reject,CD\n")
    assert read_decisions(path) == {"a": Decision("reject", initials="AB")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan,verdict\na,reject\n", r"line 1: no column decision; found scan, verdict"),
        ("scan,decision\na,no\n", r"line 2: scan 'a': decision 'no'; accept, doubt, reject are legal"),
        ("scan,decision\n,reject\n", r"line 2: the scan has no name"),
        (
            "scan,decision,initials\na,reject,AB\na,accept,CD\n",
            r"line 3: scan 'a': accept, but reject on line 2",
        ),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words) as raised:
        read_decisions(write(tmp_path, text))
    assert "decisions.csv" in raised.value.message


def test_decisions_go_into_the_table_of_counts_and_come_out_again() -> None:
    decisions = {
        "b": Decision("reject", "motion", "AB"),
        "d": Decision("accept", comment="fine"),
        "x": Decision("doubt"),
    }
    keys = ["a", "b", "c", "d"]
    table = decision_table(keys, decisions)
    assert table.column("decision").to_pylist() == [None, "reject", None, "accept"]
    assert table.column("decision_reason").to_pylist() == [None, "motion", None, None]
    scans = table.to_pandas().assign(scan=keys)
    assert decisions_in(scans) == {"b": decisions["b"], "d": decisions["d"]}
    assert decisions_in(pd.DataFrame({"scan": keys, "decision": ["reject"] * 4})) == {}
    # Nobody decided: the columns are there, and hold nothing.
    assert decisions_in(decision_table(keys, {}).to_pandas().assign(scan=keys)) == {}
