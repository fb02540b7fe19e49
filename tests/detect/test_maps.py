from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from epvs_cohort.detect.lesions import detect, heat_volume
from epvs_cohort.detect.maps import native_maps
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.geometry import Grid, apply_affine
from epvs_cohort.protocol import DetectionSettings
from epvs_cohort.records import Detection, Prediction, PreparedVolume

Make = Callable[..., PreparedVolume]


def found_in(volume: PreparedVolume, heat: np.ndarray, count: float) -> tuple[Prediction, Detection]:
    prediction = Prediction(volume.key, count, heat[volume.mask].astype(np.float32), "m")
    return prediction, detect(volume, prediction, DetectionSettings(), "roi", ScoreSettings())


@pytest.fixture
def heat() -> np.ndarray:
    out = np.random.default_rng(1).random((24, 20, 16)).astype(np.float32)
    out[3:6, 4:7, 5:8] += 5.0
    out[16:19, 9:12, 9:12] += 5.0
    return out


def test_maps_of_a_reoriented_grid_are_the_reoriented_maps(make_aligned: Make, heat: np.ndarray) -> None:
    volume = make_aligned()
    prediction, detection = found_in(volume, heat, 2.0)
    heat_map, label_map = native_maps(volume, prediction, detection)
    expected = np.transpose(heat_volume(volume, prediction), (2, 0, 1))
    np.testing.assert_allclose(np.asarray(heat_map.dataobj), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(label_map.dataobj), np.transpose(detection.component_labels, (2, 0, 1))
    )
    assert set(np.unique(label_map.dataobj)) == {0, 1, 2}


