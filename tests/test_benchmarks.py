"""The commands that documented figures come from: what they measure, on cases worked out by hand; that they run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch

from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.model.bundle import ModelCard, Requirements, load_bundle, save_bundle
from epvs_cohort.model.bundle_files import NO_HASH
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import Protocol, load_protocol
from epvs_cohort.records import AcSlice, Float32Array, MniMap, Prediction, PreparedVolume
from epvs_cohort.train.recipe import ScanRecipe, load_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHAPE = (24, 20, 16)
MODEL = "gp-unet-sim"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    """Import a file of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def frame() -> pd.DataFrame:
    """Six scans of six people: one failed, one flagged."""
    return pd.DataFrame(
        {
            "scan": [f"sub-{n}_PDw" for n in range(6)],
            "subject": [str(n) for n in range(6)],
            "status": ["ok", "ok", "flagged", "ok", "ok", "failed"],
            "flags": [[], [], ["snr 2 below 5"], [], [], []],
            "error_message": [None, None, None, None, None, "sub-5_PDw.nii.gz: truncated"],
            "anatomy": ["anatomy_12", "anatomy_12", "anatomy_12", "anatomy_13", "anatomy_13", "anatomy_13"],
            "truth": [0, 2, 4, 6, 20, 9],
            "estimate": [1.0, 2.0, 4.0, 5.0, 16.0, np.nan],
        }
    )


def test_failed_scans_are_named_and_flagged_ones_counted(load: object, frame: pd.DataFrame) -> None:
    counts = _module(load, "heldout_counts").count_measures(frame)
    assert counts["failed"] == {"sub-5_PDw": "sub-5_PDw.nii.gz: truncated"}
    assert counts["flagged"] == {"sub-2_PDw": ["snr 2 below 5"]}
    assert (counts["scans"], counts["all"]["scans"], counts["unflagged"]["scans"]) == (6, 5, 4)
    assert counts["mean_truth"] == pytest.approx(41 / 6)
    assert counts["all"]["mae"] == pytest.approx((1 + 0 + 0 + 1 + 4) / 5)
    assert counts["by_anatomy"]["anatomy_13"]["scans"] == 2
    low, middle, high = counts["thirds"]
    assert (low["counts"], middle["counts"], high["counts"]) == ([0, 2], [4, 4], [6, 20])
    assert (high["mae"], high["bias"]) == (pytest.approx(2.5), pytest.approx(-2.5))


def test_readers_and_second_visits_are_those_of_the_same_scans(load: object, frame: pd.DataFrame) -> None:
    module = _module(load, "heldout_counts")
    # In another order than the scans, and A again is the worse reading.
    readings = pd.concat(
        pd.DataFrame({"scan": frame["scan"], "count": frame["truth"] + shift, "reader": reader})
        for reader, shift in (("A", 0), ("A again", [9, -2, 5, -6, 4, 0]), ("B", 2))
    ).iloc[::-1]
    readers = module.reader_measures(frame, readings)
    assert readers["scans"] == 5
    assert readers["icc_a_truth"]["value"] == pytest.approx(1.0)
    gain = readers["icc_estimate_a"]["value"] - readers["icc_a_again_a"]["value"]
    assert readers["icc_estimate_a_above_a_again_a"]["value"] == pytest.approx(gain)
    assert gain > 0.1
    second = pd.Series(frame["estimate"].to_numpy() + 1.0, index=frame["scan"]).iloc[::-1]
    rescan = module.rescan_measures(frame, second)
    assert rescan["left_out"] == ["sub-5_PDw"]
    assert rescan["mean_difference"] == rescan["mean_absolute_difference"] == pytest.approx(1.0)


def test_what_lesion_free_counts_follow_is_the_line_over_the_range(load: object) -> None:
    size = pd.Series([10.0, 20.0, 50.0, 30.0], index=list("abcd"))
    estimate = pd.Series([0.1, 0.2, 0.5, np.nan], index=list("abcd"))
    found = _module(load, "heldout_counts").ventricle_measures(estimate, size)
    assert found["failed"] == ["d"]
    assert found["slope_per_ml"] == pytest.approx(0.01)
    assert found["change"]["value"] == pytest.approx(0.4)


