"""Each recipe loads through its model, and an illegal one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.errors import ProtocolError
from epvs_cohort.model.bundle import bundled_models
from epvs_cohort.protocol import load_protocol, pipelines_dir
from epvs_cohort.train.augment import AugmentSettings
from epvs_cohort.train.recipe import Recipe, ScanRecipe, load_recipe

FILES = sorted((pipelines_dir() / "recipes").glob("*.toml"))


def test_there_are_recipes() -> None:
    assert "gp-unet-sim" in {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_loads_and_is_named_after_itself(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.description
    if isinstance(recipe, Recipe) and recipe.name in bundled_models():
        assert load_protocol(recipe.protocol).model == recipe.name


def test_the_network_without_upsampling_path_is_trained_as_the_bundled_one() -> None:
    full, coarse = load_recipe("gp-unet-sim"), load_recipe("regression-sim")
    assert isinstance(full, Recipe)
    assert isinstance(coarse, Recipe)
    same = {"name", "description", "architecture"}
    assert coarse.model_dump(exclude=same) == full.model_dump(exclude=same)
    assert coarse.architecture == full.architecture.model_copy(update={"upsampling": "none"})


def test_the_paper_is_the_paper_where_it_says() -> None:
    recipe = load_recipe("paper")
    assert isinstance(recipe, ScanRecipe)
    assert (recipe.loss, recipe.optimizer, recipe.set_size) == ("mse", "adadelta", 1)
    assert recipe.augment == AugmentSettings()


def test_a_bundle_is_gone_on_from_without_batch_norm() -> None:
    recipe = load_recipe("fine-tune")
    assert isinstance(recipe, ScanRecipe)
    assert recipe.architecture is None
    assert not recipe.batch_norm


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nsurprise = 1', "surprise"),
        ('name = "x"\nloss = "poisson"', "loss"),
        ('name = "x"\n[[stages]]\nwindow = [30, 32, 24]', r"\(30, 32, 24\) is not divisible by the stride 4"),
        ('name = "x"\nstages = []', "stages"),
        ('name = "x"\n[[stages]]\nlearning_rate = 0', "learning_rate"),
        ('name = "x"\nvalidation_volumes = 1', "validation_volumes"),
        ("name = ", "not a readable TOML"),
        ('name = "x"\nsupervision = "scan"', "supervision"),
        ('name = "x"\nsupervision = "scans"\nstages = []', "stages"),
        ('name = "x"\nsupervision = "scans"\nloss = "mae"', "loss"),
        ('name = "x"\nsupervision = "scans"\nlearning_rate = 0.1', "final_learning_rate 1.0 is above"),
        (
            'name = "x"\nsupervision = "scans"\nloss = "poisson"\narchitecture = {last_layer = "free"}',
            "never negative",
        ),
    ],
)
def test_illegal_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProtocolError, match=message) as caught:
        load_recipe(str(path))
    assert str(path) in caught.value.message
