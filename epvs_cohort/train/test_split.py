"""Three parts of a cohort: scans that are learned from, tuned on and tested on; no person is in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from epvs_cohort.data.manifest import read_table
from epvs_cohort.errors import CountsError, ManifestError
from epvs_cohort.train.samples import Sample, named, subject_order

Part = Literal["training", "validation", "test"]

PARTS: Final[tuple[Part, ...]] = ("training", "validation", "test")

#: As other programs write them.
_SPELT: Final[Mapping[str, Part]] = {
    "training": "training", "train": "training",
    "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip

_Kind = Literal["marked", "empty", "unmarked"]
_KINDS: Final[tuple[_Kind, ...]] = ("marked", "empty", "unmarked")

#: Scans that agreement is defined for.
LEAST_VALIDATION: Final = 2

#: Share of the persons that is tested on, and that is tuned on, where no file says.
SHARE: Final = 0.2


@dataclass(frozen=True)
class ThreeParts:
    """Samples by part, each sorted by key; a part may be empty."""

    training: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def by_key(self) -> Mapping[str, Part]:
        """Part of each scan."""
        return {sample.key: part for part in PARTS for sample in getattr(self, part)}

    def only(self, keys: AbstractSet[str]) -> ThreeParts:
        """The same parts of some of the scans."""
        chosen = (tuple(each for each in getattr(self, part) if each.key in keys) for part in PARTS)
        return ThreeParts(*chosen)


def three_by_subject(samples: Sequence[Sample], lesions: Mapping[str, int], seed: int) -> ThreeParts:
    """Split by person, a fifth to test on and a fifth to tune on.

    Tests need marked lesions, so the persons to test on are taken from those with a marked scan; where such are few, a
    third of them is kept for tuning, and fewer than a fifth test. Persons without any lesion need no mark. They
    come into each part by their share of all persons, so that neither tests nor training lack them or hold little
    else. The order of the persons is a hash of seed and name.

    Parameters
    ----------
    samples : sequence of Sample
    lesions : mapping of str to int
        Lesions of each scan where they are known; 0 is known to have none.
    seed : int
        One seed, one split.

    Raises
    ------
    CountsError
        Fewer than three persons, or fewer than two with marked lesions.
    """
    subjects = subject_order(samples, seed)
    kinds = _kinds(samples, lesions)
    marked, empty, unmarked = ([each for each in subjects if kinds[each] == kind] for kind in _KINDS)
    if len(subjects) < 3 or len(marked) < 2:
        raise CountsError(
            f"{len(subjects)} subjects found, {len(marked)} of them with marked lesions; at least 3 and 2 are needed "
            "to train, tune and test on different people",
            hint="count and mark more scans, or name the parts by --split",
        )
    aside = max(1, round(SHARE * len(subjects)))
    with_none = round(aside * len(empty) / len(subjects))
    n_test = max(1, min(aside - with_none, 2 * len(marked) // 3))
    n_empty = min(round(n_test * len(empty) / (len(subjects) - len(empty))), aside - n_test)
    test = {*marked[:n_test], *empty[:n_empty]}
    first, last = [*marked[n_test:], *unmarked], empty[n_empty:]
    tuning = [*first[: aside - with_none], *last[:with_none]]
    left = [*first[aside - with_none :], *last[with_none:]]
    scans = Counter(sample.subject for sample in samples)
    while len(left) > 1 and (len(tuning) < aside or sum(scans[each] for each in tuning) < LEAST_VALIDATION):
        tuning.append(left.pop(0))
    part_of: dict[str, Part] = dict.fromkeys(subjects, "training")
    part_of.update(dict.fromkeys(tuning, "validation"))
    part_of.update(dict.fromkeys(test, "test"))
    return _parts(samples, {sample.key: part_of[sample.subject] for sample in samples})


def _kinds(samples: Sequence[Sample], lesions: Mapping[str, int]) -> Mapping[str, _Kind]:
    """Whether lesions of a person are marked on some scan, all scans are known to have none, or neither."""
    found: dict[str, _Kind] = {}
    for sample in samples:
        known, before = lesions.get(sample.key), found.get(sample.subject)
        if known or before == "marked":
            found[sample.subject] = "marked"
        else:
            found[sample.subject] = "empty" if known == 0 and before in (None, "empty") else "unmarked"
    return found


def three_from_file(
    samples: Sequence[Sample], path: Path, known: AbstractSet[str] = frozenset()
) -> ThreeParts:
    """Split as a table ``scan,split`` says, with ``training``, ``validation`` or ``test`` in each row.

    Parameters
    ----------
    samples : sequence of Sample
        Each has a row.
    path : Path
    known : set of str
        Keys besides those of the samples that the table may name: of scans that cannot be used or have no count.

    Raises
    ------
    CountsError
        The table cannot be read, lacks a column, names a scan twice, one that is not known or a part that is none,
        leaves a sample out, or puts a person into two parts.
    """
    rows = _read(path)
    keys = {sample.key for sample in samples}
    if strange := sorted(set(rows) - keys - known):
        raise CountsError(
            f"{path}: no such scan: {named(strange)}", hint="the keys are those of the table of counts"
        )
    if left_out := sorted(keys - set(rows)):
        raise CountsError(
            f"{path}: no row for {named(left_out)}; training, validation or test is needed for each"
        )
    parts = _parts(samples, rows)
    of_subject: dict[str, Part] = {}
    for part in PARTS:
        for sample in getattr(parts, part):
            other = of_subject.setdefault(sample.subject, part)
            if other != part:
                scans = [each.key for each in samples if each.subject == sample.subject]
                raise CountsError(
                    f"{path}: subject {named([sample.subject])} is in {other} and in {part} (scans {named(scans)}); "
                    "one part is legal, or the figures would tell of people that were learned from"
                )
    return parts


def _read(path: Path) -> Mapping[str, Part]:
    try:
        table = read_table(path)
    except ManifestError as error:
        raise CountsError(error.message, hint=error.hint) from error
    if missing := [name for name in ("scan", "split") if name not in table.columns]:
        raise CountsError(
            f"{path}: no column {' and '.join(missing)}; found {', '.join(table.columns)}; needed are scan and split"
        )
    rows: dict[str, Part] = {}
    for (line, _), key, spelt in zip(table.rows, table.column("scan"), table.column("split"), strict=True):
        part = _SPELT.get(spelt.lower())
        if not key or key in rows:
            what = f"scan {key!r} stands there already" if key else "the scan has no name"
            raise CountsError(f"{path}: line {line}: {what}; each once is legal")
        if part is None:
            raise CountsError(
                f"{path}: line {line}: scan {key!r}: split {spelt!r}; training, validation or test is legal"
            )
        rows[key] = part
    return rows


def _parts(samples: Sequence[Sample], part_of: Mapping[str, Part]) -> ThreeParts:
    ordered = sorted(samples, key=lambda sample: sample.key)
    training, validation, test = (
        tuple(sample for sample in ordered if part_of[sample.key] == part) for part in PARTS
    )
    return ThreeParts(training, validation, test)