def test_lesions_are_matched_in_voxels_of_the_prepared_grid(load: object, tmp_path: Path) -> None:
    module = _module(load, "heldout_lesions")
    volume, heat = _volume(), np.zeros(SHAPE, dtype=np.float32)
    # Two rods along k, the first through slice 8; and a lesion that the network does not see.
    heat[4, 5, 6:10], heat[18, 10, 2:5] = 9.0, 8.0
    job = _job(module, tmp_path, volume, heat, [[4, 5, 7.5], [18, 10, 5.5], [12, 15, 12]], [[4, 5, 8]])
    measured = module.measure_scan(job)
    figures = measured.figures
    # The second centre is found at k = 3, 2.5 voxels off; at 1.6 mm a voxel it would be 4 mm.
    assert _numbers(figures["roi", "e"]) == (3, 2, 2)
    assert measured.slices_off == 1
    # One slice further up the rod still passes through: its cross-section is one voxel off.
    assert _numbers(figures["ac", "e"]) == (1, 1, 1)
    assert _numbers(figures["ac_given", "e"]) == (1, 1, 1)


def test_intensities_alone_mark_as_many_as_there_are(load: object, tmp_path: Path) -> None:
    module = _module(load, "heldout_lesions")
    volume = _volume()
    volume.intensities[4, 5, 7] = volume.intensities[18, 10, 3] = 1.0
    volume.intensities[10, 10, 10] = 0.9
    heat = np.zeros(SHAPE, dtype=np.float32)
    job = _job(module, tmp_path, volume, heat, [[4, 5, 7], [18, 10, 3]], [], count=0.0)
    figures = module.measure_scan(job).figures
    assert _numbers(figures["roi", "a"]) == (2, 2, 2)
    assert _numbers(figures["roi", "e"]) == (2, 0, 0)


