"""The scans of a comparison: whose lesions are known, who trains, tunes and tests, and what must be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from epvs_cohort.errors import CountsError
from epvs_cohort.train.points import Points, lesions_of
from epvs_cohort.train.samples import Matched, Sample, named
from epvs_cohort.train.test_split import LEAST_VALIDATION, ThreeParts, three_by_subject, three_from_file

#: A count, which may be the mean of several readers, and the number of marks may differ by this much unsaid.
_UNSAID: Final = 1.0


@dataclass(frozen=True)
class Marks:
    """A table of marked lesions: native RAS mm by scan, and its file."""

    path: Path
    points: Points


@dataclass(frozen=True)
class Splitting:
    """How scans are split: as a file says, else by subject and seed."""

    path: Path | None
    seed: int


def check_marks(marks: Marks, matched: Matched) -> tuple[str, ...]:
    """Check that marks and counted scans belong together.

    Returns
    -------
    tuple of str
        What is to be said of those that do not, in sentences.

    Raises
    ------
    CountsError
        No scan with a count is marked.
    """
    counted = {sample.key: sample for sample in matched.samples}
    if not counted.keys() & marks.points.keys():
        raise CountsError(
            f"{marks.path}: none of its {len(marks.points)} scans is one of the {len(counted)} counted scans; its own "
            f"are {named(sorted(marks.points), 3)}; counted are {named(sorted(counted), 3)}",
            hint="the column scan holds the key, as in the table of counts",
        )
    others = sorted(marks.points.keys() - counted.keys())
    strange = [key for key in others if key not in matched.known]
    passed = [key for key in others if key in matched.known]
    odd = [
        f"{key} (count {counted[key].count:g}, {len(points)} marked)"
        for key, points in sorted(marks.points.items())
        if key in counted and _contradicts(counted[key].count, len(points))
    ]
    said = (
        (strange, "scans of the table of points are neither found nor counted, and are passed over"),
        (passed, "scans of the table of points have no count, or no image, and are passed over"),
        (odd, "scans have another number of marks than their count; the marks are taken as they are"),
    )
    return tuple(f"{len(names)} {words}: {named(names)}." for names, words in said if names)


def _contradicts(count: float, marks: int) -> bool:
    """Whether a count and a number of marks cannot be of the same lesions.

    >>> _contradicts(0.0, 1), _contradicts(4.5, 5), _contradicts(9.0, 2)
    (True, False, True)
    """
    return (count == 0 and marks > 0) or abs(count - marks) > _UNSAID


def split_scans(matched: Matched, points: Points, how: Splitting) -> ThreeParts:
    """Split all counted scans, so that it does not hang on which of them can be used; only marked ones test.

    Raises
    ------
    CountsError
        The file cannot be used, or there are too few scans to split.
    """
    lesions = {
        sample.key: len(found)
        for sample in matched.samples
        if (found := lesions_of(sample, points)) is not None
    }
    if how.path is None:
        parts = three_by_subject(matched.samples, lesions, how.seed)
    else:
        parts = three_from_file(matched.samples, how.path, matched.known)
    return replace(parts, test=tuple(sample for sample in parts.test if sample.key in lesions))


def check_parts(parts: ThreeParts, points: Points, *, training: bool) -> None:
    """Check that the parts are enough: to test on, and, where networks are to be trained, to train and validate on.

    Raises
    ------
    CountsError
    """
    if not any(len(points.get(sample.key, ())) for sample in parts.test):
        raise CountsError(
            f"{len(parts.test)} test scans whose lesions are known are left, and no lesion is marked on them; at least "
            "one is needed",
            hint="the column scan of the points holds the key, as in the table of counts",
        )
    if training and (len(parts.training) < 1 or len(parts.validation) < LEAST_VALIDATION):
        raise CountsError(
            f"{len(parts.training)} scans to train on and {len(parts.validation)} to validate found beside the "
            f"{len(parts.test)} to test on; at least 1 and {LEAST_VALIDATION} are needed",
            hint="count more scans (4 persons are the fewest), name the parts by --split, or name trained models",
        )


def notes_of(
    whole: ThreeParts, parts: ThreeParts, usable: Sequence[Sample], how: Splitting
) -> tuple[str, ...]:
    """How the scans are split and what is left out, in sentences.

    Parameters
    ----------
    whole, parts : ThreeParts
        Of all counted scans, and of those that can be used.
    usable : sequence of Sample
    how : Splitting
    """
    by = f"by subject (seed {how.seed})" if how.path is None else f"as {how.path.name} says"
    sides = (("to train", parts.training), ("to tune", parts.validation), ("to test", parts.test))
    notes = [f"Split {by}: {', '.join(_side(what, samples) for what, samples in sides)}."]
    split: AbstractSet[str] = whole.by_key.keys()
    if unmarked := [each.key for each in usable if each.key not in split]:
        notes.append(
            f"{len(unmarked)} test scans have a count and no marked lesion, and are left out: {named(unmarked)}."
        )
    if unknown := sum(not sample.known for sample in usable):
        notes.append(
            f"The person of {unknown} scans is not known, and each is taken for a person of its own: where one "
            "person has several, the parts may share people."
        )
    return tuple(notes)


def _side(what: str, samples: Sequence[Sample]) -> str:
    words = f"{len(samples)} scans of {len({each.subject for each in samples})} subjects {what}"
    empty = sum(each.count == 0 for each in samples)
    return f"{words} ({empty} counted 0)" if empty else words
