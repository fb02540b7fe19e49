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


def marked_in(given: list[Sample]) -> dict[str, int]:
    return {sample.key: 3 for sample in given}


def subjects_of(parts: ThreeParts) -> dict[str, set[str]]:
    return {part: {sample.subject for sample in getattr(parts, part)} for part in PARTS}


def test_a_fifth_tests_a_fifth_tunes_and_nobody_is_in_two() -> None:
    given = samples(20, visits=2)
    parts = three_by_subject(given, marked_in(given), seed=4)
    people = subjects_of(parts)
    assert [len(people[part]) for part in PARTS] == [12, 4, 4]
    assert not people["training"] & people["validation"]
    assert not people["test"] & (people["training"] | people["validation"])
    assert sum(len(getattr(parts, part)) for part in PARTS) == 40
    assert parts == three_by_subject(given[::-1], marked_in(given), seed=4)
    assert parts != three_by_subject(given, marked_in(given), seed=5)
    assert parts.by_key[parts.test[0].key] == "test"


def test_people_are_tested_on_whose_lesions_are_marked() -> None:
    given = samples(50)
    marked = marked_in(given[10:16])
    people = subjects_of(three_by_subject(given, marked, seed=4))
    with_marks = {f"{n:02d}" for n in range(10, 16)}
    assert len(people["test"]) == 4
    assert people["test"] < with_marks
    assert with_marks <= people["test"] | people["validation"]
    assert len(people["validation"]) == 10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scans_without_lesions_come_into_each_part_by_their_share(seed: int) -> None:
    # The paper's case: many are counted, a few of those with lesions are marked, and a fifth has none.
    given = samples(300)
    lesions = {**{sample.key: 0 for sample in given[:60]}, **marked_in(given[60:90])}
    parts = three_by_subject(given, lesions, seed)
    empty = {part: sum(lesions.get(s.key) == 0 for s in getattr(parts, part)) for part in PARTS}
    assert empty == {"training": 43, "validation": 12, "test": 5}
    assert [len(getattr(parts, part)) for part in PARTS] == [215, 60, 25]
    marked = {part: sum(lesions.get(s.key) == 3 for s in getattr(parts, part)) for part in PARTS}
    assert marked == {"training": 0, "validation": 10, "test": 20}


def test_where_all_is_known_each_part_has_its_fifth() -> None:
    given = samples(40)
    lesions = {sample.key: int(n >= 10) for n, sample in enumerate(given)}
    parts = three_by_subject(given, lesions, 1)
    assert [len(getattr(parts, part)) for part in PARTS] == [24, 8, 8]
    assert [sum(lesions[s.key] == 0 for s in getattr(parts, part)) for part in PARTS] == [6, 2, 2]
    nearly_all = {sample.key: int(n >= 37) for n, sample in enumerate(given)}
    few = three_by_subject(given, nearly_all, 1)
    assert [sum(nearly_all[s.key] for s in getattr(few, part)) for part in PARTS] == [1, 1, 1]


def test_a_person_with_a_scan_that_is_not_marked_is_not_one_without_lesions() -> None:
    given = samples(10, visits=2)
    # Of person 0 one scan was counted 0, the other has lesions that nobody marked.
    lesions = {**marked_in(given[2:]), given[0].key: 0}
    for seed in range(8):
        assert "00" not in subjects_of(three_by_subject(given, lesions, seed))["test"]


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_tiny_cohort_keeps_two_scans_to_validate_on(n: int) -> None:
    given = samples(n)
    parts = three_by_subject(given, marked_in(given), seed=1)
    assert [len(getattr(parts, part)) for part in PARTS] == [n - 3, 2, 1]


@pytest.mark.parametrize(("n", "marked"), [(2, 2), (9, 1), (9, 0)])
def test_too_few_people_are_refused(n: int, marked: int) -> None:
    given = samples(n)
    with pytest.raises(CountsError, match=f"{n} subjects found, {marked} of them with marked"):
        three_by_subject(given, marked_in(given[:marked]), seed=1)


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
