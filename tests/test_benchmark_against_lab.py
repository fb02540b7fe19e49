"""The laboratory's script that the program is measured against: that it counts rightly, and what agreement means."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from epvs_cohort.detect.forest import component_counts

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("lab_script")


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("against_lab")


@pytest.mark.parametrize("wanted", [1, 4, 9])
def test_the_script_finds_as_many_lesions_as_it_looks_for(script: ModuleType, wanted: int) -> None:
    noise = np.random.default_rng(3).standard_normal((24, 20, 16)).astype(np.float32)
    score, mask = ndimage.gaussian_filter(noise, 1.2), np.ones((24, 20, 16), dtype=bool)
    counts = component_counts(score, mask).counts
    assert (counts == wanted).any()
    assert len(script.lesions_of(score, mask, wanted)) == wanted


def test_the_script_moves_images_where_its_matrix_says(script: ModuleType) -> None:
    """A spot, resampled by the pose that elastix found, lies where the map of points puts it."""
    shape = (40, 44, 36)
    spot = np.zeros(shape, dtype=np.float32)
    spot[12, 25, 20] = 1.0
    head = ndimage.gaussian_filter(spot, 3.0) / 0.002 + 0.0
    head[5:35, 8:38, 6:30] += 0.5
    affine = np.diag([-1.0, 1.0, 1.2, 1.0])
    affine[:3, 3] = (17.0, -20.0, -15.0)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(0.12), -np.sin(0.12), 0], [np.sin(0.12), np.cos(0.12), 0], [0, 0, 1]]
    pose[:3, 3] = (2.0, -1.5, 1.0)
    fixed_affine = np.linalg.inv(pose) @ affine
    everywhere = script.to_itk(np.ones(shape, dtype=np.uint8), fixed_affine)
    moving = script.to_itk(head, affine)
    transform = script.register(
        script.to_itk(head, fixed_affine), moving, everywhere, [script.default_map("rigid")]
    )
    native_from_fixed = script.rigid_matrix(transform)
    corner = np.array([3.0, 4.0, 5.0, 1.0])
    np.testing.assert_allclose(native_from_fixed @ corner, pose @ corner, atol=0.2)
    moved = script.transformed(moving, transform, (shape, fixed_affine), 3)
    assert np.corrcoef(moved[8:30, 12:34, 10:26].ravel(), head[8:30, 12:34, 10:26].ravel())[0, 1] > 0.99


def test_agreement_is_counts_and_places(judge: ModuleType, tmp_path: Path) -> None:
    theirs, mine = tmp_path / "lab", tmp_path / "ours"
    theirs.mkdir()
    mine.mkdir()
    pd.DataFrame({"scan": ["a", "b"], "count": [2.0, 1.0]}).to_csv(theirs / "counts.csv", index=False)
    pd.DataFrame({"scan": ["a", "b"], "count": [2.1, 1.5]}).to_parquet(mine / "counts.parquet")
    places = {"scan": ["a", "a", "b"], "x_mm": [0.0, 9.0, 5.0], "y_mm": 0.0, "z_mm": 0.0}
    pd.DataFrame(places).to_csv(theirs / "lesions.csv", index=False)
    places["x_mm"] = [0.5, 11.0, 40.0]
    pd.DataFrame(places).to_parquet(mine / "counts.lesions.parquet")
    found = judge.agreement(theirs, mine)
    assert (found.scans, found.within, found.matched, found.near) == (2, 1, 2, 1)
    assert (found.worst, found.lesions, found.holds) == (pytest.approx(0.5), (3, 3), False)


def test_a_scan_without_a_count_disagrees(judge: ModuleType, tmp_path: Path) -> None:
    for folder in ("lab", "ours"):
        (tmp_path / folder).mkdir()
    none = pd.DataFrame({"scan": [], "x_mm": [], "y_mm": [], "z_mm": []})
    none.to_csv(tmp_path / "lab" / "lesions.csv", index=False)
    none.to_parquet(tmp_path / "ours" / "counts.lesions.parquet")
    pd.DataFrame({"scan": ["a"], "count": [0.0]}).to_csv(tmp_path / "lab" / "counts.csv", index=False)
    pd.DataFrame({"scan": ["a"], "count": [np.nan]}).to_parquet(tmp_path / "ours" / "counts.parquet")
    assert not judge.agreement(tmp_path / "lab", tmp_path / "ours").holds


def test_ratio_and_scaling_are_of_scans_an_hour(judge: ModuleType) -> None:
    taken = {
        "lab": judge.Taken(10, 1000.0, 1500.0),
        "two": judge.Taken(10, 40.0, 75.0),
        "one": judge.Taken(10, 72.0, 70.0),
    }
    told = judge.times_of(taken)
    assert "| times the laboratory's scans an hour | 25.0 | 20 | met |" in told
    assert "| of perfect scaling, one process to two | 0.90 | 0.9 | met |" in told
    assert "| processor time, laboratory over ours | 20.0 |" in told