def test_maps_are_linear_and_nearest_on_a_finer_larger_grid(make_aligned: Make, heat: np.ndarray) -> None:
    affine = np.diag([-0.25, 0.5, 0.8, 1.0])
    # Half a grid voxel a step; ten native voxels of margin on the side where x is largest.
    affine[:3, 3] = [-3.0 + 23 * 0.5 + 10 * 0.25, 4.0, 5.0]
    volume = make_aligned(native=Grid((80, 20, 16), affine))
    prediction, detection = found_in(volume, heat, 2.0)
    heat_map, label_map = (np.asarray(image.dataobj) for image in native_maps(volume, prediction, detection))
    grid_heat = heat_volume(volume, prediction)
    at_voxels = heat_map[10:57:2][::-1]
    np.testing.assert_allclose(at_voxels, grid_heat, rtol=0, atol=1e-5)
    between = heat_map[11:57:2][::-1]
    np.testing.assert_allclose(between, (grid_heat[1:] + grid_heat[:-1]) / 2, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(label_map[10:57:2][::-1], detection.component_labels)
    assert not heat_map[58:].any()
    assert not label_map[:9].any()


def test_maps_lie_over_the_lesions_of_a_rotated_scan(make_volume: Make, heat: np.ndarray) -> None:
    volume = make_volume()
    prediction, detection = found_in(volume, heat, 2.0)
    heat_map, label_map = native_maps(volume, prediction, detection)
    labels = np.asarray(label_map.dataobj)
    assert len(detection.lesions) == 2
    for lesion in detection.lesions:
        center = apply_affine(label_map.affine, np.argwhere(labels == lesion.number).mean(axis=0))
        # A coarse grid of 0.7 x 0.7 x 1.1 mm samples a lesion of a few voxels.
        assert np.linalg.norm(center - np.array(lesion.native_mm)) < 0.7
    hottest = np.unravel_index(np.argmax(np.asarray(heat_map.dataobj)), labels.shape)
    distance = apply_affine(label_map.affine, hottest) - np.array([x.native_mm for x in detection.lesions])
    assert np.linalg.norm(distance, axis=1).min() < 1.5


def test_no_lesion_vanishes_between_thick_slices(make_aligned: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    # Single voxels, two of them nearest to one native voxel, none at the centre of one.
    for rank, at in enumerate([(4, 5, 5), (6, 5, 5), (4, 12, 6), (18, 6, 9), (20, 6, 9)]):
        heat[at] = 10.0 - rank
    affine = np.diag([4.0, 4.0, 7.0, 1.0])
    affine[:3, 3] = [-3.3, 4.2, 5.3]
    volume = make_aligned(native=Grid((3, 3, 2), affine))
    prediction, detection = found_in(volume, heat, 5.0)
    assert len(detection.lesions) == 5
    labels = np.asarray(native_maps(volume, prediction, detection)[1].dataobj)
    assert np.bincount(labels.ravel(), minlength=6)[1:].tolist() == [1, 1, 1, 1, 1]
    i, j, k = (int(np.floor(v + 0.5)) for v in detection.lesions[0].native_voxel)
    assert labels[i, j, k] == 1


def test_a_missed_lesion_takes_no_other_lesions_only_voxel_but_one_of_many(make_aligned: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    heat[2:6, 3:9, 3:7] = 10.0
    heat[7, 6, 5] = 9.0
    affine = np.diag([0.5, 0.5, 0.8, 1.0])
    affine[:3, 3] = [-3.0, 4.0, 5.0]
    affine[0] = [2.0, 0.0, 0.0, -2.0]  # native steps of four voxels: i = 2, 6, 10 ...
    volume = make_aligned(native=Grid((6, 20, 16), affine))
    prediction, detection = found_in(volume, heat, 2.0)
    labels = np.asarray(native_maps(volume, prediction, detection)[1].dataobj)
    assert labels[1, 6, 5] == 2
    assert np.count_nonzero(labels == 2) == 1
    assert np.count_nonzero(labels == 1) == 24


def test_missed_lesions_leave_another_at_least_one_voxel(make_aligned: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    heat[2:7, 6, 6] = 10.0  # two native voxels
    heat[3, 4, 6], heat[5, 4, 6] = 9.0, 8.0  # no native voxel; nearest to the first, to the second of those
    affine = np.diag([2.0, 2.0, 3.2, 1.0])
    affine[:3, 3] = [-3.0 + 2 * 0.5, 4.0 + 2 * 0.5, 5.0 + 2 * 0.8]
    volume = make_aligned(native=Grid((6, 5, 4), affine))
    prediction, detection = found_in(volume, heat, 3.0)
    labels = np.asarray(native_maps(volume, prediction, detection)[1].dataobj)
    assert labels[0, 1, 1] == 2
    assert labels[1, 1, 1] == 1
    assert np.bincount(labels.ravel())[1:].tolist() == [1, 1, 1]


def test_a_scan_beside_the_grid_gives_maps_without_heat(make_aligned: Make, heat: np.ndarray) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = 500.0
    volume = make_aligned(native=Grid((10, 10, 10), affine))
    prediction, detection = found_in(volume, heat, 2.0)
    heat_map, label_map = native_maps(volume, prediction, detection)
    assert not np.asarray(heat_map.dataobj).any()
    assert set(np.unique(label_map.dataobj)) == {0, 1, 2}


def test_files_carry_type_unit_and_both_forms(make_volume: Make, heat: np.ndarray, tmp_path: Path) -> None:
    volume = make_volume()
    maps = native_maps(volume, *found_in(volume, heat, 2.0))
    for image, dtype in zip(maps, (np.float32, np.uint16), strict=True):
        nib.save(image, tmp_path / "map.nii.gz")
        back: Any = nib.load(tmp_path / "map.nii.gz")
        assert back.shape == volume.native.shape
        assert back.get_data_dtype() == dtype
        assert back.header.get_xyzt_units()[0] == "mm"
        for affine, code in (back.get_sform(coded=True), back.get_qform(coded=True)):
            assert code == 1
            np.testing.assert_allclose(affine, volume.native.affine, atol=1e-5)
