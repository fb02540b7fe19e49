"""What is measured of outlines of the basal ganglia: on a head that is known, and on figures worked out by hand."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.data.head_grid import HeadGrid, head_center
from epvs_cohort.geometry import FloatArray, centered_grid
from epvs_cohort.head_classes import BASAL_GANGLIA, CLASS_NAMES
from epvs_cohort.prepare.register import register_rigid, similarity_part
from epvs_cohort.prepare.segmented import Looks, find, outline_segmented
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import HeadSegmentation, Image, Scan
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.simulate.settings import file_hashes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

#: Imports a file of the benchmarks by its name.
Bench = Callable[[str], ModuleType]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_outlines_are_judged_by_what_was_rendered(tmp_path: Path, bench: Bench) -> None:
    module, cases = bench("outlines"), bench("outline_cases")
    shutil.copy(BUNDLED_ANATOMY, tmp_path / "one.nii.gz")
    case = cases.simulated_case(tmp_path / "one.nii.gz", 3, 0, (2.0, 2.0, 2.0))
    scan = case.head.grid
    region, classes = cases.true_region(case, scan), cases.true_classes(case, scan)
    np.testing.assert_array_equal(region, case.head.region_labels > 0)
    # Two ways to the same truth: what was rendered, and the label map through shape and pose.
    deep = np.isin(classes, BASAL_GANGLIA)
    assert 2 * (region & deep).sum() / (region.sum() + deep.sum()) > 0.9
    atlas, protocol = load_atlas(), Protocol()

    def perfect(image: Image) -> HeadSegmentation:
        grid = HeadGrid().at(head_center(image))
        labels = cases.true_classes(case, grid)
        chances = (np.arange(len(CLASS_NAMES))[:, None, None, None] == labels).astype(np.float32)
        return HeadSegmentation(labels, chances, grid, {}, None, None, "perfect")

    def near(image: Image, native_from_frame: FloatArray, center_mm: FloatArray) -> HeadSegmentation:
        raise AssertionError("only the whole look is asked for")

    segmented = find(case.image, Looks(perfect, near), atlas)
    rigid = register_rigid(case.image, protocol.registration, atlas, similarity_part(segmented.fit.affine))
    outline = outline_segmented(case.image, rigid, segmented, protocol, atlas)
    grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, outline.center_mm)
    found = module.agreement(case, rigid, outline, grid, protocol)
    assert found["dice"] > 0.85
    assert found["covered"] > 0.99
    assert found["foreign"] == pytest.approx(found["foreign_at_best"], abs=0.04)
    assert found["volume_error"] == pytest.approx(abs(found["volume_ratio"] - 1.0))
    assert abs(module.slices_off(case, Scan("s", tmp_path / "s.nii"), outline)) <= 2.0


def test_who_trained_a_network_is_not_measured_by_it(tmp_path: Path, bench: Bench) -> None:
    module = bench("outlines")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii").write_text(name)
    for model, knows in (("one", "a b"), ("two", "c")):
        (tmp_path / model).mkdir()
        hashes = file_hashes([tmp_path / f"{name}.nii" for name in knows.split()])
        record = {"inputs": {"training": hashes, "validation": {}}}
        (tmp_path / model / "recipe.json").write_text(json.dumps(record))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    arguments = ["--anatomies", str(tmp_path), "--people", "1-3", "--models", one, one]
    with pytest.raises(SystemExit, match=r"a\.nii: every pair of --models"):
        module.models_of(module.parse(arguments))
    chosen = module.models_of(module.parse([*arguments, "--models", two, one, "--models", two, two]))
    assert {path.stem: model for path, model in chosen.items()} == {
        "a": (two, two),
        "b": (two, two),
        "c": (one, one),
    }


def test_means_and_extremes_of_outlines_are_told(bench: Bench) -> None:
    module = bench("outlines")
    rows = [
        module.Measured("p1", 0, "network", 0.9, 1.0, 0.1, 0.1, 0.05, 0.95, 1.0, 1.0, 1.0),
        module.Measured("p2", 0, "network", 0.8, 0.98, 0.3, 0.1, 0.15, 1.15, -1.0, 1.0, 1.0),
        module.Measured("p1", 0, "atlas", 0.7, 0.97, 0.3, 0.1, 0.35, 1.35, 2.0, 4.0, 4.0),
        module.Measured("p2", 0, "atlas", failed="no head"),
    ]
    told = module.markdown(pd.DataFrame([asdict(row) for row in rows])).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in told if line}
    assert cells["Dice, mean"] == ["0.850", "0.350", "≥ 0.85"]
    assert cells["Dice, lowest"] == ["0.800", "0.000", "≥ 0.75"]
    assert cells["covered, mean"] == ["0.990", "0.485", "≥ 0.99"]
    assert cells["foreign, mean"] == ["0.200", "0.300", "≤ 0.2"]
    assert cells["error of volume, mean"] == ["0.100", "0.675", "≤ 0.1"]
    assert cells["without outline"] == ["0", "1", ""]
    assert cells["network / atlas, seconds"] == ["0.25", "", "≤ 0.5"]
    assert cells["p2"] == ["0.000", "0.800", "0.000", "0.800"]
