"""From label maps to a bundle that segments heads, on a coarse grid; and what is refused before anything is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from epvs_cohort.data.head_grid import HeadGrid
from epvs_cohort.errors import ConfigError, ModelError, UsageError
from epvs_cohort.model.roi_bundle import RoiBundle, load_roi_bundle
from epvs_cohort.model.roi_network import RoiArchitecture
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.train.checkpoint import RECIPE_FILE
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import load_recipe
from epvs_cohort.train.roi_recipe import RoiRecipe
from epvs_cohort.train.roi_start import people_known_to
from epvs_cohort.train.roi_workflow import RoiSettings, head_sources, train_roi

RECIPE = RoiRecipe(
    supervision="labels",
    name="tiny",
    architecture=RoiArchitecture(widths=(2, 3), convs_per_level=1),
    grid=HeadGrid(shape=(24, 32, 24), spacing_mm=8.0),
    training_people="1",
    validation_people="2",
    batch=1,
    steps=2,
    warm_up=0,
    norm_heads=1,
    validation_heads=2,
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head as two people, whose bytes differ."""
    folder = tmp_path_factory.mktemp("people")
    image = nib.load(BUNDLED_ANATOMY)
    labels = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(labels, image.affine), folder / "a.nii")
    nib.save(nib.Nifti1Image(labels.astype(np.int16), image.affine), folder / "b.nii")
    (folder / "c.nii").write_text("never read")
    return folder


@pytest.fixture(scope="module")
def settings(people: Path, tmp_path_factory: pytest.TempPathFactory) -> RoiSettings:
    return RoiSettings(RunSettings(tmp_path_factory.mktemp("training") / "out", seed=4), people)


@pytest.fixture(scope="module")
def bundle(settings: RoiSettings) -> RoiBundle:
    return train_roi(RECIPE, settings)


def test_a_recipe_gives_a_bundle_that_loads(bundle: RoiBundle, settings: RoiSettings) -> None:
    loaded = load_roi_bundle(str(settings.run.out))
    assert loaded.model_id == bundle.model_id
    assert loaded.card.grid == RECIPE.grid
    assert loaded.card.validation["heads"] == 2.0
    assert np.isfinite(list(loaded.card.validation.values())).all()
    assert "label maps of 1 people (seed 4)" in loaded.card.trained_on
    record = json.loads((settings.run.out / RECIPE_FILE).read_text())
    assert (list(record["inputs"]["training"]), list(record["inputs"]["validation"])) == (
        ["a.nii"],
        ["b.nii"],
    )
    assert record["done"]["steps"] == 2
    assert "2 steps in 0 minutes; cpu, threads 1." in (settings.run.out / "README.md").read_text()


def test_a_finished_run_is_exported_again_only_when_asked(bundle: RoiBundle, settings: RoiSettings) -> None:
    with pytest.raises(UsageError, match="checkpoint is there already"):
        train_roi(RECIPE, settings)
    others = RECIPE.model_copy(update={"training_people": "b", "validation_people": "a"})
    resumed = replace(settings, run=replace(settings.run, resume=True))
    with pytest.raises(ConfigError, match="other label maps"):
        train_roi(others, resumed)
    assert train_roi(RECIPE, resumed).model_id == bundle.model_id


def test_the_first_steps_may_see_coarser_heads(people: Path, tmp_path: Path) -> None:
    coarse = HeadGrid(shape=(16, 16, 16), spacing_mm=12.0)
    recipe = RECIPE.model_copy(update={"coarse_grid": coarse, "coarse_steps": 1})
    settings = RoiSettings(RunSettings(tmp_path / "out", seed=4), people)
    training = head_sources(recipe, (people / "a.nii",), settings).training
    for first, sides in ((0, [16, 24, 24]), (1, [24, 24, 24])):
        drawn = list(islice(training(first), 3))
        assert [batch.classes.shape[1] for batch in drawn] == sides
    # Each batch depends on its step alone, wherever a run went on.
    whole, later = list(islice(training(0), 2)), next(training(1))
    assert torch.equal(whole[1].intensities, later.intensities)
    assert train_roi(recipe, settings).card.grid == RECIPE.grid
    for wrong in ({"coarse_steps": 2}, {"coarse_steps": 0}):
        with pytest.raises(ValidationError, match="coarse_steps"):
            RoiRecipe.model_validate({**recipe.model_dump(), **wrong})


