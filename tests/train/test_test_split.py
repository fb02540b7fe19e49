"""Three parts of a cohort: by person, and as a file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.errors import CountsError
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.test_split import PARTS, ThreeParts, three_by_subject, three_from_file


def samples(subjects: int, visits: int = 1) -> list[Sample]:
    return [
        Sample(f"sub-{n:02d}_ses-{v}", f"{n:02d}", Path("store") / f"{n}-{v}", float(n), 1)
        for n in range(subjects)
        for v in range(visits)
    ]


def subjects_of(parts: ThreeParts) -> dict[str, set[str]]:
    return {part: {sample.subject for sample in getattr(parts, part)} for part in PARTS}


def test_a_fifth_tests_a_fifth_tunes_and_nobody_is_in_two() -> None:
    given = samples(20, visits=2)
    parts = three_by_subject(given, {sample.key for sample in given}, seed=4)
    people = subjects_of(parts)
    assert [len(people[part]) for part in PARTS] == [12, 4, 4]
    assert not people["training"] & people["validation"]
    assert not people["test"] & (people["training"] | people["validation"])
    assert sum(len(getattr(parts, part)) for part in PARTS) == 40
    assert parts == three_by_subject(given[::-1], {sample.key for sample in given}, seed=4)
    assert parts != three_by_subject(given, {sample.key for sample in given}, seed=5)
    assert parts.by_key[parts.test[0].key] == "test"


def test_people_are_tested_on_whose_lesions_are_marked() -> None:
    given = samples(50)
    marked = {sample.key for sample in given[10:16]}
    people = subjects_of(three_by_subject(given, marked, seed=4))
    with_marks = {f"{n:02d}" for n in range(10, 16)}
    assert len(people["test"]) == 4
    assert people["test"] < with_marks
    assert with_marks <= people["test"] | people["validation"]
    assert len(people["validation"]) == 10


@pytest.mark.parametrize(("n", "marked"), [(2, 2), (9, 1), (9, 0)])
def test_too_few_people_are_refused(n: int, marked: int) -> None:
    given = samples(n)
    with pytest.raises(CountsError, match=f"{n} subjects found, {marked} of them with marked"):
        three_by_subject(given, {sample.key for sample in given[:marked]}, seed=1)


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(("scan,split", *rows)) + "\n")
    return path


def test_a_file_names_the_part_of_each(tmp_path: Path) -> None:
    given = samples(4)
    rows = [f"{s.key},{part}" for s, part in zip(given, ("train", "Validation", "test", "test"), strict=True)]
    parts = three_from_file(given, write(tmp_path / "s.csv", *rows, "other,test"), frozenset({"other"}))
    assert [[sample.subject for sample in getattr(parts, part)] for part in PARTS] == [
        ["00"],
        ["01"],
        ["02", "03"],
    ]


def test_all_may_be_tested_on(tmp_path: Path) -> None:
    given = samples(3)
    parts = three_from_file(given, write(tmp_path / "s.csv", *(f"{s.key},test" for s in given)))
    assert (len(parts.training), len(parts.validation), len(parts.test)) == (0, 0, 3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["sub-00_ses-0,train", "sub-01_ses-0,test"], "no row for sub-00_ses-1, sub-01_ses-1"),
        (["sub-00_ses-0,train", "sub-00_ses-1,holdout"], "line 3: scan 'sub-00_ses-1': split 'holdout'"),
        (["sub-00_ses-0,train", "sub-00_ses-0,test"], "line 3: scan 'sub-00_ses-0' stands there already"),
        ([",train"], "line 2: the scan has no name"),
        (
            ["sub-00_ses-0,train", "sub-00_ses-1,train", "sub-01_ses-0,train", "sub-01_ses-1,test"],
            r"subject 01 is in training and in test \(scans sub-01_ses-0, sub-01_ses-1\)",
        ),
        (
            [*(f"sub-0{n}_ses-{v},test" for n in (0, 1) for v in (0, 1)), "sub-09_ses-0,test"],
            "no such scan: sub-09_ses-0",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(CountsError, match=said):
        three_from_file(samples(2, visits=2), write(tmp_path / "s.csv", *rows))


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("scan,part\na,test\n")
    with pytest.raises(CountsError, match="no column split; found scan, part"):
        three_from_file(samples(2), path)
    with pytest.raises(CountsError, match="cannot be read"):
        three_from_file(samples(2), tmp_path / "none.csv")