def test_a_network_of_the_slice_counts_another_slice_again(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _module(load, "heldout_lesions")
    volume, heat = _volume(), np.zeros(SHAPE, dtype=np.float32)
    heat[4, 5, 8:10], heat[12, 5, 8:10] = 9.0, 8.0
    job = _job(module, tmp_path, volume, heat, [], [[4, 5, 8], [12, 5, 8]], count=1.0)
    own, aims = job.protocol, []  # type: ignore[attr-defined]

    def counted_again(_bundle: object, given: PreparedVolume) -> Prediction:
        aims.append(given.ac)
        return Prediction(given.key, 2.0, heat[given.mask], "again")

    monkeypatch.setattr(module, "_predicted", counted_again)
    kept = module.measure_scan(job).figures
    assert (_numbers(kept["ac_given", "e"]), aims) == ((2, 1, 1), [])
    sliced = replace(job, protocol=own.model_copy(update={"count_target": "ac_slice"}))  # type: ignore[type-var]
    figures = module.measure_scan(sliced).figures
    assert aims == [AcSlice(2, 8)]
    assert _numbers(figures["ac", "e"]) == (2, 1, 1)
    assert _numbers(figures["ac_given", "e"]) == (2, 2, 2)


def test_an_aim_is_reached_between_its_bounds(load: object) -> None:
    aim = _module(load, "heldout_table").Aim
    assert [aim("", value, 0.35, 0.5).reached for value in (0.34, 0.35, 0.5, 0.51)] == [
        False,
        True,
        True,
        False,
    ]
    above = [aim("", value, low=0.74, strict=True).reached for value in (0.73, 0.74, 0.75)]
    assert above == [False, False, True]
    assert [aim("", value, high=0.5, strict=True).reached for value in (0.4, 0.5)] == [True, False]
    assert aim("", None, low=0.95).reached is None
    assert (aim("", 1.0, low=0.74, strict=True).must_be, aim("", 1.0, high=0.15).must_be) == (
        "> 0.74",
        "<= 0.15",
    )


def test_lesions_of_a_failed_scan_are_missed(load: object, tmp_path: Path) -> None:
    module = _module(load, "heldout_lesions")
    heat = np.zeros(SHAPE, dtype=np.float32)
    job = _job(module, tmp_path, _volume(), heat, [[4, 5, 7], [18, 10, 3]], [[4, 5, 8]], counted=False)
    measured = module.measure_scan(job)
    assert _numbers(measured.figures["roi", "f"]) == (2, 0, 0)
    assert _numbers(measured.figures["ac", "f"]) == (1, 0, 0)
    assert measured.notes == ["failed; its lesions count as missed"]


def _module(load: object, name: str) -> ModuleType:
    assert callable(load)
    module = load(name)
    assert isinstance(module, ModuleType)
    return module


def _numbers(figures: object) -> tuple[int, int, int]:
    return (figures.true, figures.found, figures.matched)  # type: ignore[attr-defined]


def _volume() -> PreparedVolume:
    """A grid of anisotropic voxels, and a scan whose slices are the grid's."""
    native_from_grid = np.diag([0.5, 0.5, 1.6, 1.0])
    native_from_grid[:3, 3] = [-3.0, 4.0, 5.0]
    return PreparedVolume(
        key="sub-01_PDw",
        intensities=np.full(SHAPE, 0.2, dtype=np.float32),
        labels=np.ones(SHAPE, dtype=np.uint8),
        regions={1: "left putamen"},
        native_from_grid=native_from_grid,
        rigid_from_native=np.eye(4),
        mni=MniMap(native_from_grid, np.zeros((2, 2, 2, 3)), SHAPE),
        native=Grid(SHAPE, native_from_grid),
        ac=AcSlice(2, 9),
        quality=(),
    )


def _job(  # the parts of one scan
    module: ModuleType,
    folder: Path,
    volume: PreparedVolume,
    heat: Float32Array,
    centers: list[list[float]],
    crossings: list[list[float]],
    *,
    count: float = 2.0,
    counted: bool = True,
) -> object:
    store = PreparedStore(folder)
    store.save(volume, Provenance("f" * 16, "p" * 16, "/scan.nii", "{}", "0" * 64, {}, 1.0))
    checksum = store.load(volume.key).checksum
    store.save_heat(Prediction(volume.key, count, heat[volume.mask], load_bundle(MODEL).model_id), checksum)

    def in_mm(points: list[list[float]]) -> FloatArray:
        voxels = np.array(points, dtype=np.float64).reshape(-1, 3)
        return np.asarray(voxels * (0.5, 0.5, 1.6) + (-3.0, 4.0, 5.0), dtype=np.float64)

    truth = module.LesionTruth(in_mm(centers), in_mm(crossings), AcSlice(2, 8))
    return module.Job(volume.key, folder, MODEL, Protocol(), truth, counted)


def test_the_shuffled_study_has_the_same_counts_of_other_scans(load: object, tmp_path: Path) -> None:
    module = _module(load, "learning_curve")
    study, options = tmp_path / "study", _curve_options(module, tmp_path)
    study.mkdir()
    rows = [
        f"sub-{n:04d}_PDw,{n + shift},{reader}" for n in range(8) for reader, shift in (("A", 0), ("B", 50))
    ]
    (study / "counts_rater.csv").write_text("\n".join(["scan,count,reader", *rows]) + "\n")
    true = pd.read_csv(module.counts_table(module.Point("scratch", 6), study, options))
    assert dict(zip(true["scan"], true["count"], strict=True)) == {f"sub-{n:04d}_PDw": n for n in range(6)}
    shuffled = pd.read_csv(module.counts_table(module.Point("shuffled", 6), study, options))
    assert list(shuffled["scan"]) == list(true["scan"])
    assert sorted(shuffled["count"]) == sorted(true["count"])
    assert (shuffled["count"] != true["count"]).sum() >= 3


def test_each_named_setting_changes_the_recipe_in_its_place_alone(load: object, tmp_path: Path) -> None:
    module = _module(load, "training_settings")
    options = module.parse(["--work", str(tmp_path)])
    recipes = {name: load_recipe(str(module.recipe_file(name, options))) for name in module.ROWS}
    base = recipes["base"].model_dump(exclude={"name"})
    assert base["architecture"]["widths"] == module.WIDTHS
    shallow = recipes["shallow"].model_dump(exclude={"name"})
    assert shallow == load_recipe("one-by-one").model_dump(exclude={"name"})
    paper = recipes["paper"].model_dump(exclude={"name", "epochs", "validate_every", "description"})
    assert paper.items() <= load_recipe("paper").model_dump().items()
    for name, row in module.ROWS.items():
        changed = {
            key for key, value in recipes[name].model_dump(exclude={"name"}).items() if value != base[key]
        }
        assert changed == set(row.changes), name
        if "architecture" in changed:
            network = recipes[name].model_dump()["architecture"]
            other = {key for key, value in network.items() if value != base["architecture"][key]}
            assert other == set(row.changes["architecture"]), name
    coarse = load_protocol(str(module.coarse_protocol(options.factor, tmp_path))).grid
    assert coarse.spacing_mm == pytest.approx((0.98, 0.98, 1.6))
    assert all(size % 8 == 0 for size in coarse.shape)


@pytest.mark.parametrize("name", ["one-by-one", "fine-tune"])
def test_sums_over_sets_show_as_many_volumes_a_step(load: object, tmp_path: Path, name: str) -> None:
    module = _module(load, "learning_curve")
    own = load_recipe(name)
    sets = load_recipe(str(module.recipe_of_sets(name, _curve_options(module, tmp_path))))
    assert isinstance(own, ScanRecipe)
    assert isinstance(sets, ScanRecipe)
    assert (sets.set_size, sets.batch) == (4, 1)
    assert sets.model_dump(exclude={"set_size", "batch", "name"}) == own.model_dump(
        exclude={"set_size", "batch", "name"}
    )


def test_each_point_of_the_curve_is_drawn(load: object) -> None:
    module = _module(load, "learning_curve")
    icc = {"value": 0.8, "low": 0.7, "high": 0.9}
    points = [{"start": "untrained", "scans": 0, "icc": icc}]
    points += [
        {"start": start, "scans": n, "icc": icc} for start in ("init", "scratch") for n in (25, 50, 100)
    ]
    points.append({"start": "shuffled", "scans": 100, "icc": {"value": -0.1, "low": -0.3, "high": 0.2}})
    root = ElementTree.fromstring(module.drawing_of(points, 3))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "Orange: from random weights on voxels 3 times as long" in "".join(root.itertext())
    dots = [each for each in root.iter() if each.tag.endswith("circle")]
    assert len(dots) == 7
    assert sum("line" in each.get("class", "").split() for each in root.iter()) == 1 + 7 + 2


def _curve_options(module: ModuleType, folder: Path) -> object:
    return module.parse(["--work", str(folder), "--hydranet", "4"])


@pytest.mark.slow
def test_both_loops_are_timed_in_the_same_run(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, str(BENCHMARKS / "training_speed.py"), "--quick", "--shape", "48,40,24"]
    command += ["--batch", "2", "--threads", "1", "--device", "cpu", "--widths", "2,4", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(out.read_text())["scans_per_second"]["cpu"]
    assert {way: len(turns) for way, turns in found.items()} == {"plain": 1, "ours": 1}
    assert min(found["plain"] + found["ours"]) > 0
    assert "| CPU" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_heldout_measures_what_it_simulates_and_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "heldout.py"),
        "--scans",
        "2",
        "--voxel",
        "1.5,1.5,2",
        "--second-visits",
        "2",
    ]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "figures.json"), "--seed", "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["counts"]["scans"], figures["rescan"]["pairs"]) == (2, 2)
    assert figures["lesions"]["measures"]["roi f"]["scans"] == 2
    assert figures["about"]["images_id"] in first.stdout
    assert "NOT held out" in first.stdout
    images = tmp_path / "work" / "scans" / "sub-0001" / "anat"
    drawn = {path.name: path.stat().st_mtime_ns for path in images.iterdir()}
    assert (tmp_path / "figures.md").read_text() in first.stdout
    again = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert again.stdout == first.stdout
    assert {path.name: path.stat().st_mtime_ns for path in images.iterdir()} == drawn


