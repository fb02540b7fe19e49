"""Label maps: loading, super-resolution, landmarks."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, Grid, apply_affine
from epvs_cohort.simulate.anatomy import (
    BUNDLED_ANATOMY,
    CAPSULE,
    REGION_OF_LABEL,
    LabelBlock,
    anatomy_files,
    bundled_anatomy,
    load_anatomies,
    load_anatomy,
    regions_of,
    super_resolve,
    with_capsules,
)
from epvs_cohort.simulate.settings import file_hashes


def test_super_resolution_keeps_place_and_volume_and_rounds_corners() -> None:
    labels = np.zeros((20, 20, 20), dtype=np.int16)
    index = np.moveaxis(np.indices(labels.shape), 0, -1)
    labels[np.linalg.norm(index - 9.5, axis=-1) < 6.0] = 12
    fine = super_resolve(LabelBlock(labels, Grid((20, 20, 20), np.eye(4))), (2, 2, 2))
    assert fine.grid.spacing_mm == pytest.approx((0.5, 0.5, 0.5))
    ball = np.argwhere(fine.labels == 12)
    assert apply_affine(fine.grid.affine, ball.mean(axis=0)) == pytest.approx([9.5, 9.5, 9.5])
    assert len(ball) / 8 == pytest.approx((labels == 12).sum(), rel=0.05)
    blocks = np.repeat(np.repeat(np.repeat(labels, 2, 0), 2, 1), 2, 2)
    assert (fine.labels != blocks).any(), "1 mm blocks were only repeated"


def test_sheets_one_voxel_thick_survive() -> None:
    labels = np.full((9, 9, 9), 2, dtype=np.int16)
    labels[4] = 24
    fine = super_resolve(LabelBlock(labels, Grid((9, 9, 9), np.eye(4))), (2, 2, 2))
    assert (fine.labels[8:10, 4:-4, 4:-4] == 24).all()


def test_capsule_is_white_matter_between_nuclei_only() -> None:
    labels = np.full((40, 20, 20), 2, dtype=np.int16)
    labels[12:18], labels[21:27] = 12, 10
    found = with_capsules(LabelBlock(labels, Grid((40, 20, 20), np.eye(4)))).labels
    assert (found[18:21] == CAPSULE).all()
    assert (found[12:18] == 12).all()
    assert (found[:5] == 2).all()


def test_bundled_head_is_upright_whole_and_has_its_commissure_where_mni_has_it() -> None:
    anatomy = bundled_anatomy()
    assert anatomy.ac_mm == pytest.approx(MNI_ANTERIOR_COMMISSURE_MM, abs=1e-6)
    assert set(REGION_OF_LABEL) <= set(np.unique(anatomy.labels))
    assert 6.0 < anatomy.volume_ml((12, 51)) < 20.0
    left = np.argwhere(anatomy.labels == 12).mean(axis=0)
    assert apply_affine(anatomy.grid.affine, left)[0] < -20.0
    assert (anatomy.labels[:, :, anatomy.labels.shape[2] // 2] > 200).any(), "nothing around the brain"
    assert anatomy.anatomy_from_upright == pytest.approx(np.eye(4), abs=1e-6)


def test_orientation_on_disk_does_not_matter(tmp_path: Path) -> None:
    anatomy = bundled_anatomy()
    image = nib.Nifti1Image(anatomy.labels, anatomy.grid.affine)
    turned = image.as_reoriented(np.array([[0, -1], [2, 1], [1, -1]]))
    nib.save(turned, tmp_path / "head.nii.gz")
    (loaded,) = load_anatomies(tmp_path)
    assert loaded.name == "head"
    np.testing.assert_array_equal(loaded.labels, anatomy.labels)
    np.testing.assert_allclose(loaded.grid.affine, anatomy.grid.affine, atol=1e-5)


def test_unusable_folders_and_maps_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no label map found"):
        load_anatomies(tmp_path)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.uint8), np.eye(4)), tmp_path / "plain.nii.gz")
    with pytest.raises(ConfigError, match=r"plain\.nii\.gz.*missing"):
        load_anatomies(tmp_path)
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(ConfigError, match=r"text\.nii\.gz"):
        load_anatomy(tmp_path / "text.nii.gz")


def test_label_maps_that_hold_no_labels_are_named(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    flat = nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.uint8), None)
    flat.header.set_sform(np.zeros((4, 4)), 1)
    nib.save(flat, tmp_path / "flat.nii")
    whole = BUNDLED_ANATOMY.read_bytes()
    (tmp_path / "torn.nii.gz").write_bytes(whole[:2000] + bytes(range(256)) + whole[2256:])
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "nowhere.nii").symlink_to(tmp_path / "missing")
    for name in ("colours.nii", "flat.nii", "torn.nii.gz", "folder.nii", "nowhere.nii"):
        with pytest.raises(ConfigError, match=re.escape(name)):
            load_anatomy(tmp_path / name)
    for name in ("folder.nii", "nowhere.nii"):
        with pytest.raises(ConfigError, match=re.escape(name)):
            file_hashes([tmp_path / name])


def test_hidden_files_are_no_label_maps_and_names_are_single(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a b.nii", "._b.nii.gz"):
        (tmp_path / name).touch()
    assert [path.name for path in anatomy_files(tmp_path)] == ["a b.nii", "b.nii.gz"]
    (tmp_path / "b.mgz").touch()
    with pytest.raises(ConfigError, match=r"b\.mgz and b\.nii\.gz"):
        anatomy_files(tmp_path)


def test_parcels_become_what_they_are_part_of(tmp_path: Path) -> None:
    anatomy = bundled_anatomy()
    labels = anatomy.labels.astype(np.int32)
    at = [tuple(voxel) for voxel in np.argwhere(labels == 2)[:6]]
    for voxel, number in zip(at, (1001, 2035, 253, 11150, 4010, 206), strict=True):
        labels[voxel] = number
    nib.save(nib.Nifti1Image(labels, anatomy.grid.affine), tmp_path / "sub.1.nii.gz")
    loaded = load_anatomy(tmp_path / "sub.1.nii.gz")
    assert loaded.name == "sub.1"
    assert loaded.grid.shape == anatomy.grid.shape
    assert [int(loaded.labels[voxel]) for voxel in at] == [3, 42, 2, 3, 41, 206]
    labels[0, 0, 0] = 70_000
    nib.save(nib.Nifti1Image(labels, anatomy.grid.affine), tmp_path / "wide.nii")
    with pytest.raises(ConfigError, match=r"wide\.nii.*70000"):
        load_anatomy(tmp_path / "wide.nii")


def test_regions_of_labels() -> None:
    labels = np.array([0, 2, 11, 50, 26, 58, 515], dtype=np.int16)
    assert regions_of(labels).tolist() == [0, 0, 1, 2, 7, 8, 0]


def test_tilted_people_are_turned_upright(shared_data: Path) -> None:
    anatomy = load_anatomy(shared_data / "anatomies" / "anatomy_01.nii.gz")
    rotation = anatomy.anatomy_from_upright[:3, :3]
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    nose_up_deg = np.degrees(np.arctan2(rotation[2, 1], rotation[1, 1]))
    assert abs(nose_up_deg) > 10.0, "this head lies tilted in its scan"
    thalamus = np.argwhere(np.isin(anatomy.labels, (10, 49))).mean(axis=0)
    offset = apply_affine(anatomy.grid.affine, thalamus) - anatomy.ac_mm
    assert 8.0 < np.linalg.norm(offset) < 30.0
