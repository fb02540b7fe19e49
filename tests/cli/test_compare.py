"""The command compare: trains what lacks, uses what is there, and refuses what cannot be compared."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from epvs_cohort.data.tables import METADATA_KEY
from epvs_cohort.model.bundle import load_bundle
from tests.cli.comparing import make_cohort, of
from tests.cli.conftest import Call

N_SCANS = 30


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("compare"), N_SCANS)


@pytest.fixture
def compared(cohort: Path, command: Call) -> Path:
    """The output of a comparison that trained both networks; made once."""
    out = cohort / "out"
    if not (out / "table.md").exists():
        code, said, err = command(*of(cohort, "out"))
        assert code == 0, err
        assert "Split by subject (seed 1): 18 scans of 18 subjects to train (3 counted 0), 6 scans" in err
        assert "epoch 12/12" in err
        assert "6/6 scans tried for the weight of method f" in err
        assert "6/6 scans tried by every method" in err
        assert "(e) Regression FCN" in said
    return out


def test_everything_is_trained_tuned_and_measured(compared: Path) -> None:
    table = pd.read_parquet(compared / "table.parquet").set_index("method")
    assert list(table.index) == list("abcdef")
    assert set(table["scans"]) == {6}
    e = table.loc["e"]
    assert e["tpr"] > 0.5, "the heatmap of a network that learned from counts lies on the blobs"
    assert table.loc["a"]["tpr"] > 0.8, "nothing else is as bright"
    assert (table["tpr"] == table["matched"] / table["lesions"]).all()
    assert np.allclose(table["fpav"], (table["found"] - table["matched"]) / 6)
    assert ((table["tpr_low"] <= table["tpr"]) & (table["tpr"] <= table["tpr_high"])).all()
    assert table.loc["c", "model_id"] == e["model_id"] != table.loc["b", "model_id"]
    assert e["paper_tpr"] == pytest.approx(0.548)
    assert (table["seconds"] > 0).all()
    about = json.loads(pq.read_schema(compared / "table.parquet").metadata[METADATA_KEY])
    assert about["table"] == "comparison"
    assert about["models"]["fcn"]["model_id"] == e["model_id"]
    for name in ("table", "differences", "curves", "scans"):
        text, binary = pd.read_csv(compared / f"{name}.csv"), pd.read_parquet(compared / f"{name}.parquet")
        assert len(text) == len(binary) > 0


def test_differences_and_curves_agree_with_the_table(compared: Path) -> None:
    table = pd.read_parquet(compared / "table.parquet").set_index("method")
    differences = pd.read_parquet(compared / "differences.parquet")
    assert len(differences) == 15 * 5
    for row in differences[differences["measure"] == "tpr"].to_dict("records"):
        expected = table.loc[row["method"], "tpr"] - table.loc[row["minus"], "tpr"]
        assert row["difference"] == pytest.approx(expected)
    curves = pd.read_parquet(compared / "curves.parquet")
    for _, curve in curves.groupby("method"):
        assert (np.diff(curve["threshold"]) < 0).all()
        assert curve["tpr"].between(0, 1).all()
    scans = pd.read_parquet(compared / "scans.parquet")
    by_method = scans.groupby("method")[["found", "matched"]].sum()
    assert by_method["found"].to_dict() == table["found"].to_dict()


def test_the_page_and_the_pictures_show_it(compared: Path) -> None:
    page = (compared / "comparison.html").read_text()
    markdown = (compared / "table.md").read_text()
    for text in (page, markdown):
        assert "real scans of the Rotterdam Study" in text
        assert "54.8" in text
    assert "trained on the training scans of this comparison" in markdown
    assert "tuned on 6 marked validation scans" in markdown
    assert "on one thread of a CPU" in markdown
    assert "differ in more than the upsampling path" not in markdown
    assert "simulated" not in markdown
    assert page.count("<polyline") >= 6
    assert page.count('class="dot ring m-') == 6
    assert 'src="http' not in page
    pictures = sorted((compared / "panels").glob("*.png"))
    assert 1 <= len(pictures) <= 3
    with Pillow.open(pictures[0]) as opened:
        pixels = np.asarray(opened.convert("RGB")).reshape(-1, 3)
    assert (pixels == (60, 220, 120)).all(axis=1).any()


def test_ready_models_are_used_and_nothing_is_trained(cohort: Path, compared: Path, command: Call) -> None:
    models = compared / "models"
    code, _, err = command(*of(cohort, "again", "--models", models))
    assert code == 0, err
    assert "training " not in err
    one, two = (pd.read_parquet(out / "table.parquet") for out in (compared, cohort / "again"))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))
    assert not (cohort / "again" / "models").exists()


def test_a_named_bundle_lacks_no_training_and_its_weight_is_tuned_here(
    cohort: Path, compared: Path, command: Call
) -> None:
    elsewhere = shutil.copytree(compared / "models" / "fcn", cohort / "elsewhere")
    code, said, err = command(*of(cohort, "named", "--model", elsewhere, "--methods", "f,e,a"))
    assert code == 0, err
    assert "training " not in err
    assert "6/6 scans counted for the weight of method f" in err
    assert "tuned on 6 marked validation scans" in said
    assert "whether it knows people of the test scans is not checked" in said
    assert list(pd.read_parquet(cohort / "named" / "table.parquet")["method"]) == ["a", "e", "f"]


def test_models_that_know_test_scans_are_refused(cohort: Path, compared: Path, command: Call) -> None:
    code, _, err = command(*of(cohort, "leak", "--models", compared / "models", "--seed", 2))
    assert code == 3
    assert re.search(
        r"split.csv: model .* was trained or tuned on subjects of \d test scans, or .*: sub-", err
    )
    assert not (cohort / "leak" / "table.md").exists()


def test_only_the_network_that_lacks_is_trained(cohort: Path, compared: Path, command: Call) -> None:
    fcn = compared / "models" / "fcn"
    code, _, err = command(*of(cohort, "half", "--model", fcn, "--methods", "d,e", "--max-minutes", 0.05))
    assert code == 0, err
    trained = sorted(path.name for path in (cohort / "half" / "models").iterdir())
    assert trained == ["regression", "regression.split.csv"]
    card = load_bundle(str(cohort / "half" / "models" / "regression")).card
    assert card.architecture.upsampling == "none"
    assert card.score_weight is None
    assert len(pd.read_parquet(cohort / "half" / "differences.parquet")) == 5


def test_test_scans_without_marks_are_left_out_by_name(cohort: Path, compared: Path, command: Call) -> None:
    points = cohort / "some.csv"
    lines = (cohort / "points.csv").read_text().splitlines()
    keys = sorted({line.split(",")[0] for line in lines[1:]})
    points.write_text("\n".join(line for line in lines if not line.startswith(keys[0])) + "\n")
    split = cohort / "all.csv"
    counted = (cohort / "counts.csv").read_text().splitlines()[1:]
    split.write_text("scan,split\n" + "".join(f"{line.split(',')[0]},test\n" for line in counted))
    fcn = shutil.copytree(compared / "models" / "fcn", cohort / "unknown")
    code, said, err = command(
        *of(cohort, "unmarked", "--model", fcn, "--methods", "e", "--split", split), "--points", points
    )
    assert code == 0, err
    assert f"1 test scans have a count and no marked lesion, and are left out: {keys[0]}." in said
    assert set(pd.read_parquet(cohort / "unmarked" / "table.parquet")["scans"]) == {N_SCANS - 1}


def test_f_without_anything_to_tune_it_on_is_refused_before_any_work(cohort: Path, command: Call) -> None:
    split = cohort / "no-marks.csv"
    points = cohort / "few.csv"
    counted = [line.split(",")[0] for line in (cohort / "counts.csv").read_text().splitlines()[1:]]
    parts = ["training"] * 20 + ["validation"] * 5 + ["test"] * 5
    rows = zip(counted, parts, strict=True)
    split.write_text("scan,split\n" + "".join(f"{key},{part}\n" for key, part in rows))
    marked = [
        line
        for line in (cohort / "points.csv").read_text().splitlines()
        if line.split(",")[0] not in counted[:25]
    ]
    points.write_text("\n".join(marked) + "\n")
    code, _, err = command(*of(cohort, "unweighted", "--split", split), "--points", points)
    assert (code, "none is marked, and the network is to be trained" in err) == (3, True)
    assert not (cohort / "unweighted" / "models").exists()


def test_a_full_folder_and_wrong_letters_are_refused(cohort: Path, command: Call) -> None:
    (cohort / "full").mkdir()
    (cohort / "full" / "notes.txt").write_text("mine")
    code, _, err = command(*of(cohort, "full"))
    assert (code, "found notes.txt" in err) == (2, True)
    code, _, err = command(*of(cohort, "new", "--methods", "a,g"))
    assert (code, "--methods: 'g'" in err) == (2, True)
    assert not (cohort / "new").exists()


def test_what_cannot_be_trained_or_does_not_fit_is_said_before_any_work(
    cohort: Path, compared: Path, command: Call
) -> None:
    code, _, err = command(*of(cohort, "windows", "--recipe", "regression-sim"))
    assert (code, "does not train on counted scans" in err) == (2, True)
    code, _, err = command(*of(cohort, "unfit", "--model", "gp-unet-sim"))
    assert (code, "does not fit protocol 'small'" in err) == (3, True)
    fcn = compared / "models" / "fcn"
    code, _, err = command(*of(cohort, "two", "--models", compared / "models", "--model", fcn))
    assert (code, "one of each is legal" in err) == (3, True)
