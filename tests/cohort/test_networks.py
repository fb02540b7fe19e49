"""Cohorts outlined by the networks that ship: where the region is found, what is no such head, what is made anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.order import PrepareOrder, roi_model_id, with_places
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.images import read_image
from epvs_cohort.data.orient import closest_canonical
from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.roi_bundle import (
    HEAD_MODEL,
    NEAR_MODEL,
    load_roi_bundle,
    load_roi_pair,
    save_roi_bundle,
)
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.roi import roi_way
from epvs_cohort.prepare.scan import prepare_scan
from epvs_cohort.prepare.segmented import Looks
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import Image, Scan
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


def no_head(name: str) -> Image:
    """Something of the size of a head, 2 mm, with noise."""
    rng = np.random.default_rng(5)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -90.0
    at = np.moveaxis(np.indices((90, 90, 90)), 0, -1) * 2.0 - 90.0
    if name == "knee":
        away = np.hypot(at[..., 0], at[..., 1])
        data = np.select([away < 25, away < 50, away < 60], [700.0, 250.0, 500.0], 0.0)
        data[(np.abs(at[..., 2]) < 6) & (away < 45)] = 900.0
    elif name == "phantom":
        data = np.where(np.linalg.norm(at / (70.0, 85.0, 70.0), axis=-1) < 1, 600.0, 0.0)
        for center in rng.uniform(-45.0, 45.0, (12, 3)):
            data[np.linalg.norm(at - center, axis=-1) < 10] = rng.uniform(200.0, 1200.0)
    else:
        data = np.zeros(at.shape[:3])
    return Image(np.abs(data + rng.normal(scale=20.0, size=data.shape)).astype(np.float32), affine)


@pytest.fixture(scope="module")
def looks() -> Looks:
    pair = load_roi_pair()
    return Looks(Segmenter(pair.head).segment, Segmenter(pair.near).segment_around)


@pytest.mark.parametrize("name", ["knee", "phantom", "noise"])
def test_what_shows_no_brain_is_not_outlined(name: str, looks: Looks) -> None:
    with pytest.raises(RoiError, match="the network found"):
        prepare_scan(Scan("odd", Path("odd.nii")), no_head(name), PROTOCOL, looks)


@pytest.mark.parametrize(("axis", "part"), [(2, slice(0, 58)), (2, slice(88, 146)), (0, slice(0, 78))])
def test_a_head_without_its_basal_ganglia_is_not_outlined(
    axis: int, part: slice, looks: Looks, shared_data: Path
) -> None:
    whole = closest_canonical(read_image(shared_data / "real" / "head_t2_1mm.nii.gz", PROTOCOL.input))
    cut = tuple(part if each == axis else slice(None) for each in range(3))
    affine = whole.affine.copy()
    affine[:3, 3] = apply_affine(whole.affine, [each.start or 0 for each in cut])
    with pytest.raises(RoiError, match="the network found"):
        prepare_scan(Scan("cut", Path("cut.nii")), Image(whole.data[cut], affine), PROTOCOL, looks)


def test_exchanged_axes_are_flagged(looks: Looks, shared_data: Path) -> None:
    whole = read_image(shared_data / "real" / "head_t2_1mm.nii.gz", PROTOCOL.input)
    wrong = Image(np.ascontiguousarray(whole.data.transpose(0, 2, 1)), np.eye(4))
    volume = prepare_scan(Scan("odd", Path("odd.nii")), wrong, PROTOCOL, looks)
    bounds = PROTOCOL.quality.bounds
    outside = {
        v.measure for v in volume.quality if v.measure in bounds and bounds[v.measure].holds(v.value) is False
    }
    assert {"roi_entropy_inside", "roi_entropy_border", "similarity_rigid"} <= outside


def test_two_visits_of_one_person_agree_in_volume(looks: Looks, shared_data: Path) -> None:
    volumes = []
    for visit in ("pair_visit1_t2", "pair_visit2_t2"):
        image = read_image(shared_data / "real" / f"{visit}.nii.gz", PROTOCOL.input)
        volume = prepare_scan(Scan(visit, Path(f"{visit}.nii.gz")), image, PROTOCOL, looks)
        sides = [v.value for v in volume.quality if v.measure.startswith("roi_volume_")]
        volumes.append(sum(side for side in sides if side is not None))
    assert volumes[1] == pytest.approx(volumes[0], rel=0.1)
    assert 15_000.0 < volumes[0] < 35_000.0


def test_networks_outline_what_brings_no_outline(tmp_path: Path) -> None:
    bare = Scan("bare", tmp_path / "a.nii")
    assert roi_way(bare, Protocol()) == "network"
    assert roi_way(replace(bare, mask=tmp_path / "m.nii"), Protocol()) == "mask"
    assert roi_way(replace(bare, mask=tmp_path / "m.nii", aseg=tmp_path / "a.mgz"), Protocol()) == "aseg"
    assert roi_model_id(Protocol()) == load_roi_pair().model_id
    assert roi_model_id(Protocol(roi=RoiSettings(method="atlas"))) is None


def test_workers_find_networks_wherever_they_start() -> None:
    placed = with_places(Protocol(roi=RoiSettings(head_model=HEAD_MODEL, near_model="mine/near"))).roi
    assert placed.head_model == HEAD_MODEL
    assert placed.near_model == str(Path("mine/near").absolute())


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
