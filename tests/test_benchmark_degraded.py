"""A contrast that is not counted never passes as ok, whoever outlines; and how the table of spoilt scans is made."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.errors import ScanError
from epvs_cohort.model.roi_bundle import load_roi_pair
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.scan import prepare_scan
from epvs_cohort.prepare.segmented import Looks
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Image, Scan

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
#: Coarse voxels: contrast and outline are measured all the same. Slices of 2 mm are the thickest that pass.
VOXEL_MM = (1.6, 1.6, 1.6)
#: Of all that the benchmark makes, those that are tried each time.
FAST = ("T1-weighted", "FLAIR")


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        scans = importlib.import_module("degraded_scans")
        patch.setattr(scans, "VOXEL_MM", VOXEL_MM)
        patch.setattr(scans, "CONTRASTS", {name: scans.CONTRASTS[name] for name in FAST})
        yield scans


@pytest.fixture(scope="module")
def spoilt(module: ModuleType) -> dict[str, Image]:
    scans, lesions = module.spoilt_scans(6)
    assert lesions == module.LESIONS
    assert len({scan.name for scan in scans}) == len(scans)
    return {scan.name: scan.image for scan in scans}


@pytest.fixture(scope="module")
def looks() -> Looks:
    pair = load_roi_pair()
    return Looks(Segmenter(pair.head).segment, Segmenter(pair.near).segment_around)


def _out_of_bounds(image: Image, way: str, looks: Looks) -> set[str]:
    """Measures by which a scan is flagged; the error's kind where it fails."""
    protocol = Protocol.model_validate({"roi": {"method": way}})
    try:
        volume = prepare_scan(Scan("odd", Path("odd.nii")), image, protocol, looks)
    except ScanError as error:
        return {error.kind}
    bounds = protocol.quality.bounds
    return {
        v.measure for v in volume.quality if v.measure in bounds and bounds[v.measure].holds(v.value) is False
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", ["atlas", "network"])
@pytest.mark.parametrize("name", FAST)
def test_another_contrast_never_passes(name: str, way: str, spoilt: dict[str, Image], looks: Looks) -> None:
    found = _out_of_bounds(spoilt[name], way, looks)
    assert found
    # It must be seen by what is wrong with it: dark fluid, unless it did not even register.
    assert found & {"csf_wm_ratio", "registration", "roi"}, found


def test_what_is_spoilt_differs_from_the_head_as_it_is(spoilt: dict[str, Image]) -> None:
    plain = spoilt["noise x1"]
    assert spoilt["header flipped left to right"].affine[0, 0] == -plain.affine[0, 0]
    assert spoilt["slices of 5 mm"].grid.spacing_mm[2] == pytest.approx(5 * VOXEL_MM[2])
    assert spoilt["without the region"].data.shape[2] < plain.data.shape[2]
    corner = (slice(0, 12),) * 3
    noise = [
        float(spoilt[f"noise x{times}"].data[corner].astype(np.float64).mean()) for times in (1, 2, 4, 8)
    ]
    assert noise == sorted(noise)
    assert noise[-1] > 6 * noise[0]
    assert not spoilt["skull stripped"].data[0].any()


def test_the_table_says_how_each_ended(module: ModuleType) -> None:
    bench = importlib.import_module("degraded")
    image = Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    scans = [
        module.Spoilt("good", image),
        module.Spoilt("T1", image, wrong=True),
        module.Spoilt("knee", image, wrong=True),
    ]
    rows = pd.DataFrame(
        {
            "scan": ["00", "01", "02"],
            "status": ["ok", "flagged", "failed"],
            "count": [11.96, 3.0, np.nan],
            "flags": [[], ["csf_wm_ratio 0.3 ratio below 1.2 ratio", "a 1", "b 2", "c 3"], []],
            "error_kind": [None, None, "roi"],
        }
    ).set_index("scan")
    passed = rows.assign(status=["ok", "ok", "failed"])
    text = bench.table(scans, {"networks": rows, "atlas": passed}, 12)
    assert "| good | counted: 12.0 | counted: 12.0 |" in text
    assert "| T1 | flagged: 3.0 (csf_wm_ratio, a, b and 1 more) | counted: 3.0 |" in text
    assert "| knee | failed: roi | failed: roi |" in text
    assert "networks: 1 ok, 1 flagged, 1 failed; of wrong contrasts and no heads passed as ok: none" in text
    assert "atlas: 2 ok, 0 flagged, 1 failed; of wrong contrasts and no heads passed as ok: ['T1']" in text