def test_the_later_steps_may_see_windows(people: Path, tmp_path: Path) -> None:
    coarse = HeadGrid(shape=(16, 16, 16), spacing_mm=12.0)
    recipe = RECIPE.model_copy(update={"coarse_grid": coarse, "coarse_steps": 1, "window": (16, 16, 24)})
    settings = RoiSettings(RunSettings(tmp_path / "out", seed=4), people)
    sources = head_sources(recipe, (people / "a.nii",), settings)
    assert [tuple(batch.classes.shape[1:]) for batch in islice(sources.training(0), 2)] == [
        (16, 16, 16),
        (16, 16, 24),
    ]
    # What batch norm keeps are the statistics of what the network will be shown: whole heads.
    assert tuple(next(sources.norm()).classes.shape[1:]) == RECIPE.grid.shape
    for wrong, words in (((16, 16, 32), "larger than the grid"), ((16, 16, 20), "multiple of 8")):
        with pytest.raises(ValidationError, match=words):
            RoiRecipe.model_validate({**recipe.model_dump(), "window": wrong})


def test_nobody_trains_and_validates(people: Path, tmp_path: Path) -> None:
    settings = RoiSettings(RunSettings(tmp_path / "out"), people)
    with pytest.raises(ConfigError, match=r"b\.nii is asked for both"):
        train_roi(RECIPE.model_copy(update={"training_people": "1-2"}), settings)
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("a.nii", "b.nii"):
        (twins / name).write_text("the same")
    with pytest.raises(ConfigError, match=r"b\.nii is to validate and holds the same bytes as a\.nii"):
        train_roi(RECIPE, replace(settings, anatomies=twins))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "center"), [("roi-head", "head"), ("roi-near", "basal ganglia")])
def test_the_shipped_recipes_leave_the_last_people_for_the_test(name: str, center: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, RoiRecipe)
    assert (recipe.training_people, recipe.validation_people) == ("1-9", "10-11")
    assert recipe.draw.centered_on == center


def test_a_training_goes_on_from_a_bundle(
    bundle: RoiBundle, settings: RoiSettings, people: Path, tmp_path: Path
) -> None:
    begun = str(settings.run.out)
    still = RECIPE.model_copy(
        update={"steps": 1, "learning_rate": 1e-12, "final_learning_rate": 1e-12, "weight_decay": 0.0}
    )
    run = RunSettings(tmp_path / "on", seed=5)
    went_on = train_roi(still, RoiSettings(run, people, init=begun))
    for name, weights in bundle.network.state_dict().items():
        torch.testing.assert_close(went_on.network.state_dict()[name], weights, atol=1e-6, rtol=0.0)
    assert f"begun from tiny {bundle.model_id}" in went_on.card.trained_on
    record = json.loads((run.out / RECIPE_FILE).read_text())
    a, b = (
        json.loads((settings.run.out / RECIPE_FILE).read_text())["inputs"][k]
        for k in ("training", "validation")
    )
    assert record["inputs"]["init"]["training"] == list(a.values())
    assert people_known_to(run.out) == {*a.values(), *b.values()}
    swapped = still.model_copy(update={"training_people": "2", "validation_people": "1"})
    with pytest.raises(ModelError, match=r"was trained on a\.nii, who is to validate"):
        train_roi(swapped, RoiSettings(RunSettings(tmp_path / "swapped"), people, init=begun))
    wider = still.model_copy(update={"architecture": RoiArchitecture(widths=(2, 4), convs_per_level=1)})
    with pytest.raises(ModelError, match="its architecture is"):
        train_roi(wider, RoiSettings(RunSettings(tmp_path / "wider"), people, init=begun))