def test_the_methods_are_compared_on_the_scans_that_were_held_out(load: object, tmp_path: Path) -> None:
    work = tmp_path / "work"
    _random_regression(work / "regression-sim")
    command = [sys.executable, str(BENCHMARKS / "heldout_methods.py"), "--work", str(work), "--scans", "2"]
    command += ["--voxel", "1.5,1.5,2", "--n-procs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    table = pd.read_parquet(work / "comparison" / "table.parquet")
    assert table["method"].tolist() == list("abcdef")
    assert (work / "comparison" / "table.md").read_text() in told
    assert "Paired differences with method (e)" in told
    found = pd.read_parquet(work / "comparison" / "scans.parquet")
    ours = found[found["method"] == "e"]
    rate = 100.0 * ours["matched"].sum() / ours["true"].sum()
    cells = [cell.strip() for cell in told.strip().splitlines()[-1].split("|")[1:-1]]
    assert (cells[1], cells[-2]) == ("2", f"{rate:.1f}")
    drawn = json.loads((work / "scans" / "simulation.json").read_text())
    assert drawn["seed"] == _module(load, "heldout").SEED


def _random_regression(folder: Path) -> None:
    """A network without upsampling path that learned nothing."""
    architecture = Architecture(widths=(2, 2, 2), convs_per_level=1, upsampling="none", pooling="sum")
    card = ModelCard(
        name="random",
        architecture=architecture,
        count_target="roi",
        requires=Requirements.of(load_protocol("rotterdam-basal-ganglia")),
        trained_on="nothing: random weights of a test",
        supervision="none",
        weights_sha256=NO_HASH,
    )
    torch.manual_seed(2)
    save_bundle(folder, card, GpUnet(architecture), "A test.\n")
