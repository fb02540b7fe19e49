"""Outline of the basal ganglia: atlas, aseg and mask on a posed template whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.errors import ConfigError, RoiError
from epvs_cohort.geometry import FloatArray, apply_affine, centered_grid, rigid_about
from epvs_cohort.prepare.matrices import read_scan_from_aseg
from epvs_cohort.prepare.register import Rigid
from epvs_cohort.prepare.roi import ASEG_REGIONS, Outline, outline_roi
from epvs_cohort.prepare.warp import Warp
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import LABEL_NO_REGION, Image, LabelArray, Scan

GRID = centered_grid((90, 70, 50), (1.0, 1.0, 1.2), (0.0, 0.0, 2.0))


@dataclass(frozen=True)
class Case:
    image: Image
    labels: LabelArray
    rigid: Rigid


@pytest.fixture(scope="module")
def case() -> Case:
    """Template brain shrunk to 0.9, posed; its labels; and its true pose."""
    atlas = load_atlas()
    pose = rigid_about((0, 0, 0), (0.1, 0.0, -0.1), (3.0, 4.0, 5.0))
    native_from_mni = pose @ np.diag([0.9, 0.9, 0.9, 1.0])
    shape = (96, 112, 90)
    grid = centered_grid(shape, (2.0, 2.0, 2.0), apply_affine(pose, [0.0, -18.0, 8.0]))
    back = np.linalg.inv(atlas.grid.affine) @ np.linalg.inv(native_from_mni) @ grid.affine
    matrix, offset = back[:3, :3], back[:3, 3]
    data = 300 * ndimage.affine_transform(atlas.template, matrix, offset, output_shape=shape, order=1)
    labels = ndimage.affine_transform(atlas.labels, matrix, offset, output_shape=shape, order=0)
    noise = np.random.default_rng(1).standard_normal(shape)
    image = Image(np.abs(data + 10 * noise).astype(np.float32), grid.affine)
    return Case(image, labels, Rigid(np.asarray(np.linalg.inv(pose), dtype=np.float64), ()))


def truth_on_grid(case: Case) -> LabelArray:
    back = np.linalg.inv(case.rigid.rigid_from_native @ case.image.affine) @ GRID.affine
    return ndimage.affine_transform(case.labels, back[:3, :3], back[:3, 3], output_shape=GRID.shape, order=0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def outlined(case: Case, scan: Scan, roi: RoiSettings | None = None) -> Outline:
    sides = scan.aseg or scan.mask
    protocol = Protocol(roi=roi or RoiSettings(method="auto" if sides else "atlas"))
    return outline_roi(scan, case.image, case.rigid, protocol, load_atlas())


def test_what_the_networks_are_to_outline_is_not_outlined_here(case: Case) -> None:
    with pytest.raises(ConfigError, match="leaves this scan to the networks"):
        outline_roi(Scan("a", Path("a.nii")), case.image, case.rigid, Protocol(), load_atlas())


def aseg_file(case: Case, path: Path, affine: FloatArray) -> Path:
    number_of = {name: number for number, name in ASEG_REGIONS.items()}
    aseg = np.zeros(case.labels.shape, dtype=np.int16)
    for label, name in load_atlas().regions.items():
        aseg[case.labels == label] = number_of[name]
    nib.save(nib.Nifti1Image(aseg, affine), path)
    return path


def test_atlas_way_finds_regions_map_and_commissure(case: Case) -> None:
    outline = outlined(case, Scan("a", Path("a.nii")))
    assert outline.way == "atlas"
    labels, truth = outline.labels_on(GRID), truth_on_grid(case)
    assert dice(labels > 0, truth > 0) > 0.85
    for label in (1, 2, 3, 4):
        assert dice(labels == label, truth == label) > 0.8
    np.testing.assert_allclose(outline.center_mm, [0.0, 2.0, 2.0], atol=6.0)
    voxel = np.array([[30.0, 40.0, 20.0], [60.0, 30.0, 25.0]])
    expected = apply_affine(GRID.affine, voxel) / 0.9
    assert np.linalg.norm(outline.mni_on(GRID)(voxel) - expected, axis=1).max() < 2.0
    native = outline.native_from_mni([0.0, 3.0, -4.5])
    back = apply_affine(case.rigid.rigid_from_native, native)
    np.testing.assert_allclose(back, [0.0, 2.7, -4.05], atol=2.0)
    tissue = outline.tissue_on(GRID)
    assert (tissue[labels > 0] == 5).mean() > 0.8


def test_map_there_and_back_agree() -> None:
    rng = np.random.default_rng(0)
    knots = np.diag([1 / 20, 1 / 20, 1 / 20, 1.0])
    knots[:3, 3] = 5.0
    affine = rigid_about((0, 0, 0), (0.1, 0.2, 0.0), (1, 2, 3))
    warp = Warp(affine, rng.uniform(-4, 4, (11, 11, 11, 3)), knots)
    points = rng.uniform(-50, 50, (200, 3))
    np.testing.assert_allclose(warp.to_mni(warp.to_rigid(points)), points, atol=0.01)
    tabulated = warp.on_grid(GRID)
    voxels = rng.uniform(0, np.array(GRID.shape) - 1, (200, 3))
    exact = warp.to_mni(apply_affine(GRID.affine, voxels))
    assert np.linalg.norm(tabulated(voxels) - exact, axis=1).max() < 0.3


def test_the_map_back_holds_where_ventricles_stretch_the_spline() -> None:
    # Beside wide ventricles the map widens more than twofold, where a fixed-point inverse runs apart.
    rng = np.random.default_rng(1)
    knots = np.diag([1 / 20, 1 / 20, 1 / 20, 1.0])
    knots[:3, 3] = 5.0
    along = (np.arange(11) - 5.0) * 20.0
    coefficients = np.zeros((11, 11, 11, 3))
    widening = 30.0 * np.sign(along) * np.maximum(0.0, 1.0 - np.abs(along) / 100.0)
    coefficients[..., 0] = widening[:, None, None]
    warp = Warp(np.eye(4), coefficients, knots)
    middle = np.array([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert np.diff(warp.to_rigid(middle)[:, 0])[0] > 2.1
    points = rng.uniform(-50, 50, (500, 3))
    np.testing.assert_allclose(warp.to_mni(warp.to_rigid(points)), points, atol=0.01)


def test_aseg_way_follows_the_file_and_its_transform(case: Case, tmp_path: Path) -> None:
    moved = rigid_about((0, 0, 0), (0.0, 0.0, 0.3), (40.0, 0.0, 0.0))
    aseg = aseg_file(case, tmp_path / "aseg.nii.gz", moved @ case.image.affine)
    matrix = tmp_path / "aseg_to_scan.txt"
    np.savetxt(matrix, np.linalg.inv(moved))
    scan = Scan("a", Path("a.nii"), aseg=aseg, aseg_to_scan=matrix)
    outline = outlined(case, scan)
    assert outline.way == "aseg"
    truth = truth_on_grid(case)
    labels = outline.labels_on(GRID)
    assert dice(labels > 0, truth > 0) > 0.93
    assert (labels[truth > 0] == truth[truth > 0]).mean() > 0.9
    measures = {q.measure: q.value for q in outline.quality}
    assert measures["roi_atlas_dice"] is not None
    assert measures["roi_atlas_dice"] > 0.8
    only = outlined(case, scan, RoiSettings(regions=("putamen",)))
    assert set(np.unique(only.labels_on(GRID))) == {0, 3, 4}


def test_mask_way_names_regions_by_the_atlas(case: Case, tmp_path: Path) -> None:
    mask = (case.labels > 0).astype(np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    nib.save(nib.Nifti1Image(mask, case.image.affine), tmp_path / "mask.nii.gz")
    outline = outlined(case, Scan("a", Path("a.nii"), mask=tmp_path / "mask.nii.gz"))
    truth = truth_on_grid(case)
    labels = outline.labels_on(GRID)
    assert dice(labels > 0, truth > 0) > 0.93
    assert (labels[truth > 0] == truth[truth > 0]).mean() > 0.8
    corner = apply_affine(case.rigid.rigid_from_native @ case.image.affine, [3.5, 3.5, 3.5])
    there = centered_grid((8, 8, 8), (2.0, 2.0, 2.0), corner)
    assert LABEL_NO_REGION in outline.labels_on(there)


def test_side_file_elsewhere_or_without_regions_is_refused(case: Case, tmp_path: Path) -> None:
    far = case.image.affine.copy()
    far[0, 3] += 900.0
    away = Scan("a", Path("a.nii"), aseg=aseg_file(case, tmp_path / "far.nii.gz", far))
    with pytest.raises(RoiError, match="field of view"):
        outlined(case, away)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "empty.nii.gz")
    with pytest.raises(RoiError, match="none of FreeSurfer's labels"):
        outlined(case, replace(away, aseg=tmp_path / "empty.nii.gz"))
    with pytest.raises(RoiError, match="mask is empty"):
        outlined(case, Scan("a", Path("a.nii"), mask=tmp_path / "empty.nii.gz"))
    with pytest.raises(RoiError, match="brings no mask"):
        outlined(case, Scan("a", Path("a.nii")), RoiSettings(method="mask"))


def test_transforms_of_several_tools_are_read(tmp_path: Path) -> None:
    expected = rigid_about((0, 0, 0), (0.1, 0.2, 0.3), (4.0, 5.0, 6.0))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    backward = flip @ np.linalg.inv(expected) @ flip
    numbers = " ".join(str(v) for v in [*backward[:3, :3].ravel(), *backward[:3, 3]])
    itk = tmp_path / "itk.txt"
    itk.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    np.testing.assert_allclose(read_scan_from_aseg(itk), expected, atol=1e-9)
    rows = "\n".join(" ".join(str(v) for v in row) for row in expected)
    lta = tmp_path / "ras.lta"
    lta.write_text(
        f"type      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\nmean = 0 0 0\nsigma = 1\n1 4 4\n{rows}\n"
    )
    np.testing.assert_allclose(read_scan_from_aseg(lta), expected, atol=1e-9)
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2 3\n")
    with pytest.raises(RoiError, match="found 3 numbers"):
        read_scan_from_aseg(bad)


def test_voxel_lta_is_read_as_freesurfer_places_volumes(tmp_path: Path) -> None:
    block = (
        "valid = 1\nfilename = x.mgz\nvolume = 4 6 8\nvoxelsize = 1 1 2\n"
        "xras = -1 0 0\nyras = 0 0 -1\nzras = 0 1 0\ncras = 1 2 3\n"
    )
    rows = "1 0 0 2\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    lta = tmp_path / "vox.lta"
    lta.write_text(
        f"type = 0\nnxforms = 1\nmean = 0 0 0\nsigma = 1\n1 4 4\n{rows}src volume info\n{block}dst volume info\n{block}"
    )
    # Two voxels along the first axis, which runs to the left: 2 mm to the left.
    np.testing.assert_allclose(apply_affine(read_scan_from_aseg(lta), [0.0, 0.0, 0.0]), [-2.0, 0.0, 0.0])


def test_the_map_of_a_grid_is_made_once(case: Case) -> None:
    outline = outlined(case, Scan("a", Path("a.nii")))
    grid = centered_grid((20, 18, 16), (2.0, 2.0, 2.0), outline.center_mm)
    again = centered_grid((20, 18, 16), (2.0, 2.0, 2.0), outline.center_mm)
    other = centered_grid((20, 18, 16), (2.0, 2.0, 2.0), outline.center_mm + 1.0)
    assert outline.mni_on(grid) is outline.mni_on(again)
    assert outline.mni_on(other) is not outline.mni_on(grid)
