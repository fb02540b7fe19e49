from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epvs_cohort.data.ac_slab import ac_slab
from epvs_cohort.detect.lesions import connected_components, detect, heat_volume
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.errors import PredictionError, ProtocolError, RoiError
from epvs_cohort.geometry import Grid, apply_affine, rigid_about
from epvs_cohort.protocol import CountTarget, DetectionSettings
from epvs_cohort.records import AcSlice, Detection, Prediction, PreparedVolume

Make = Callable[..., PreparedVolume]
Voxel = tuple[int, int, int]


def predict(volume: PreparedVolume, heat: np.ndarray, count: float) -> Prediction:
    return Prediction(volume.key, count, heat[volume.mask].astype(np.float32), "m")


def find(
    volume: PreparedVolume,
    heat: np.ndarray,
    count: float,
    target: CountTarget = "roi",
    score: ScoreSettings | None = None,
) -> Detection:
    settings = DetectionSettings()
    return detect(volume, predict(volume, heat, count), settings, target, score or ScoreSettings())


def cubes(shape: Voxel, peaks: dict[Voxel, float]) -> np.ndarray:
    """Zero but for cubes of 3 x 3 x 3 voxels, a fifth hotter in the middle than ``peaks`` says."""
    heat = np.zeros(shape, dtype=np.float32)
    for (i, j, k), value in peaks.items():
        heat[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = value
        heat[i, j, k] = 1.2 * value
    return heat


PEAKS: dict[Voxel, float] = {(18, 6, 13): 9.0, (4, 5, 6): 10.0, (12, 14, 3): 8.0}


def test_planted_lesions_are_found_where_they_are(make_volume: Make) -> None:
    volume = make_volume()
    found = find(volume, cubes(volume.labels.shape, PEAKS), 2.7)
    # At 9.6 the peaks 12, 10.8 and 9.6 stand alone: the highest threshold with three components.
    assert found.threshold == pytest.approx(9.6)
    assert (found.threshold_how, found.n_components) == ("exact", 3)
    assert [lesion.number for lesion in found.lesions] == [1, 2, 3]
    assert [lesion.grid_voxel for lesion in found.lesions] == [(4, 5, 6), (18, 6, 13), (12, 14, 3)]
    assert [lesion.region for lesion in found.lesions] == ["caudate", "putamen", "other"]
    assert [lesion.hemisphere for lesion in found.lesions] == ["left", "right", "right"]
    assert [lesion.peak_heat for lesion in found.lesions] == pytest.approx([12.0, 10.8, 9.6])
    assert [lesion.in_ac_slice for lesion in found.lesions] == [None, None, None]
    assert found.lesions[1].native_mm == pytest.approx((10.0, 9.0, -8.6), abs=1e-9)
    assert found.lesions[1].mni_mm == pytest.approx((0.5 * (18 - 11.5), 1.0 + 3.0, -2.0 + 10.4))
    # The map is rigid: distances in native mm are those of the grid.
    step = np.subtract(found.lesions[0].native_mm, found.lesions[1].native_mm)
    assert np.linalg.norm(step) == pytest.approx(np.linalg.norm([14 * 0.5, 1 * 0.5, 7 * 0.8]))
    # The scan's axes: x falls by 0.7 mm from 30, y rises by 0.7 from -20, z by 1.1 from -30.
    assert found.lesions[1].native_voxel == pytest.approx((20 / 0.7, 29 / 0.7, 21.4 / 1.1))


def test_sizes_and_heat_are_those_of_the_component(make_volume: Make) -> None:
    volume = make_volume()
    heat = cubes(volume.labels.shape, {(4, 5, 6): 10.0})
    heat[17:19, 6, 5:9] = 11.0
    found = find(volume, heat, 2.0)
    # The plateau of 11 enters when the peak of 12 stands already, the cube's flanks only later.
    assert [lesion.component_mm3 for lesion in found.lesions] == pytest.approx([0.2, 8 * 0.2])
    heat[4, 5, 6] = 10.0
    found = find(volume, heat, 2.0)
    assert [lesion.component_mm3 for lesion in found.lesions] == pytest.approx([8 * 0.2, 27 * 0.2])
    assert found.lesions[0].grid_voxel == (17.5, 6.0, 6.5)
    heat[17, 6, 5] = 15.0
    found = find(volume, heat, 2.0)
    assert found.lesions[0].peak_heat == 15.0
    assert found.lesions[0].mean_heat == pytest.approx((7 * 11.0 + 15.0) / 8)
    assert found.lesions[0].grid_voxel == (17.5, 6.0, 6.5), "the centroid is unweighted"


def test_labels_hold_the_numbers_of_the_lesions(make_volume: Make) -> None:
    volume = make_volume()
    found = find(volume, np.where(cubes(volume.labels.shape, PEAKS) > 0, 5.0, 0.0), 3.0)
    assert found.component_labels.dtype == np.uint16
    # Equal peaks are numbered by position.
    assert [lesion.grid_voxel for lesion in found.lesions] == [(4, 5, 6), (12, 14, 3), (18, 6, 13)]
    assert np.bincount(found.component_labels.ravel())[1:].tolist() == [27, 27, 27]
    assert found.component_labels[18, 6, 13] == 3


def test_method_f_moves_the_lesions_and_heat_stays_heat(make_volume: Make) -> None:
    heat = cubes((24, 20, 16), {(4, 5, 6): 10.0, (18, 6, 12): 9.0})
    bright = np.zeros((24, 20, 16), dtype=np.float32)
    bright[18, 6, 12] = 1.0
    volume = make_volume(intensities=bright)
    assert find(volume, heat, 1.0).lesions[0].grid_voxel == (4, 5, 6)
    found = find(volume, heat, 1.0, score=ScoreSettings("f", heat_scale=10.0, weight=0.5))
    assert found.lesions[0].grid_voxel == (18, 6, 12)
    assert found.lesions[0].peak_heat == pytest.approx(10.8)
    assert found.threshold == pytest.approx(1.08 + 0.5)


def test_a_center_in_no_region_takes_the_region_of_most_voxels(make_volume: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    heat[7:14, 5, 5] = 1.0  # three voxels in the caudate, four in the strip, centre (10, 5, 5) in the strip
    (lesion,) = find(make_volume(), heat, 1.0).lesions
    assert lesion.grid_voxel == (10.0, 5.0, 5.0)
    assert (lesion.region, lesion.hemisphere) == ("caudate", "left")


def test_a_center_outside_the_mask_takes_the_region_of_most_voxels(
    make_volume: Make, labels: np.ndarray
) -> None:
    holed = labels.copy()
    holed[16, 6, 6] = 0
    heat = np.zeros(labels.shape, dtype=np.float32)
    heat[15:18, 5:8, 6] = 1.0
    (lesion,) = find(make_volume(labels=holed), heat, 1.0).lesions
    assert lesion.grid_voxel == (16.0, 6.0, 6.0)
    assert (lesion.region, lesion.hemisphere) == ("putamen", "right")
    assert lesion.component_mm3 == pytest.approx(8 * 0.2)


def test_lesions_of_no_region_get_their_side_from_mni(make_volume: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    heat[11, 4, 4], heat[12, 12, 4] = 2.0, 1.0
    found = find(make_volume(regions={}), heat, 2.0)
    assert [lesion.region for lesion in found.lesions] == ["other", "other"]
    assert [lesion.hemisphere for lesion in found.lesions] == ["left", "right"]


def test_a_region_without_a_side_keeps_its_name(make_volume: Make) -> None:
    heat = cubes((24, 20, 16), {(4, 5, 6): 10.0})
    (lesion,) = find(make_volume(regions={1: "brainstem"}), heat, 1.0).lesions
    assert (lesion.region, lesion.hemisphere) == ("brainstem", "left")


def test_membership_of_the_ac_slice(make_aligned: Make) -> None:
    volume = make_aligned(ac=AcSlice(axis=0, index=7))
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    heat[4, 5, 5:8] = 10.0  # a foot in the slice, to one side of the centre
    heat[5:8, 5, 7] = 10.0
    heat[18, 6, 8:12] = 9.0  # one voxel above the slice
    inside, above = find(volume, heat, 2.0).lesions
    assert inside.in_ac_slice is True
    # Cross-section: i = 4..7, j = 5, k = 7 of a grid that starts at (-3, 4, 5) mm.
    assert inside.ac_mm == pytest.approx((-3 + 5.5 * 0.5, 4 + 5 * 0.5, 5 + 7 * 0.8))
    assert (
        inside.native_voxel == pytest.approx((6.5, 5.0 - 1 / 3, 5.0), abs=1e-9) or inside.grid_voxel[1] == 5.0
    )
    assert (above.in_ac_slice, above.ac_mm) == (False, None)
    assert above.native_voxel == pytest.approx((9.5, 18.0, 6.0))


@pytest.mark.parametrize(
    ("thickness_mm", "index", "planes"), [(2.4, 2, [5, 6, 7]), (0.4, 9, [5]), (0.4, 10, [5]), (0.4, 11, [6])]
)
def test_slices_thicker_and_thinner_than_the_grid(
    make_aligned: Make, thickness_mm: float, index: int, planes: list[int]
) -> None:
    volume = make_aligned()
    affine = np.diag([0.5, 0.5, thickness_mm, 1.0])
    affine[:3, 3] = volume.native_from_grid[:3, 3] + [0.0, 0.0, 0.1]
    slab = ac_slab(make_aligned(ac=AcSlice(2, index), native=Grid((24, 20, 40), affine)))
    assert slab is not None
    assert np.flatnonzero(slab.any(axis=(0, 1))).tolist() == planes


def test_a_tilted_slice_has_no_gap(make_volume: Make) -> None:
    tilt = rigid_about([0.0, 0.0, 0.0], np.radians([25.0, 10.0, 0.0]), [0.0, 0.0, 0.0])
    native = Grid((60, 60, 60), tilt @ np.diag([0.5, 0.5, 0.3, 1.0]))
    native_from_grid = np.diag([0.5, 0.5, 0.8, 1.0])
    slab = ac_slab(make_volume(ac=AcSlice(2, 15), native=native, native_from_grid=native_from_grid))
    assert slab is not None
    reached = np.max(slab, axis=2)
    at = apply_affine(np.linalg.inv(native.affine) @ native_from_grid, np.argwhere(slab))
    assert np.abs(at[:, 2] - 15).max() < 0.5 * 0.8 / 0.3
    assert np.all(reached[8:16, 6:14])


def test_counts_of_the_slice_settle_the_threshold_on_the_slice(make_aligned: Make) -> None:
    heat = np.zeros((24, 20, 16), dtype=np.float32)
    for at, value in {
        (3, 3, 3): 10,
        (8, 3, 3): 9,
        (3, 9, 8): 8,
        (18, 3, 3): 7,
        (18, 9, 8): 6,
        (18, 15, 3): 5,
    }.items():
        heat[at] = value
    volume = make_aligned(ac=AcSlice(axis=0, index=8))
    found = find(volume, heat, 2.0, "ac_slice")
    assert (found.threshold, found.threshold_how, found.n_components) == (6.0, "exact", 2)
    assert [lesion.in_ac_slice for lesion in found.lesions] == [False, False, True, False, True]
    whole = find(volume, heat, 2.0, "roi")
    assert (whole.threshold, whole.n_components, len(whole.lesions)) == (9.0, 2, 2)


def test_counts_of_the_slice_need_the_slice(make_aligned: Make) -> None:
    heat = cubes((24, 20, 16), {(4, 5, 6): 10.0})
    with pytest.raises(RoiError, match=r"sub-01.*no slice through the anterior commissure"):
        find(make_aligned(), heat, 2.0, "ac_slice")
    with pytest.raises(RoiError, match=r"sub-01: slice 15 does not meet the mask"):
        find(make_aligned(ac=AcSlice(0, 15)), heat, 2.0, "ac_slice")


def test_a_count_of_zero_gives_no_lesion(make_volume: Make) -> None:
    found = find(make_volume(), cubes((24, 20, 16), PEAKS), 0.3)
    assert (found.threshold, found.threshold_how, found.n_components, found.lesions) == (None, "none", 0, ())
    assert not found.component_labels.any()


def test_more_lesions_than_peaks_give_the_nearest_number(make_volume: Make) -> None:
    found = find(make_volume(), cubes((24, 20, 16), PEAKS), 7.0)
    assert (found.threshold_how, found.n_components, len(found.lesions)) == ("nearest", 3, 3)


def test_heat_outside_the_mask_is_zero(make_volume: Make) -> None:
    volume = make_volume()
    heat = np.random.default_rng(0).random(volume.labels.shape, dtype=np.float32)
    placed = heat_volume(volume, predict(volume, heat, 1.0))
    np.testing.assert_array_equal(placed, np.where(volume.labels > 0, heat, 0))


def test_negative_heat_above_the_threshold_stays_within_the_mask(make_volume: Make) -> None:
    volume = make_volume()
    heat = np.full(volume.labels.shape, -5.0, dtype=np.float32)
    heat[4, 5, 6] = heat[18, 6, 6] = -1.0
    found = find(volume, heat, 2.0)
    assert found.threshold == -1.0
    assert np.count_nonzero(found.component_labels) == 2


def test_lesions_have_the_same_place_in_a_reoriented_scan(make_volume: Make) -> None:
    heat = cubes((24, 20, 16), PEAKS)
    volume = make_volume()
    turn = np.zeros((4, 4))
    turn[[0, 1, 2, 3], [1, 2, 0, 3]] = [-1.0, 1.0, -1.0, 1.0]
    turn[:3, 3] = [69.0, 0.0, 39.0]  # old voxel from new: the first and last old axis run backwards
    turned = make_volume(native=Grid((40, 70, 60), volume.native.affine @ turn))
    for was, now in zip(find(volume, heat, 3.0).lesions, find(turned, heat, 3.0).lesions, strict=True):
        assert now.native_mm == pytest.approx(was.native_mm, abs=1e-9)
        i, j, k = was.native_voxel
        assert now.native_voxel == pytest.approx((39 - k, 69 - i, j), abs=1e-9)


def test_components_go_by_peak_then_position() -> None:
    score = np.zeros((5, 5, 5), dtype=np.float32)
    score[0, 0, 0], score[4, 4, 4], score[0, 4, 0], score[2, 2, 2] = 1.0, 3.0, 1.0, 2.0
    found = connected_components(score > 0, score)
    assert [part.voxels.tolist() for part in found] == [[[4, 4, 4]], [[2, 2, 2]], [[0, 0, 0]], [[0, 4, 0]]]
    assert connected_components(score > 9, score) == []


def test_a_heatmap_of_specks_is_refused() -> None:
    specks = np.zeros((84, 84, 84), dtype=bool)
    specks[::2, ::2, ::2] = True
    with pytest.raises(PredictionError, match="74088 components found, at most 65535"):
        connected_components(specks, specks.astype(np.float32))


def test_settings_and_score_must_name_one_method(make_volume: Make) -> None:
    volume = make_volume()
    prediction = predict(volume, cubes((24, 20, 16), PEAKS), 1.0)
    with pytest.raises(ProtocolError, match="'f' asked for, score is 'e'"):
        detect(volume, prediction, DetectionSettings(method="f"), "roi", ScoreSettings("e"))
