"""Counts matched with scans by name, and splits that keep each person on one side."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvs_cohort.data.counts import Counted, CountTable
from epvs_cohort.data.store import PreparedStore, folder_name
from epvs_cohort.errors import CountsError, UsageError
from epvs_cohort.records import Scan
from epvs_cohort.train.samples import (
    Candidate,
    Sample,
    match_counts,
    scan_candidates,
    split_by_subject,
    split_from_file,
    stored_candidates,
    subject_of,
)
from tests.train.stored import save, volume


def sample(key: str, subject: str | None = None) -> Sample:
    return Sample(key, subject or key, Path(key), 1.0, 1)


def counts(**values: float) -> CountTable:
    return CountTable(Path("counts.csv"), {key: Counted(value, 1) for key, value in values.items()})


def test_counts_without_scan_and_scans_without_count_are_named() -> None:
    scans = [Candidate(key, key, Path(key)) for key in ("c", "a", "b")]
    matched = match_counts(scans, counts(z=1, b=2, a=3, y=4))
    assert [(each.key, each.count) for each in matched.samples] == [("a", 3.0), ("b", 2.0)]
    assert matched.unmatched == ("y", "z")
    assert matched.uncounted == ("c",)


def test_no_match_at_all_shows_how_keys_look() -> None:
    with pytest.raises(
        CountsError, match=r"none of its 1 counts.*counts are of 1; scans are sub-1_PDw"
    ) as raised:
        match_counts([Candidate("sub-1_PDw", "1", Path())], counts(**{"1": 4}))
    assert "name of a BIDS file" in raised.value.hint


def test_the_person_comes_from_the_scan_else_from_the_key(tmp_path: Path) -> None:
    scans = (Scan("x1", Path("x1"), "sub-7"), Scan("x2", Path("x2"), "7"), Scan("sub-8_T2w", Path("b")))
    found = scan_candidates(scans, tmp_path)
    assert [each.subject for each in found] == ["7", "7", "8"]
    # A manifest may name the person as the scan: known, unlike where nothing tells it.
    (named, nameless) = scan_candidates((Scan("x3", Path("x3"), "x3"), Scan("x4", Path("x4"))), tmp_path)
    assert (named.subject, named.known, nameless.subject, nameless.known) == ("x3", True, "x4", False)
    assert found[0].folder == tmp_path / folder_name("x1")
    assert subject_of("xsub-7") == "xsub-7"


def test_a_store_names_its_scans_and_passes_over_what_is_none(tmp_path: Path) -> None:
    save(tmp_path, volume("sub-2_ses-1_PDw"), volume("sub-1_PDw"), volume("plain"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "prepared.json").write_text("{}")
    (tmp_path / "file.txt").write_text("")
    found = stored_candidates(PreparedStore(tmp_path))
    assert [(each.key, each.subject) for each in found] == [
        ("plain", "plain"),
        ("sub-1_PDw", "1"),
        ("sub-2_ses-1_PDw", "2"),
    ]
    assert found[1].folder == tmp_path / folder_name("sub-1_PDw")


@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=80).filter(lambda people: len(set(people)) >= 4),
    st.floats(0.2, 0.8),
    st.integers(0, 2**31),
    st.randoms(use_true_random=False),
)
def test_a_split_is_whole_apart_by_person_and_the_same_in_any_order(
    people: list[int], fraction: float, seed: int, shuffler: random.Random
) -> None:
    samples = [sample(f"s{person}_{n}", f"p{person}") for n, person in enumerate(people)]
    split = split_by_subject(samples, fraction, seed)
    assert {*split.training, *split.validation} == set(samples)
    assert len(split.training) + len(split.validation) == len(samples)
    aside = {each.subject for each in split.validation}
    assert not aside & {each.subject for each in split.training}
    assert len(aside) == round(fraction * len(set(people)))
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    assert split_by_subject(shuffled, fraction, seed) == split


def test_another_seed_puts_others_aside() -> None:
    samples = [sample(f"s{n}") for n in range(40)]
    splits = {split_by_subject(samples, 0.25, seed) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_illegal_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        split_by_subject([sample("a"), sample("b")], fraction, 1)


@pytest.mark.parametrize("fraction", [0.1, 0.95])
def test_a_side_without_a_person_is_refused(fraction: float) -> None:
    with pytest.raises(CountsError, match="need at least one subject each"):
        split_by_subject([sample("a"), sample("b"), sample("c")], fraction, 1)


def split_file(folder: Path, text: str) -> Path:
    path = folder / "split.csv"
    path.write_text(text)
    return path


SAMPLES = (sample("a1", "a"), sample("a2", "a"), sample("b1", "b"), sample("c1", "c"))


@pytest.mark.parametrize(
    "text",
    [
        "scan,split\na1,training\na2,train\nb1,validation\nc1,Training\ngone,validation\n",
        "b1\n",
        "scan\nb1\n",
        "\ufeffb1\n\ngone\n",
    ],
)
def test_a_file_says_who_validates(tmp_path: Path, text: str) -> None:
    split = split_from_file(SAMPLES, split_file(tmp_path, text), frozenset({"gone"}))
    assert [each.key for each in split.training] == ["a1", "a2", "c1"]
    assert [each.key for each in split.validation] == ["b1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a1\n", r"subject a is in training and in validation \(scans a1, a2\)"),
        (
            "scan,split\na1,training\na2,validation\nb1,validation\nc1,training\n",
            "subject a is in training and",
        ),
        ("b1\nb2\n", "no such scan: b2"),
        ("b1\nb1\n", "line 2: scan 'b1' stands on line 1 already"),
        ("scan,split\nb1,validation\n", "no row for a1, a2, c1"),
        ("scan,split\na1,test\n", "line 2: scan 'a1': split 'test'; training or validation is legal"),
        ("scan,split\n,training\n", "line 2: the scan has no name"),
        ("key,split\na1,training\n", "found the columns key, split"),
        ("a1\na2\nb1\nc1\n", "no usable scan is left for training"),
        ("gone\n", "no usable scan is left for validation"),
        ("", "table is empty"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CountsError, match=words):
        split_from_file(SAMPLES, split_file(tmp_path, text), frozenset({"gone"}))
