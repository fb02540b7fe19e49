"""Tables of counts: what is read, the mean of readers, and each kind of fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.data.counts import Counted, Reading, read_counts, read_readings
from epvs_cohort.errors import ConfigError, CountsError


def table(folder: Path, text: str, name: str = "counts.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "scan,count\na,3\nb,0\n",
        "\ufeffscan,count\r\na,3\r\nb,0\r\n",
        "scan\tcount\na\t3\nb\t0\n",
        "scan;count\na;3.0\nb;0\n",
        "count,scan,note\n 3 ,a,clear\n\n0,b,\n",
    ],
)
def test_a_table_is_read_whatever_its_dress(tmp_path: Path, text: str) -> None:
    read = read_counts(table(tmp_path, text))
    assert read.counts == {"a": Counted(3.0, 1), "b": Counted(0.0, 1)}
    assert read.readers == ()
    assert read.words == "counts of 2 scans"


def test_several_readers_give_their_mean_and_it_is_said(tmp_path: Path) -> None:
    read = read_counts(table(tmp_path, "scan,count,reader\na,3,ann\na,4,bob\nb,2,ann\n"))
    assert read.counts == {"a": Counted(3.5, 2), "b": Counted(2.0, 1)}
    assert read.readers == ("ann", "bob")
    assert "by 2 readers; of 1 scans the mean" in read.words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan,number\na,3\n", r"line 1: no column count; found scan, number; needed are scan, count"),
        ("name\na\n", r"no column scan and count"),
        ("scan,count\n", r"no count in it, only a header"),
        ("", r"the table is empty"),
        ("scan,count\na,3,4\n", r"line 2: 3 cells, the header has 2"),
        ("scan,count\n,3\n", r"line 2: the scan has no name"),
        ("scan,count\na,1e300\nb,20261123\n", r"line 2: scan 'a': count 1e300 is too large; .* line 3"),
        ("scan,count\na,\n", r"line 2: scan 'a': the count is empty; a whole number from 0 to 10000"),
        ("scan,count\na,n/a\n", r"line 2: scan 'a': the count is empty \('n/a'\)"),
        ("scan,count\na,3\nb,1\na,4\n", r"line 4: the count of scan 'a' stands on line 2 already"),
        (
            "scan,count,reader\na,3,x\na,3,y\na,4,x\n",
            r"line 4: the count of scan 'a' by reader 'x' stands on line 2",
        ),
        ("scan,count\na,-1\n", r"line 2: scan 'a': count -1 is negative"),
        ("scan,count\na,2.5\n", r"line 2: scan 'a': count 2\.5 is fractional"),
        ("scan,count,reader\na,2.5,x\n", r"line 2: scan 'a' by reader 'x': count 2\.5 is fractional"),
        ("scan,count\na,inf\n", r"line 2: scan 'a': count inf is not finite"),
        ("scan,count\na,1e999\n", r"line 2: scan 'a': count 1e999 is not finite"),
        ("scan,count\na,nan\n", r"line 2: scan 'a': count nan is not finite"),
        ("scan,count\na,many\n", r"line 2: scan 'a': count 'many' is no number"),
        ("scan,count\na,1_0\n", r"line 2: scan 'a': count '1_0' is no number"),
        ("scan,count\na,٣\n", r"count '٣' is no number"),
    ],
)
def test_faults_are_named_with_file_line_and_what_is_legal(tmp_path: Path, text: str, words: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(CountsError, match=words) as raised:
        read_counts(path)
    assert str(path) in raised.value.message
    assert isinstance(raised.value, ConfigError)
    assert raised.value.exit_code == 3


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(CountsError) as raised:
        read_counts(table(tmp_path, "scan,count\na,-1\nb,0.5\nc,1\nc,1\n"))
    for words in ("line 2", "line 3", "line 5"):
        assert words in raised.value.message


def test_a_missing_file_is_an_error_of_counts(tmp_path: Path) -> None:
    with pytest.raises(CountsError, match=r"nowhere\.csv: cannot be read"):
        read_counts(tmp_path / "nowhere.csv")


def test_readings_of_one_reader_are_told_apart(tmp_path: Path) -> None:
    path = table(tmp_path, "scan,count,reader,reading\na,3,ann,2\na,5,ann,1\na,8,bob,1\nb,2,ann,1\n")
    assert read_readings(path) == (
        Reading("a", "ann", 2, 3.0),
        Reading("a", "ann", 1, 5.0),
        Reading("a", "bob", 1, 8.0),
        Reading("b", "ann", 1, 2.0),
    )
    # A reader who counted twice weighs no more than one who counted once.
    assert read_counts(path).counts == {"a": Counted(6.0, 2), "b": Counted(2.0, 1)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan,count,reading\na,3,0\n", r"line 2: scan 'a': reading '0'; a whole number from 1 is legal"),
        ("scan,count,reading\na,3,\n", r"reading ''; a whole number"),
        ("scan,count,reader,reading\na,3,x,2\na,4,x,2\n", r"line 3: .*'a' by reader 'x' stands on line 2"),
    ],
)
def test_readings_that_cannot_be_told_apart_are_faults(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CountsError, match=words):
        read_readings(table(tmp_path, text))
