"""A cohort on disk: one seed, one set of bytes; tables agree with one another and with the images."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from epvs_cohort.cli.simulate import simulate
from epvs_cohort.data.files import temporary_beside
from epvs_cohort.errors import ConfigError, OutputError, UsageError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.simulate import people, prepared, render, scanner, tissue
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.simulate.cohort import SimulateOptions, parameters, rescan_folder, simulate_cohort
from epvs_cohort.simulate.people import Kind, draw_facts

OPTIONS = SimulateOptions(scans=2, seed=11, voxel_mm=(3.0, 3.0, 3.0))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "out"
    simulate_cohort(out, OPTIONS)
    return out


def hashes(folder: Path, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def test_counts_points_and_masks_agree(cohort: Path) -> None:
    counts = pd.read_csv(cohort / "counts.csv").set_index("scan")["count"]
    in_slice = pd.read_csv(cohort / "counts_ac_slice.csv").set_index("scan")["count"]
    points = pd.read_csv(cohort / "points.csv")
    assert list(counts.index) == ["sub-0001_PDw", "sub-0002_PDw"]
    assert counts.sum() > 0
    for scan in counts.index:
        own = points[points.scan == scan]
        assert len(own) == counts[scan]
        assert own.in_ac_slice.sum() == in_slice[scan]
        assert own.ac_x_mm.notna().sum() == in_slice[scan]
        subject = scan.split("_")[0]
        mask = cohort / f"derivatives/truth/{subject}/anat/{subject}_desc-lesions_dseg.nii.gz"
        labels = np.asarray(nib.load(mask).dataobj)
        assert set(np.unique(labels)) <= set(range(len(own) + 1))
        assert labels.any()


def test_layout_side_cars_and_statement(cohort: Path) -> None:
    scan = nib.load(cohort / "sub-0001/anat/sub-0001_PDw.nii.gz")
    assert scan.get_data_dtype() == np.int16
    assert scan.header.get_zooms() == pytest.approx((3.0, 3.0, 3.0))
    side_car = json.loads((cohort / "sub-0001/anat/sub-0001_PDw.json").read_text())
    assert {"Manufacturer", "ManufacturersModelName", "MagneticFieldStrength"} <= set(side_car)
    for name in ("sub-0001/anat/sub-0001_PDw.json", "dataset_description.json", "simulation.json"):
        assert "Simulated by" in (cohort / name).read_text()
    people = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(people.participant_id) == ["sub-0001", "sub-0002"]
    assert people.age.between(45, 95).all()
    assert set(people.sex) <= {"F", "M"}
    assert people.icv_ml.between(900, 2300).all()


def test_same_seed_same_bytes_whatever_the_processes_and_the_number(cohort: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    simulate_cohort(again, replace(OPTIONS, n_procs=2))
    assert hashes(again, "*") == hashes(cohort, "*")
    fewer = tmp_path / "fewer"
    simulate_cohort(fewer, replace(OPTIONS, scans=1))
    assert hashes(fewer, "sub-0001*.nii.gz").items() <= hashes(cohort, "*.nii.gz").items()


def test_without_lesions_the_heads_stay(cohort: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    simulate_cohort(plain, replace(OPTIONS, scans=1, with_lesions=False))
    assert pd.read_csv(plain / "counts.csv")["count"].tolist() == [0]
    assert pd.read_csv(plain / "points.csv").empty
    one, other = (
        np.asarray(nib.load(f / "sub-0001/anat/sub-0001_PDw.nii.gz").dataobj) for f in (plain, cohort)
    )
    assert 0 < (one != other).sum() < 0.01 * one.size


def test_counts_go_with_age_in_evaluation_only() -> None:
    ranks = (0.0, 0.5, 1.0)
    rows = {}
    for kind in get_args(Kind):
        facts = [draw_facts(np.random.default_rng([7, n]), kind, ranks) for n in range(1500)]
        ages = [fact.age for fact in facts]
        rows[kind] = [
            np.corrcoef(ages, [getattr(fact, name) for fact in facts])[0, 1]
            for name in ("count", "growth", "anatomy")
        ]
    assert min(rows["evaluation"]) > 0.12
    assert np.abs(rows["training"]).max() < 0.08


def test_bad_options_are_named(tmp_path: Path, cohort: Path) -> None:
    with pytest.raises(UsageError, match="scans 0"):
        simulate_cohort(tmp_path / "a", replace(OPTIONS, scans=0))
    with pytest.raises(UsageError, match=r"0\.1"):
        simulate_cohort(tmp_path / "a", replace(OPTIONS, voxel_mm=(0.1, 1.0, 1.0)))
    with pytest.raises(UsageError, match="found something"):
        simulate_cohort(cohort, OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        simulate_cohort(tmp_path / "file", OPTIONS)
    with pytest.raises(ConfigError, match="no label map"):
        simulate_cohort(tmp_path / "a", replace(OPTIONS, anatomies=tmp_path))
    with pytest.raises(UsageError, match="nothing lies beside"):
        simulate_cohort(Path("/"), replace(OPTIONS, rescan="same"))


def test_a_run_that_stops_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, asked: int) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "new", tmp_path / "there"):
        if out.name == "there":
            out.mkdir()
        with pytest.raises(KeyboardInterrupt):
            simulate_cohort(out, replace(OPTIONS, scans=1, voxel_mm=(4.0, 4.0, 4.0)), stop)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_what_a_killed_run_left_beside_is_swept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = temporary_beside(out)
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", "-999999999-"))
    left.mkdir()
    (left / "points.csv").write_text("half of it")
    own.mkdir()
    simulate_cohort(out, replace(OPTIONS, scans=1, voxel_mm=(4.0, 4.0, 4.0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [own.name, "out"]


def test_a_place_that_is_taken_meanwhile_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def take(done: int, asked: int) -> None:
        (out / "sub-0001").mkdir(parents=True)

    with pytest.raises(OutputError, match=r"out: cannot be written: .*not empty"):
        simulate_cohort(out, replace(OPTIONS, scans=1, voxel_mm=(4.0, 4.0, 4.0)), take)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "sub-0001"]


def test_a_folder_that_is_there_is_filled(cohort: Path, tmp_path: Path) -> None:
    simulate_cohort(tmp_path, replace(OPTIONS, scans=1))
    assert hashes(tmp_path, "sub-0001*").items() <= hashes(cohort, "sub-0001*").items()
    assert (tmp_path / "simulation.json").is_file()
    assert [path.name for path in tmp_path.glob(".*")] == [".bidsignore"]


def test_settings_follow_what_images_depend_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = json.loads((cohort / "simulation.json").read_text())
    assert written == json.loads(
        json.dumps({"statement": written["statement"], "visit": 1, **parameters(OPTIONS)})
    )
    digest = hashlib.sha256(BUNDLED_ANATOMY.read_bytes()).hexdigest()
    assert written["settings"]["anatomies"] == {BUNDLED_ANATOMY.name: digest}
    for module, name, value in (
        (prepared, "DETAIL_BLUR", 0.9), (render, "FADE_MM", 6.0), (people, "GROWTH", (-0.1, 0.1)),
        (people, "GROWTH_NOISE", 0.2), (scanner, "BIAS_MM", 50.0), (tissue, "SHADING_MM", 9.0),
    ):  # fmt: skip
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            assert parameters(OPTIONS)["settings_id"] != written["settings_id"], name
    for text in ("one", "other"):
        (tmp_path / "a.nii.gz").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        settings = parameters(replace(OPTIONS, anatomies=tmp_path))["settings"]
        assert isinstance(settings, dict)
        assert settings["anatomies"] == {"a.nii.gz": digest}


def command(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, list(arguments))


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = command(
        str(out), "--scans", "1", "--seed", "3", "--voxel", "4,4,4", "--no-lesions", "--figures", "--rescan",
        "--rescan-scanner", "new",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for folder in (out, tmp_path / "out-rescan"):
        assert pd.read_csv(folder / "counts.csv")["count"].tolist() == [0]
        assert (folder / "figures.html").is_file()
        assert (folder / "figures" / "sub-0001_PDw.png").is_file()
        assert json.loads((folder / "simulation.json").read_text())["settings"]["rescan"]["scanner"] == "new"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--true-slice"], "--true-slice is of prepared volumes"),
        (["--prepared", "--voxel", "1,1,1"], "--voxel"),
        (["--protocol", "rotterdam-basal-ganglia"], "--protocol"),
        (["--rescan-scanner", "new"], "--rescan-scanner"),
        (["--voxel", "1,1"], "three numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str], named: str) -> None:
    result = command(str(tmp_path / "out"), "--scans", "1", *options)
    assert isinstance(result.exception, UsageError)
    assert named in result.exception.message
    assert not list(tmp_path.iterdir())


def test_a_second_visit_keeps_person_and_scanner(tmp_path: Path) -> None:
    options = replace(OPTIONS, scans=1, rescan="same")
    simulate_cohort(tmp_path / "out", options)
    first, second = tmp_path / "out", rescan_folder(tmp_path / "out")
    cars = [json.loads((f / "sub-0001/anat/sub-0001_PDw.json").read_text()) for f in (first, second)]
    assert cars[0].pop("AcquisitionDate") < cars[1].pop("AcquisitionDate")
    assert cars[0] == cars[1]
    facts = "derivatives/truth/sub-0001/anat/sub-0001_desc-truth.json"
    truths = [json.loads((folder / facts).read_text()) for folder in (first, second)]
    assert truths[0]["noise_sigma"] == truths[1]["noise_sigma"]
    assert truths[0]["native_from_person"] != truths[1]["native_from_person"]
    one, two = (pd.read_csv(folder / "points.csv") for folder in (first, second))
    same = ["lesion", "region", "length_mm", "radius_mm", "contrast"]
    pd.testing.assert_frame_equal(one[same], two[same])
    poses = [np.array(truth["native_from_person"]) for truth in truths]
    in_person = [
        apply_affine(np.linalg.inv(pose), points[["x_mm", "y_mm", "z_mm"]].to_numpy())
        for pose, points in zip(poses, (one, two), strict=True)
    ]
    np.testing.assert_allclose(in_person[0], in_person[1], atol=0.01)
    assert [json.loads((f / "simulation.json").read_text())["visit"] for f in (first, second)] == [1, 2]
