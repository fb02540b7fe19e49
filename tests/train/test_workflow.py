"""From a recipe to a bundle, on a small grid; and what is refused before anything is drawn."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.model.bundle import Bundle, load_bundle
from epvs_cohort.model.network import Architecture
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE, RECIPE_FILE
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import Recipe, StageSettings
from epvs_cohort.train.scenes import split_anatomies
from epvs_cohort.train.workflow import TrainingSettings, train_recipe

PROTOCOL = """
name = "small"
model = "tiny"
count_target = "{target}"
[grid]
shape = [84, 64, 40]
spacing_mm = [0.98, 0.98, 1.6]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    (folder / "small.toml").write_text(PROTOCOL.format(target="roi"))
    stage = StageSettings(window=(20, 16, 12), batch=2, steps=3)
    return Recipe(
        name="tiny",
        protocol=str(folder / "small.toml"),
        architecture=Architecture(widths=(2, 3), convs_per_level=1),
        canvases=1,
        calibration_volumes=1,
        validation_volumes=2,
        training_anatomies=1,
        validation_anatomies=1,
        stages=(stage, stage.model_copy(update={"frozen_norm": True})),
    )


@pytest.fixture(scope="module")
def anatomies(folder: Path) -> Path:
    """Files whose bytes are no label maps: whatever is refused beside them was refused before they were read."""
    people = folder / "people"
    people.mkdir()
    for name in ("c", "a", "b"):
        (people / f"{name}.nii.gz").write_text(name)
    return people


@pytest.fixture(scope="module")
def settings(folder: Path) -> TrainingSettings:
    return TrainingSettings(RunSettings(folder / "out", seed=5, max_minutes=50.0))


@pytest.fixture(scope="module")
def bundle(recipe: Recipe, settings: TrainingSettings) -> Bundle:
    return train_recipe(recipe, settings)


def test_a_recipe_gives_a_bundle_that_loads(bundle: Bundle, settings: TrainingSettings) -> None:
    loaded = load_bundle(str(settings.run.out))
    assert loaded.model_id == bundle.model_id
    card = loaded.card
    assert card.requires.grid.shape == (84, 64, 40)
    assert card.validation["volumes"] == 2.0
    assert np.isfinite(list(card.validation.values())).all()
    assert "12 windows of 1 lesion-free" in card.trained_on
    assert "75%" in card.validated_on
    words = (settings.run.out / "README.md").read_text()
    assert "cut to 50 minutes; steps of each stage 3 + 3; cpu, threads 1." in words
    record = json.loads((settings.run.out / RECIPE_FILE).read_text())
    assert record["done"]["steps"] == [3, 3]
    assert (record["run"]["max_minutes"], record["run"]["threads"], record["run"]["device"]) == (
        50.0,
        1,
        "cpu",
    )
    assert list(record["inputs"]["training"]) == [BUNDLED_ANATOMY.name]


def test_a_finished_run_is_not_written_over(
    bundle: Bundle, recipe: Recipe, settings: TrainingSettings, anatomies: Path
) -> None:
    assert (settings.run.out / CHECKPOINT_FILE).is_file()
    before = {path.name: path.read_bytes() for path in settings.run.out.iterdir()}
    with pytest.raises(UsageError, match="checkpoint is there already"):
        train_recipe(recipe, settings)
    again = replace(settings, run=replace(settings.run, resume=True))
    with pytest.raises(ConfigError, match="other label maps"):
        train_recipe(recipe, replace(again, anatomies=anatomies))
    other = Path(recipe.protocol).with_name("other.toml")
    other.write_text(PROTOCOL.format(target="roi").replace("1.6", "1.7"))
    moved = Path(recipe.protocol).read_text()
    try:
        Path(recipe.protocol).write_text(other.read_text())
        with pytest.raises(ConfigError, match="another protocol"):
            train_recipe(recipe, again)
    finally:
        Path(recipe.protocol).write_text(moved)
    assert {path.name: path.read_bytes() for path in settings.run.out.iterdir()} == before


def test_people_who_validate_do_not_train(recipe: Recipe, anatomies: Path) -> None:
    split = split_anatomies(anatomies, recipe)
    assert split.training == (anatomies / "a.nii.gz",)
    assert split.validation == (anatomies / "b.nii.gz",)
    with pytest.raises(ConfigError, match="3 label maps found, recipe 'tiny' needs 4"):
        split_anatomies(anatomies, recipe.model_copy(update={"training_anatomies": 3}))


def test_one_person_under_two_names_is_refused(recipe: Recipe, anatomies: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    shutil.copytree(anatomies, people)
    shutil.copy(people / "a.nii.gz", people / "b.nii.gz")
    with pytest.raises(
        ConfigError, match=r"b\.nii\.gz is to validate and holds the same bytes as a\.nii\.gz"
    ):
        train_recipe(recipe, TrainingSettings(RunSettings(tmp_path / "out"), people))
    assert not (tmp_path / "out").exists()


def test_recipes_that_their_protocol_does_not_fit_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    settings = TrainingSettings(RunSettings(tmp_path / "out"))
    (tmp_path / "slice.toml").write_text(PROTOCOL.format(target="ac_slice"))
    sliced = recipe.model_copy(update={"protocol": str(tmp_path / "slice.toml")})
    with pytest.raises(ConfigError, match=r"count_target 'ac_slice'.*only 'roi' is legal"):
        train_recipe(sliced, settings)
    wide = recipe.stages[0].model_copy(update={"window": (20, 16, 44)})
    with pytest.raises(ConfigError, match=r"stage 1: the window \(20, 16, 44\) is larger than the grid"):
        train_recipe(recipe.model_copy(update={"stages": (recipe.stages[0], wide)}), settings)
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_else_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"found notes\.txt"):
        train_recipe(recipe, TrainingSettings(RunSettings(tmp_path)))
    with pytest.raises(UsageError, match="not a folder"):
        train_recipe(recipe, TrainingSettings(RunSettings(tmp_path / "notes.txt")))
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        train_recipe(recipe, TrainingSettings(RunSettings(tmp_path / "new", resume=True)))
