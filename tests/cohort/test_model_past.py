"""Whom a model learned from: what a comparison writes beside it, also of the models before, and how it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epvs_cohort.cohort.model_past import Start, check_people, learned_in, past_of, training_of, write_past
from epvs_cohort.errors import ConfigError
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.test_split import ThreeParts


def samples(*keys: str) -> tuple[Sample, ...]:
    return tuple(Sample(key, f"p{key}", Path("x"), 2.0, 1) for key in keys)


PARTS = ThreeParts(samples("a", "b"), samples("c"), samples("d"))


def model(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_what_is_written_beside_a_model_is_read_again(tmp_path: Path) -> None:
    one = model(tmp_path, "one")
    write_past(one, PARTS, None)
    past = past_of(str(one))
    assert past is not None
    assert past.learned == learned_in(PARTS) == {("a", "training"), ("b", "training"), ("c", "validation")}
    assert past.subjects == {"pa", "pb", "pc"}
    assert past.complete
    check_people(str(one), past, PARTS.test)
    with pytest.raises(ConfigError, match=r"one.split.csv: model .* 1 test scans, .*: c; none is legal"):
        check_people(str(one), past, samples("c", "e"))


def test_the_test_scans_have_no_part_in_what_a_model_is(tmp_path: Path) -> None:
    one = model(tmp_path, "one")
    write_past(one, PARTS, None)
    past = past_of(str(one))
    assert past is not None
    assert past.learned == learned_in(ThreeParts(PARTS.training, PARTS.validation, samples("d", "e")))


def test_whom_a_start_learned_from_is_handed_on(tmp_path: Path) -> None:
    one, two, three = (model(tmp_path, name) for name in ("one", "two", "three"))
    write_past(one, PARTS, None)
    write_past(two, ThreeParts(samples("x"), samples("y"), ()), Start(str(one), "one"))
    write_past(three, ThreeParts(samples("z"), (), ()), Start(f"{two}/", "two"))
    past = past_of(str(three))
    assert past is not None
    assert past.subjects == {"pa", "pb", "pc", "px", "py", "pz"}
    assert past.complete
    assert past.learned == {("z", "training")}
    assert past.start == "two"
    write_past(three, PARTS, None)
    again = past_of(str(three))
    assert again is not None
    assert again.subjects == {"pa", "pb", "pc"}, "what an earlier start had learned is gone"
    assert again.start == ""


def test_a_start_of_which_nothing_is_known_leaves_the_past_open(tmp_path: Path) -> None:
    one, two = model(tmp_path, "one"), model(tmp_path, "two")
    write_past(one, PARTS, Start("gp-unet-sim", "gp-unet-sim"))
    write_past(two, PARTS, Start(str(one), "one"))
    for each in (one, two):
        past = past_of(str(each))
        assert past is not None
        assert not past.complete
    assert past_of("gp-unet-sim") is None
    assert past_of(str(tmp_path / "none")) is None


def test_files_that_were_not_written_by_this_program_are_refused(tmp_path: Path) -> None:
    one = model(tmp_path, "one")
    write_past(one, PARTS, Start("gp-unet-sim", "gp-unet-sim"))
    (tmp_path / "one.start.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"one\.start.json: not as this program wrote it"):
        past_of(str(one))
    (tmp_path / "one.split.csv").write_text("scan,split\na,training\n")
    with pytest.raises(ConfigError, match=r"one\.split.csv: no column subject"):
        past_of(str(one))


def test_how_a_model_was_trained_is_told_where_it_is_known(tmp_path: Path) -> None:
    one = model(tmp_path, "one")
    assert training_of(str(one)) is None
    record = {
        "recipe": {
            "name": "paper",
            "optimizer": "adadelta",
            "batch": 4,
            "architecture": {},
            "description": "words",
        },
        "run": {"epochs": 20, "max_minutes": None, "seed": 1},
        "done": {"steps": 120},
    }
    (one / "recipe.json").write_text(json.dumps(record))
    found = training_of(str(one))
    assert found is not None
    assert found.words == "recipe paper (adadelta, 120 steps)"
    assert set(found.settings) == {"optimizer", "batch", "limits"}
    (one / "recipe.json").write_text("[1]")
    assert training_of(str(one)) is None
