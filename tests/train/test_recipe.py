"""Each recipe loads through its model, and an illegal one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.errors import ProtocolError
from epvs_cohort.protocol import load_protocol, pipelines_dir
from epvs_cohort.train.recipe import load_recipe

FILES = sorted((pipelines_dir() / "recipes").glob("*.toml"))


def test_there_are_recipes() -> None:
    assert "gp-unet-sim" in {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recipe_loads_and_is_named_after_itself(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.description
    assert load_protocol(recipe.protocol).model == recipe.name


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
    ],
)
def test_illegal_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProtocolError, match=message) as caught:
        load_recipe(str(path))
    assert str(path) in caught.value.message
