"""Cohorts outlined by the networks that ship: where the region is found, what fails, and what is made anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.order import PrepareOrder, roi_model_id
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.model.roi_bundle import NEAR_MODEL, load_roi_bundle, save_roi_bundle
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort
from tests.cohort.conftest import TWO_PROCESSES, VOXEL_MM

PROTOCOL = Protocol(name="by-networks", roi=RoiSettings(method="network"))


def measure(cohort: Cohort, key: str, name: str) -> float:
    rows = cohort.qc[(cohort.qc["scan"] == key) & (cohort.qc["measure"] == name)]
    return float(rows["value"].iloc[0])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, dict[str, float]]:
    """A simulated head, the same with other voxel order, and a ball; and the true volume of each side in mm3."""
    folder = tmp_path_factory.mktemp("networks")
    simulate_cohort(folder / "scans", SimulateOptions(scans=1, seed=23, voxel_mm=VOXEL_MM))
    path = folder / "scans" / "sub-0001" / "anat" / "sub-0001_PDw.nii.gz"
    image = nib.load(path)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), folder / "turned.nii.gz")
    away = np.linalg.norm(np.indices((90, 90, 90)) - 45.0, axis=0)
    ball = np.where(away < 36, 700 + 100 * (away < 30), 0).astype(np.int16)
    nib.save(nib.Nifti1Image(ball, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "ball.nii.gz")
    truth = nib.load(next((folder / "scans").rglob("*desc-regions_dseg.nii.gz")))
    labels = np.asarray(truth.dataobj)
    voxel_mm3 = float(np.prod(truth.header.get_zooms()[:3]))
    true = {
        # Labels 1, 3, 5, 7 are left.
        side: float(((labels > 0) & (labels % 2 == odd)).sum()) * voxel_mm3
        for side, odd in (("left", 1), ("right", 0))
    }
    manifest = folder / "manifest.csv"
    manifest.write_text(f"scan,path\nplain,{path}\nturned,turned.nii.gz\nball,ball.nii.gz\n")
    request = RunRequest(manifest, folder / "counts.parquet", protocol=PROTOCOL, cluster=TWO_PROCESSES)
    return run_cohort(request), true


def test_the_region_has_its_size_in_any_order_of_voxels(cohort: tuple[Cohort, dict[str, float]]) -> None:
    found, true = cohort
    for key in ("plain", "turned"):
        for side, volume in true.items():
            assert measure(found, key, f"roi_volume_{side}_mm3") == pytest.approx(volume, rel=0.2), (
                key,
                side,
            )
        assert measure(found, key, "roi_atlas_dice") > 0.7
        assert measure(found, key, "pose_labels_distance_mm") < 5.0
    counts = found.scans.set_index("scan")["count"]
    assert counts["turned"] == pytest.approx(counts["plain"], abs=0.1)


def test_what_is_no_head_fails(cohort: tuple[Cohort, dict[str, float]]) -> None:
    row = cohort[0].scans.set_index("scan").loc["ball"]
    assert row["status"] == "failed"
    assert "the network found" in row["error_message"]


def test_another_network_prepares_anew(tmp_path: Path) -> None:
    shipped = load_roi_bundle(NEAR_MODEL)
    save_roi_bundle(tmp_path / "same", shipped.card, shipped.network, "A copy.\n")
    other = load_roi_bundle(NEAR_MODEL)
    with torch.no_grad():
        other.network.head.weight.mul_(1.1)
    save_roi_bundle(tmp_path / "other", other.card, other.network, "Another.\n")

    def prepare_id(near_model: str | None) -> str:
        roi = RoiSettings(method="network", near_model=near_model)
        protocol = PROTOCOL.model_copy(update={"roi": roi})
        order = PrepareOrder(protocol, tmp_path / "store")
        return replace(order, roi_model_id=roi_model_id(protocol)).prepare_id

    assert prepare_id(str(tmp_path / "same")) == prepare_id(None)
    assert prepare_id(str(tmp_path / "other")) != prepare_id(None)
