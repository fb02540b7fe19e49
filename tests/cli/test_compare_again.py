"""The command compare on models, marks and folders that are there: what goes on, is refused, and is said."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from epvs_cohort.data.files import TEMPORARY_SUFFIX
from epvs_cohort.data.store import VOLUME, PreparedStore
from epvs_cohort.model.bundle import load_bundle
from tests.cli.comparing import RECIPE, make_cohort, of
from tests.cli.conftest import Call

N_SCANS = 13
#: Cannot be used: a byte of its volume is lacking.
BROKEN = "sub-09_PDw"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_cohort(
        tmp_path_factory.mktemp("again"), N_SCANS, RECIPE.replace("epochs = 12", "epochs = 2")
    )
    volume = PreparedStore(folder / "cohort" / "prepared").folder(BROKEN) / VOLUME
    volume.write_bytes(volume.read_bytes()[:-1])
    return folder


@pytest.fixture
def begun(cohort: Path, command: Call) -> Path:
    """A comparison of two methods that need one network alone; made once."""
    out = cohort / "out"
    if not (out / "table.md").exists():
        code, _, err = command(*of(cohort, "out", "--methods", "a,e"))
        assert code == 4, err
        assert "1 scans cannot be used, and are left out: sub-09_PDw" in err
    return out


def split_of(model: Path) -> Mapping[str, str]:
    with model.with_name(f"{model.name}.split.csv").open() as file:
        return {row["scan"]: row["split"] for row in csv.DictReader(file)}


def rotated(cohort: Path, model: Path) -> Path:
    """A split that tests on scans that a model learned from, and the other way round."""
    turn = {"training": "training", "validation": "test", "test": "validation"}
    rows = "".join(f"{scan},{turn[part]}\n" for scan, part in split_of(model).items())
    path = cohort / "rotated.csv"
    path.write_text(f"scan,split\n{rows}")
    return path


def without(cohort: Path, name: str, keys: set[str]) -> Path:
    """The points but those of some scans."""
    lines = (cohort / "points.csv").read_text().splitlines()
    (cohort / name).write_text("\n".join(line for line in lines if line.split(",")[0] not in keys) + "\n")
    return cohort / name


def test_a_scan_that_cannot_be_used_does_not_keep_the_command_from_going_on(
    cohort: Path, begun: Path, command: Call
) -> None:
    code, said, err = command(*of(cohort, "out"))
    assert code == 4, err
    assert f"training {begun / 'models' / 'fcn'}" not in err
    assert f"training {begun / 'models' / 'regression'}" in err
    assert set(pd.read_parquet(begun / "table.parquet")["method"]) == set("abcdef")
    assert said.count("trained on the training scans of this comparison.") == 2
    assert "differ in more than" not in said
    assert split_of(begun / "models" / "fcn") == split_of(begun / "models" / "regression")
    assert len(split_of(begun / "models" / "fcn")) == N_SCANS


def test_a_named_model_that_knows_test_scans_is_refused(cohort: Path, begun: Path, command: Call) -> None:
    fcn = begun / "models" / "fcn"
    split = rotated(cohort, fcn)
    tune = ("--recipe", "fine-tune")
    for option in (("--model", fcn), ("--init", fcn, *tune)):
        code, _, err = command(*of(cohort, "known", *option, "--methods", "a,e", "--split", split))
        assert (code, "fcn.split.csv: model" in err, "or started from a model that was" in err) == (
            3,
            True,
            True,
        )
    assert not (cohort / "known" / "models").exists()


def test_networks_that_start_differently_are_told_apart(cohort: Path, begun: Path, command: Call) -> None:
    fcn = begun / "models" / "fcn"
    arguments = of(cohort, "apart", "--init", fcn, "--max-minutes", 0.02, "--methods", "d,e")
    at = arguments.index("--recipe")
    code, said, err = command(*arguments[:at], *arguments[at + 2 :])
    assert code == 4, err
    assert "One network starts from a bundle (--init), the other from random weights" in err
    assert "The two networks differ in more than the upsampling path: " in said
    assert "one started from another model, the other from random weights" in said
    assert "starting from model fcn" in said
    assert "with that path was trained by recipe fine-tune (adamw" in said
    assert "nobody whom that one learned from is tested on" in said
    assert "The two networks differ" in (cohort / "apart" / "comparison.html").read_text()
    models = cohort / "apart" / "models"
    full, coarse = (load_bundle(str(models / name)).card.architecture for name in ("fcn", "regression"))
    assert coarse == full.model_copy(update={"upsampling": "none"})
    # Whom the first one learned from goes on to whoever starts from the second.
    code, _, err = command(
        *of(cohort, "third", "--init", models / "fcn", "--methods", "e", "--split", rotated(cohort, fcn)),
        *("--recipe", "fine-tune"),
    )
    assert (code, "models/fcn.split.csv" in err) == (3, True)


def test_a_start_whose_people_are_not_known_is_said(cohort: Path, begun: Path, command: Call) -> None:
    alone = cohort / "alone"
    shutil.copytree(begun / "models" / "fcn", alone, dirs_exist_ok=True)
    code, said, err = command(*of(cohort, "unsure", "--init", alone, "--methods", "e"), "--recipe", "fine-tune",
                           "--max-minutes", 0.02)  # fmt: skip
    assert code == 4, err
    assert "whether that one knows people of the test scans is not checked" in said


def test_f_is_tuned_on_marks_that_came_later(cohort: Path, command: Call, begun: Path) -> None:
    parts = split_of(begun / "models" / "fcn")
    validation = {scan for scan, part in parts.items() if part == "validation"}
    few = without(cohort, "few.csv", validation)
    split = cohort / "parts.csv"
    split.write_text("scan,split\n" + "".join(f"{scan},{part}\n" for scan, part in parts.items()))
    code, _, err = command(*of(cohort, "later", "--methods", "a,e", "--split", split), "--points", few)
    assert code == 4, err
    assert load_bundle(str(cohort / "later" / "models" / "fcn")).card.score_weight is None
    code, said, err = command(*of(cohort, "later", "--methods", "a,e,f", "--split", split))
    assert code == 4, err
    assert "training " not in err
    assert "marked validation scan" in said
    assert "tried for the weight of method f" in err


def test_who_is_marked_of_the_test_scans_does_not_change_what_a_model_is(
    cohort: Path, begun: Path, command: Call
) -> None:
    marked = {line.split(",")[0] for line in (cohort / "points.csv").read_text().splitlines()[1:]}
    parts = split_of(begun / "models" / "fcn")
    tested = sorted(marked & {scan for scan, part in parts.items() if part == "test"} - {BROKEN})
    split = cohort / "same.csv"
    split.write_text("scan,split\n" + "".join(f"{scan},{part}\n" for scan, part in parts.items()))
    less = without(cohort, "less.csv", {tested[0]})
    code, said, err = command(
        *of(cohort, "less", "--models", begun / "models", "--methods", "e", "--split", split),
        "--points",
        less,
    )
    assert code == 4, err
    assert f"1 test scans have a count and no marked lesion, and are left out: {tested[0]}." in said
    assert "trained on the training scans of this comparison" in said


def test_marks_that_do_not_belong_are_named(cohort: Path, begun: Path, command: Call) -> None:
    text = (cohort / "points.csv").read_text()
    strange = cohort / "strange.csv"
    strange.write_text(text.replace("_PDw", "_T2w"))
    code, _, err = command(*of(cohort, "strange", "--methods", "e"), "--points", strange)
    assert (code, "none of its" in err, "sub-00_T2w" in err or "sub-01_T2w" in err) == (3, True, True)
    some = cohort / "some.csv"
    some.write_text(f"{text}nobody_PDw,1,1,2,3\n")
    counts = cohort / "odd.csv"
    lines = (cohort / "counts.csv").read_text().splitlines()
    marked = next(line.split(",")[0] for line in lines[1:] if not line.endswith(",0"))
    counts.write_text("\n".join(f"{marked},0" if line.startswith(marked) else line for line in lines) + "\n")
    code, said, err = command(
        *of(cohort, "named", "--models", begun / "models", "--methods", "e"),
        "--points",
        some,
        "--counts",
        counts,
    )
    assert code == 4, err
    for words in (said, err):
        assert (
            "1 scans of the table of points are neither found nor counted, and are passed over: nobody_PDw."
            in words
        )
        assert f"{marked} (count 0," in words


def test_what_the_command_left_in_its_folder_is_its_own(cohort: Path, begun: Path, command: Call) -> None:
    out = cohort / "own"
    for _ in range(2):
        out.mkdir(exist_ok=True)
        (out / f".gone-999999999-0123456789ab{TEMPORARY_SUFFIX}").touch()
        code, _, err = command(*of(cohort, "own", "--models", out / "nets", "--methods", "e"))
        assert code == 4, err
    assert (out / "nets" / "fcn").is_dir()
    code, _, err = command(*of(cohort, "own", "--models", out, "--methods", "e"))
    assert (code, "is --out itself" in err) == (2, True)


def test_a_bundle_is_no_folder_of_models(cohort: Path, begun: Path, command: Call) -> None:
    code, _, err = command(*of(cohort, "bundle", "--models", begun / "models" / "fcn"))
    assert (code, "is a model bundle itself" in err, "--model" in err) == (2, True, True)


def test_too_few_scans_to_train_on_are_said_in_words_of_this_command(cohort: Path, command: Call) -> None:
    three = cohort / "three.csv"
    marked = sorted({line.split(",")[0] for line in (cohort / "points.csv").read_text().splitlines()[1:]})
    lines = (cohort / "counts.csv").read_text().splitlines()
    three.write_text(
        "\n".join([lines[0], *(line for line in lines if line.split(",")[0] in marked[:3])]) + "\n"
    )
    code, _, err = command(*of(cohort, "three"), "--counts", three)
    assert (code, "1 scans to train on and 1 to validate" in err, "--split" in err) == (3, True, True)
    assert "fraction" not in err
