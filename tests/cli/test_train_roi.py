"""The command train-roi: a bundle from label maps, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from epvs_cohort.cli.app import main
from epvs_cohort.model.roi_bundle import load_roi_bundle
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY

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

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Exit code, standard output and standard error of a command."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["epvs-cohort", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr()
        return int(left.value.code or 0), text.out, text.err

    return called


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


def test_people_may_be_chosen(call: Call, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["train-roi", "--anatomies", people, "--out", out, "--recipe", tmp_path / "tiny.toml"]
    code, _, said = call(*command)
    assert (code, "people '1-9' found" in said) == (3, True)
    code, told, said = call(*command, "--people", "b", "--validation-people", "1", "--device", "cpu")
    assert (code, said) == (0, "")
    assert f"{out}: tiny {load_roi_bundle(str(out)).model_id}" in told


def test_recipes_of_another_command_are_refused(call: Call, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, said = call("train-roi", "--anatomies", people, "--out", out, "--recipe", "gp-unet-sim")
    assert code == 2
    assert "trains a network that counts" in said
    code, _, said = call("train", "--out", out, "--recipe", "roi-network")
    assert code == 2
    assert "epvs-cohort train-roi takes it" in said
    assert not out.exists()
