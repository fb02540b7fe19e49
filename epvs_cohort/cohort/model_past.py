"""What is known of a model's past: whom it learned from, what it started from, and by which recipe it was trained."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.manifest import read_table
from epvs_cohort.errors import ConfigError, ManifestError
from epvs_cohort.train.checkpoint import RECIPE_FILE
from epvs_cohort.train.samples import Sample, named
from epvs_cohort.train.test_split import ThreeParts

#: Beside the folder of a bundle that a comparison trained: which scans it was trained and tuned on.
SPLIT_ENDING: Final = ".split.csv"
#: Beside it, where it started from another: whom that one had learned from, as far as is known.
START_ENDING: Final = ".start.json"

#: What of a recipe changes no weight.
_WORDS: Final = frozenset({"name", "description", "architecture"})

#: Scan and part of each scan that was trained or tuned on.
Learned = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Start:
    """A bundle that training starts from: its name or folder, and what is said of it."""

    where: str
    words: str


@dataclass(frozen=True)
class Past:
    """Whom a model learned from.

    Attributes
    ----------
    path : Path
        The file that tells.
    learned : frozenset of (str, str)
        Scan and part of what it was trained and tuned on.
    subjects : frozenset of str
        Theirs, and those of the models before it.
    complete : bool
        Whether no model before it may have learned from others too.
    start : str
        What is said of the model that it started from; empty where it started from random weights.
    """

    path: Path
    learned: Learned
    subjects: frozenset[str]
    complete: bool
    start: str = ""


@dataclass(frozen=True)
class Training:
    """How a model was trained, as far as the file beside its weights tells.

    Attributes
    ----------
    recipe, optimizer : str
    steps : int or None
        None where it did not end.
    settings : mapping
        All of recipe and run that shapes the weights but for the scans and the architecture.
    """

    recipe: str
    optimizer: str
    steps: int | None
    settings: Mapping[str, Any]

    @property
    def words(self) -> str:
        """In words.

        >>> Training("paper", "adadelta", 1200, {}).words
        'recipe paper (adadelta, 1200 steps)'
        """
        steps = "" if self.steps is None else f", {self.steps} steps"
        return f"recipe {self.recipe} ({self.optimizer}{steps})"


@dataclass(frozen=True)
class _Before:
    """What a model started from, the subjects that this and those before it learned from, and whether these are all."""

    words: str
    subjects: frozenset[str]
    complete: bool


def past_of(where: str) -> Past | None:
    """Past of a bundle in a folder; None where no file beside it tells.

    Raises
    ------
    ConfigError
        There is a file, and it is not as this program wrote it.
    """
    folder = Path(where).absolute()
    path = _beside(folder, SPLIT_ENDING)
    if not folder.is_dir() or not path.is_file():
        return None
    rows = [row for row in _read_split(path) if row[1] != "test"]
    own = frozenset(subject for _, _, subject in rows)
    learned = frozenset((scan, part) for scan, part, _ in rows)
    before = _beside(folder, START_ENDING)
    if not before.is_file():
        return Past(path, learned, own, complete=True)
    start = _read_start(before)
    return Past(path, learned, own | start.subjects, start.complete, start.words)


def write_past(folder: Path, parts: ThreeParts, start: Start | None) -> None:
    """Write, before a bundle is trained, whom it learns from.

    Parameters
    ----------
    folder : Path
        Of the bundle; the files come to lie beside it.
    parts : ThreeParts
    start : Start or None
        The bundle that it starts from.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scan", "split", "subject"))
    samples = (*parts.training, *parts.validation, *parts.test)
    writer.writerows((sample.key, parts.by_key[sample.key], sample.subject) for sample in samples)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The start first: a split without it would tell of no model before.
    if start is None:
        _beside(folder, START_ENDING).unlink(missing_ok=True)
    else:
        past = past_of(start.where)
        known = _Before(
            start.words, frozenset() if past is None else past.subjects, bool(past and past.complete)
        )
        data = {**asdict(known), "subjects": sorted(known.subjects)}
        write_whole(_beside(folder, START_ENDING), (json.dumps(data, indent=2) + "\n").encode())
    write_whole(_beside(folder, SPLIT_ENDING), text.getvalue().encode())


def learned_in(parts: ThreeParts) -> Learned:
    """Scan and part of all that is trained and tuned on."""
    return frozenset((key, part) for key, part in parts.by_key.items() if part != "test")


def check_people(where: str, past: Past, test: tuple[Sample, ...]) -> None:
    """Check that a model learned from nobody who is tested on.

    Raises
    ------
    ConfigError
        It did.
    """
    seen = [sample.key for sample in test if sample.subject in past.subjects]
    if seen:
        raise ConfigError(
            f"{past.path}: model {where} was trained or tuned on subjects of {len(seen)} test scans, or started from a "
            f"model that was: {named(seen, 3)}; none is legal",
            hint="use the split that it was trained with, or another model; where these are other people of the same "
            "names, take that file away",
        )


def training_of(where: str) -> Training | None:
    """How a bundle in a folder was trained; None where no file in it tells."""
    path = Path(where) / RECIPE_FILE
    try:
        found = json.loads(path.read_bytes())
        recipe, run = found["recipe"], found.get("run", {})
        done = found.get("done", {})
        limits = {name: run.get(name) for name in ("epochs", "max_minutes")}
        settings = {name: value for name, value in recipe.items() if name not in _WORDS}
        return Training(
            str(recipe["name"]), str(recipe["optimizer"]), done.get("steps"), {**settings, "limits": limits}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing but words hangs on it.
        return None


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}{ending}")


def _read_split(path: Path) -> list[tuple[str, str, str]]:
    try:
        table = read_table(path)
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    missing = [name for name in ("scan", "split", "subject") if name not in table.columns]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}; it must be as this program wrote it",
            hint="name another --models",
        )
    return list(zip(table.column("scan"), table.column("split"), table.column("subject"), strict=True))


def _read_start(path: Path) -> _Before:
    try:
        found = json.loads(path.read_bytes())
        return _Before(str(found["words"]), frozenset(map(str, found["subjects"])), bool(found["complete"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not as this program wrote it; words, subjects and complete are needed",
            hint="name another --models",
        ) from error
