"""The command train-roi: a bundle from label maps, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from epvs_cohort.model.roi_bundle import load_roi_bundle
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from tests.cli.conftest import Call

RECIPE = """
supervision = "labels"
name = "tiny"
batch = 1
steps = 1
warm_up = 0
norm_heads = 1
validation_heads = 1
training_people = "1-9"
[architecture]
widths = [2, 2]
convs_per_level = 1
[grid]
shape = [16, 24, 16]
spacing_mm = 10.0
"""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    image = nib.load(BUNDLED_ANATOMY)
    for name, kind in (("a", np.uint8), ("b", np.int16)):
        nib.save(
            nib.Nifti1Image(np.asarray(image.dataobj).astype(kind), image.affine), folder / f"{name}.nii"
        )
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return folder


def test_people_may_be_chosen(command: Call, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["train-roi", "--anatomies", people, "--out", out, "--recipe", tmp_path / "tiny.toml"]
    code, _, said = command(*arguments)
    assert (code, "people '1-9' found" in said) == (3, True)
    code, told, said = command(*arguments, "--people", "b", "--validation-people", "1", "--device", "cpu")
    assert (code, said.startswith("step 1/")) == (0, True)
    assert f"{out}: tiny {load_roi_bundle(str(out)).model_id}" in told


def test_recipes_of_another_command_are_refused(command: Call, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, said = command("train-roi", "--anatomies", people, "--out", out, "--recipe", "gp-unet-sim")
    assert code == 2
    assert "trains a network that counts" in said
    code, _, said = command("train", "--out", out, "--recipe", "roi-near")
    assert code == 2
    assert "epvs-cohort train-roi takes it" in said
    assert not out.exists()
