"""The same scan in other clothes: reoriented voxels, a mask, an aseg, the atlas."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort
from tests.cohort.conftest import TWO_PROCESSES, VOXEL_MM

#: Labels 1..8 of the truth (left and right caudate, putamen, pallidum, accumbens) in FreeSurfer's numbers.
FREESURFER = np.array([0, 11, 50, 12, 51, 13, 52, 26, 58])


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """One simulated head, counted as it is, reoriented, with its true mask and with its true aseg."""
    folder = tmp_path_factory.mktemp("ways")
    simulate_cohort(folder / "scans", SimulateOptions(scans=1, seed=23, voxel_mm=VOXEL_MM))
    path = folder / "scans" / "sub-0001" / "anat" / "sub-0001_PDw.nii.gz"
    image = nib.load(path)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), folder / "turned.nii.gz")
    truth = nib.load(next((folder / "scans").rglob("*desc-regions_dseg.nii.gz")))
    labels = np.asarray(truth.dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image((labels > 0).astype(np.uint8), truth.affine), folder / "mask.nii.gz")
    nib.save(nib.MGHImage(FREESURFER[labels].astype(np.int32), truth.affine), folder / "aseg.mgz")
    manifest = folder / "manifest.csv"
    manifest.write_text(
        "scan,path,mask,aseg,site\n"
        f"plain,{path},,,A\nturned,turned.nii.gz,,,A\nmasked,{path},mask.nii.gz,,B\naseg,{path},,aseg.mgz,B\n"
    )
    return run_cohort(RunRequest(manifest, folder / "counts.parquet", cluster=TWO_PROCESSES))


def points(cohort: Cohort, key: str) -> np.ndarray:
    return cohort.lesions.loc[cohort.lesions["scan"] == key, ["x_mm", "y_mm", "z_mm"]].to_numpy()


def number(cohort: Cohort, key: str, column: str) -> float:
    return float(cohort.scans.loc[cohort.scans["scan"] == key, column].iloc[0])


def measure(cohort: Cohort, key: str, name: str) -> float:
    rows = cohort.qc[(cohort.qc["scan"] == key) & (cohort.qc["measure"] == name)]
    return float(rows["value"].iloc[0])


def test_reoriented_voxels_give_the_same_native_coordinates(ways: Cohort) -> None:
    plain, turned = points(ways, "plain"), points(ways, "turned")
    assert len(plain) > 0
    assert len(plain) == len(turned)
    assert cdist(plain, turned).min(axis=1).max() < 0.5
    assert number(ways, "turned", "count") == pytest.approx(number(ways, "plain", "count"), abs=0.1)
    assert number(ways, "turned", "n_lesions_ac") == number(ways, "plain", "n_lesions_ac")


def test_mask_and_aseg_ways_run_and_agree_with_the_atlas(ways: Cohort) -> None:
    assert set(ways.scans["status"]) <= {"ok", "flagged"}
    plain = number(ways, "plain", "count")
    for way in ("masked", "aseg"):
        assert measure(ways, way, "roi_atlas_dice") > 0.6
        assert abs(number(ways, way, "count") - plain) < 0.5 * max(plain, 4.0)
    truth = measure(ways, "aseg", "roi_volume_left_mm3")
    assert measure(ways, "masked", "roi_volume_left_mm3") == pytest.approx(truth, rel=0.05)
    assert dict(zip(ways.scans["scan"], ways.scans["site"], strict=True))["masked"] == "B"


def test_lesions_of_every_way_come_with_their_place_in_mni(ways: Cohort) -> None:
    names = ["mni_x_mm", "mni_y_mm", "mni_z_mm"]
    assert ways.lesions[names].notna().all(axis=None)
    sides = np.sign(ways.lesions["mni_x_mm"])
    by_side = pd.Series(np.where(sides < 0, "left", "right"), index=ways.lesions.index)
    assert (by_side == ways.lesions["hemisphere"]).mean() > 0.9
