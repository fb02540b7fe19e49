"""A whole run on a real cluster of processes: one row a scan, the same again, and only what changed is redone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.infer_task import map_paths
from epvs_cohort.cohort.run import Progress, RunRequest, make_ready, summary_error
from epvs_cohort.data.cohort_tables import Cohort, read_cohort
from epvs_cohort.data.decisions import Decision, decisions_in
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.data.files import TEMPORARY_SUFFIX
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.store import VOLUME, PreparedStore
from epvs_cohort.errors import ManifestError, ModelError, UsageError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.protocol import DetectionSettings, Protocol
from tests.cohort.conftest import TWO_PROCESSES, Counted

TIMES = ["seconds_prepare", "seconds_infer"]


def same_tables(one: Cohort, other: Cohort) -> None:
    # A column without nulls holds integers, one with nulls does not.
    first, second = (cohort.scans.drop(columns=TIMES) for cohort in (one, other))
    pd.testing.assert_frame_equal(first, second, check_dtype=False)
    pd.testing.assert_frame_equal(one.lesions, other.lesions)
    pd.testing.assert_frame_equal(one.qc, other.qc)


def prepared_times(counted: Counted) -> dict[str, int]:
    store = PreparedStore(OutputPaths.of(counted.out).store)
    keys = [key for key in counted.cohort.scans["scan"] if store.provenance(key)]
    return {key: (store.folder(key) / VOLUME).stat().st_mtime_ns for key in keys}


def test_every_scan_asked_for_has_one_row(counted: Counted) -> None:
    scans = counted.cohort.scans
    assert scans["scan"].tolist() == [f"sub-000{n}_PDw" for n in range(1, 5)]
    assert counted.cohort.finished
    good, bad = scans.iloc[:3], scans.iloc[3]
    assert set(good["status"]) <= {"ok", "flagged"}
    assert bad["status"] == "failed"
    assert (bad["stage"], bad["error_kind"]) == ("prepare", "unreadable")
    assert "sub-0004_PDw.nii.gz" in bad["error_message"]
    assert pd.isna(bad["count"])
    assert pd.isna(bad["n_lesions"])
    assert summary_error(counted.cohort) == 4
    assert good["age"].notna().all()
    assert good["scanner"].notna().all()
    assert good["acquisition_date"].notna().all()
    assert good["trained_on"].str.contains("simulated").all()


def test_the_numbers_of_a_row_agree_with_the_other_tables(counted: Counted) -> None:
    cohort = counted.cohort
    lesions = cohort.lesions.groupby("scan")
    for row in cohort.scans[cohort.scans["status"] != "failed"].to_dict("records"):
        mine = lesions.get_group(row["scan"]) if row["n_lesions"] else cohort.lesions.iloc[:0]
        assert row["n_lesions"] == len(mine)
        assert row["n_left"] + row["n_right"] == len(mine)
        regions = ("caudate", "putamen", "pallidum", "accumbens", "other")
        assert [row[f"n_{region}"] for region in regions] == [(mine["region"] == r).sum() for r in regions]
        assert row["count_rounded"] == max(0, int(np.floor(row["count"] + 0.5)))
        measures = cohort.qc[cohort.qc["scan"] == row["scan"]]
        assert (measures["passed"] == False).sum() == len(row["flags"])  # noqa: E712
        assert measures["measure"].is_unique
        assert len(measures) >= 20


def test_coordinates_of_a_lesion_agree_with_the_scan_and_the_prepared_grid(counted: Counted) -> None:
    cohort = counted.cohort
    assert len(cohort.lesions) > 0
    for key, mine in cohort.lesions.groupby("scan"):
        row = cohort.scans.set_index("scan").loc[key]
        image = nib.load(row["path"])
        native = mine[["x_mm", "y_mm", "z_mm"]].to_numpy()
        voxels = mine[["i", "j", "k"]].to_numpy()
        np.testing.assert_allclose(apply_affine(image.affine, voxels), native, atol=1e-3)
        grid_from_native = np.array(row["grid_from_native"]).reshape(4, 4)
        on_grid = apply_affine(grid_from_native, native)
        assert (on_grid >= -0.5).all()
        assert (on_grid <= np.array([168, 128, 84]) - 0.5).all()
        # The basal ganglia in MNI space, with a margin for the mask.
        mni = mine[["mni_x_mm", "mni_y_mm", "mni_z_mm"]].to_numpy()
        assert (np.abs(mni[:, 0]) < 45).all()
        assert ((mni[:, 1] > -45) & (mni[:, 1] < 40)).all()
        assert ((mni[:, 2] > -30) & (mni[:, 2] < 40)).all()


def test_maps_and_pictures_are_written_for_counted_scans(counted: Counted) -> None:
    paths = OutputPaths.of(counted.out)
    row = counted.cohort.scans.iloc[0]
    heat_path, lesions_path = map_paths(paths.maps, row["scan"])
    scan, heat, lesions = (nib.load(path) for path in (row["path"], heat_path, lesions_path))
    assert heat.shape == lesions.shape == scan.shape
    np.testing.assert_allclose(heat.affine, scan.affine, atol=1e-4)
    assert set(np.unique(np.asarray(lesions.dataobj))) == set(range(int(row["n_lesions"]) + 1))
    pictures = list(paths.figures.glob("*.png"))
    of_cohort = {path.name for path in pictures if path.name.startswith("cohort.")}
    lesions_found = {"cohort.lesions.png"} if len(counted.cohort.lesions) else set()
    assert of_cohort == {"cohort.scans-001.png"} | lesions_found
    assert len(pictures) - len(of_cohort) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_decisions_become_columns_and_nothing_is_done_again(copied: Counted) -> None:
    before = prepared_times(copied)
    keys = copied.cohort.scans["scan"].tolist()
    decisions = {keys[0]: Decision("reject", "motion", "AB"), keys[3]: Decision("doubt")}
    request = RunRequest(copied.scans, copied.out, cluster=TWO_PROCESSES)
    again = run_cohort(replace(request, decisions=decisions), report=True)
    assert prepared_times(copied) == before
    assert again.scans["decision"].replace({np.nan: None}).tolist() == ["reject", None, None, "doubt"]
    assert again.scans["decision_reason"][0] == "motion"
    same_tables(copied.cohort, replace(again, scans=again.scans[copied.cohort.scans.columns]))
    assert decisions_in(again.scans) == decisions
    page = OutputPaths.of(copied.out).report.read_text()
    assert "0 accept, 1 doubt, 1 reject" in page
    # A run that is given no decisions has no such columns.
    assert "decision" not in run_cohort(request).scans.columns


def test_covariate_named_as_a_decision_is_refused_with_decisions_only(
    copied: Counted, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"scan,path,decision\na,{next(copied.scans.rglob('*_PDw.nii.gz'))},keep\n")
    request = RunRequest(path, tmp_path / "counts.parquet", cluster=TWO_PROCESSES)
    assert make_ready(request).discovery.scans[0].covariates == {"decision": "keep"}
    with pytest.raises(ManifestError, match="column decision would clash"):
        make_ready(replace(request, decisions={}))


def test_another_method_finds_as_many_elsewhere(copied: Counted) -> None:
    saliency = Protocol(detection=DetectionSettings(method="c"))
    request = RunRequest(copied.scans, copied.out, saliency, cluster=TWO_PROCESSES)
    again = run_cohort(request)
    good = again.scans[again.scans["status"] != "failed"]
    before = copied.cohort.scans.set_index("scan").loc[good["scan"]]
    assert set(good["method"]) == {"c"}
    assert good["count"].tolist() == before["count"].tolist()
    exact = good["threshold_how"] == "exact"
    assert (good["n_lesions"] == good["count_rounded"])[exact].all()
    assert not np.allclose(good["threshold"].to_numpy(), before["threshold"].to_numpy())


def test_a_method_that_the_model_cannot_do_is_refused_before_any_work(copied: Counted) -> None:
    for method in ("b", "d"):
        wanted = Protocol(detection=DetectionSettings.model_validate({"method": method}))
        with pytest.raises(ModelError, match=f"method {method}: .* needs a network without the upsampling"):
            make_ready(RunRequest(copied.scans, copied.out, wanted))


def test_nothing_temporary_is_left_and_a_scan_takes_five_files(counted: Counted) -> None:
    for folder in (counted.out.parent, counted.scans):
        assert not list(folder.rglob(f"*{TEMPORARY_SUFFIX}*"))
    for folder in OutputPaths.of(counted.out).store.iterdir():
        assert len(list(folder.iterdir())) <= 5


def test_one_process_counts_the_same_as_two(counted: Counted, tmp_path: Path) -> None:
    request = RunRequest(
        counted.scans,
        tmp_path / "one.parquet",
        cluster=replace(TWO_PROCESSES, n_procs=1),
        discover=DiscoverOptions(limit=1),
    )
    one = run_cohort(request)
    two = counted.cohort
    keys = set(one.scans["scan"])
    pick = [
        frame[frame["scan"].isin(keys)].reset_index(drop=True) for frame in (two.scans, two.lesions, two.qc)
    ]
    same_tables(one, Cohort(pick[0], pick[1], pick[2], about=two.about, n_asked=1))


def test_a_second_start_does_nothing_but_retry_the_failed(copied: Counted) -> None:
    before = prepared_times(copied)
    seen: list[Progress] = []
    request = RunRequest(copied.scans, copied.out, cluster=TWO_PROCESSES, save_maps=True)
    ready = make_ready(request)
    assert [scan.key for scan in ready.plan.todo] == ["sub-0004_PDw"]
    again = run_cohort(request, watch=lambda progress, _line: seen.append(progress))
    same_tables(again, copied.cohort)
    assert prepared_times(copied) == before
    assert (seen[-1].earlier, seen[-1].done, seen[-1].failed) == (3, 1, 1)


def test_changed_detection_keeps_prepared_volumes_and_heat(copied: Counted) -> None:
    before = prepared_times(copied)
    store = PreparedStore(OutputPaths.of(copied.out).store)
    heat = {key: (store.folder(key) / "heat.safetensors").stat().st_mtime_ns for key in before}
    protocol = Protocol(detection=DetectionSettings(connectivity=6, method="e"))
    again = run_cohort(RunRequest(copied.scans, copied.out, protocol, cluster=TWO_PROCESSES))
    assert prepared_times(copied) == before
    assert {key: (store.folder(key) / "heat.safetensors").stat().st_mtime_ns for key in before} == heat
    assert again.scans["count"].iloc[:3].tolist() == copied.cohort.scans["count"].iloc[:3].tolist()
    assert set(again.scans["method"]) == {"e"}


def test_flipped_bytes_in_the_store_are_made_again(copied: Counted) -> None:
    store = PreparedStore(OutputPaths.of(copied.out).store)
    path = store.folder("sub-0002_PDw") / VOLUME
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 0x55
    path.write_bytes(blob)
    (store.folder("sub-0002_PDw") / "heat.safetensors").unlink()
    request = RunRequest(copied.scans, copied.out, cluster=TWO_PROCESSES, verify=True)
    same_tables(run_cohort(request), copied.cohort)


def test_changed_bytes_of_one_input_redo_that_scan(copied: Counted, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(copied.scans, scans)
    (scans / "sub-0004" / "anat" / "sub-0004_PDw.nii.gz").unlink()
    request = RunRequest(scans, copied.out, cluster=TWO_PROCESSES)
    # Copied files have other inodes: they are hashed, found the same, and their volumes kept.
    before = prepared_times(copied)
    run_cohort(request)
    assert prepared_times(copied) == before
    target = scans / "sub-0001" / "anat" / "sub-0001_PDw.nii.gz"
    target.write_bytes((scans / "sub-0003" / "anat" / "sub-0003_PDw.nii.gz").read_bytes())
    assert [scan.key for scan in make_ready(request).plan.todo] == ["sub-0001_PDw"]
    again = run_cohort(request)
    after = prepared_times(copied)
    assert {key for key in before if before[key] != after[key]} == {"sub-0001_PDw"}
    assert again.scans["count"][0] == again.scans["count"][2]


def test_a_killed_driver_goes_on_and_ends_in_the_same_tables(counted: Counted, tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    command = [
        sys.executable,
        "-m",
        "epvs_cohort.cli.app",
        "run",
        str(counted.scans),
        "--out",
        str(out),
        "--n-procs",
        "2",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        store = tmp_path / "counts.store"
        deadline = time.monotonic() + 240
        while len(list(store.glob("*/heat.safetensors"))) < 1:
            assert time.monotonic() < deadline
            assert driver.poll() is None
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    assert not read_cohort(out).finished
    finished = subprocess.run([*command, "--save-maps"], check=False, capture_output=True, text=True)
    assert finished.returncode == 4, finished.stderr
    same_tables(read_cohort(out), counted.cohort)
    assert not list(tmp_path.rglob(f"*{TEMPORARY_SUFFIX}*"))


def test_an_output_that_is_no_table_of_ours_is_refused(counted: Counted, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(other)
    with pytest.raises(UsageError, match=r"other\.parquet.*not a table of epvs-cohort"):
        make_ready(RunRequest(counted.scans, other))


def test_the_examples_of_the_readme_run(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(examples) >= 4
    stem = str(counted.out).removesuffix(".parquet")
    known: dict[str, object] = {}
    for example in examples:
        exec(example.replace("demo/counts", stem), known)
    said = capsys.readouterr().out
    assert "sub-0004_PDw" in said
    assert "simulated" in said
