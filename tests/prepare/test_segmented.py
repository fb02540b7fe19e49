"""The way of a scan whose head was segmented, on the moved template and with a segmentation that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.data.head_grid import HeadGrid, head_center
from epvs_cohort.errors import ConfigError, RoiError
from epvs_cohort.geometry import (
    MNI_ANTERIOR_COMMISSURE_MM,
    FloatArray,
    Grid,
    apply_affine,
    rigid_about,
    rotation_angle_deg,
)
from epvs_cohort.prepare.label_fit import LabelFit
from epvs_cohort.prepare.register import ROI_CENTER_MM, rigid_part
from epvs_cohort.prepare.scan import prepare_scan
from epvs_cohort.prepare.segmented import Found, Looks, find_near
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import HeadSegmentation, Image, PreparedVolume, Scan
from tests.prepare.phantom import atlas_segmentation
from tests.prepare.test_scan import DOTS, NATIVE_FROM_MNI, native_scan

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(roi=RoiSettings(method="network"))
SCAN = Scan(key="turned", path=Path("turned.nii.gz"))


#: The part around the basal ganglia that is looked at closely.
NEAR = HeadGrid(shape=(48, 48, 40), spacing_mm=2.0)

Edit = Callable[[HeadSegmentation], HeadSegmentation]


def looks_of(edit_whole: Edit = lambda head: head, edit_near: Edit = lambda head: head) -> Looks:
    """Two looks that are right but for what is edited."""

    def whole(image: Image) -> HeadSegmentation:
        grid = HeadGrid(shape=(40, 48, 40), spacing_mm=4.0).at(head_center(image))
        return edit_whole(atlas_segmentation(NATIVE_FROM_MNI, grid))

    def near(image: Image, native_from_frame: FloatArray, center_mm: FloatArray) -> HeadSegmentation:
        own = NEAR.at(center_mm)
        return edit_near(atlas_segmentation(NATIVE_FROM_MNI, Grid(own.shape, native_from_frame @ own.affine)))

    return Looks(whole, near)


@pytest.fixture(scope="module")
def image() -> Image:
    return native_scan()


@pytest.fixture(scope="module")
def volume(image: Image) -> PreparedVolume:
    return prepare_scan(SCAN, image, PROTOCOL, looks_of())


def test_regions_places_and_pose_are_those_of_the_head(volume: PreparedVolume) -> None:
    for dot in DOTS:
        voxel = apply_affine(volume.grid_from_native, apply_affine(NATIVE_FROM_MNI, dot))
        assert np.linalg.norm(volume.mni(voxel) - np.array(dot)) < 1.0
        label = int(volume.labels[tuple(np.rint(voxel).astype(int))])
        assert volume.regions[label] == ("left putamen" if dot[0] < 0 else "right putamen")
    turn = volume.rigid_from_native @ NATIVE_FROM_MNI
    np.testing.assert_allclose(turn[:3, :3], np.eye(3), atol=0.04)


def test_the_slice_is_the_one_through_the_commissure(volume: PreparedVolume, image: Image) -> None:
    voxel = apply_affine(np.linalg.inv(image.affine) @ NATIVE_FROM_MNI, MNI_ANTERIOR_COMMISSURE_MM)
    assert volume.ac is not None
    assert (volume.ac.axis, volume.ac.index) == (2, round(float(voxel[2])))


def test_quality_comes_from_what_was_found(volume: PreparedVolume) -> None:
    found = {value.measure: value.value for value in volume.quality}
    assert found["roi_atlas_dice"] is not None
    assert found["roi_atlas_dice"] > 0.9
    assert found["pose_labels_distance_mm"] is not None
    assert found["pose_labels_distance_mm"] < 2.0
    assert (found["roi_entropy_inside"], found["roi_entropy_border"]) == (0.2, 0.6)
    assert found["mask_ventricle_share"] is not None
    assert 0.0 < found["mask_ventricle_share"] < 0.2
    assert found["spline_used"] is None


def test_a_region_that_was_not_found_fails_the_scan(image: Image) -> None:
    def without(numbers: tuple[int, ...]) -> Edit:
        def edited(head: HeadSegmentation) -> HeadSegmentation:
            head.probabilities[list(numbers)] = 0.0
            head.labels[np.isin(head.labels, numbers)] = 0
            return head

        return edited

    roi = RoiSettings(method="network", regions=("accumbens",))
    with pytest.raises(RoiError, match=r"turned\.nii\.gz: .*roi\.regions \['accumbens'\]"):
        prepare_scan(SCAN, image, Protocol(roi=roi), looks_of(edit_near=without((7, 8))))
    nothing = without(tuple(range(1, 9)))
    for looks in (looks_of(nothing), looks_of(edit_near=nothing)):
        with pytest.raises(RoiError, match=r"turned\.nii\.gz: of the 8 structures .* found 0"):
            prepare_scan(SCAN, image, PROTOCOL, looks)


def test_an_island_of_the_region_is_left_out(image: Image, volume: PreparedVolume) -> None:
    island = (slice(4, 7), slice(4, 7), slice(4, 7))

    def spotted(head: HeadSegmentation) -> HeadSegmentation:
        head.probabilities[:, *island] = 0.0
        head.probabilities[3, *island] = 1.0
        return head

    found = prepare_scan(SCAN, image, PROTOCOL, looks_of(edit_near=spotted))
    np.testing.assert_array_equal(found.labels, volume.labels)
    # The labels of the whole look alone tell where the atlas's lie.
    assert found.native_from_grid == pytest.approx(volume.native_from_grid, abs=1e-6)


def test_the_close_look_goes_where_the_basal_ganglia_lie(image: Image) -> None:
    middles: list[FloatArray] = []

    def seen(head: HeadSegmentation) -> HeadSegmentation:
        middles.append(head.grid.center_mm)
        return head

    prepare_scan(SCAN, image, PROTOCOL, looks_of(edit_near=seen))
    assert np.linalg.norm(middles[0] - apply_affine(NATIVE_FROM_MNI, ROI_CENTER_MM)) < 2.0


def test_without_a_network_there_is_no_such_way(image: Image) -> None:
    with pytest.raises(ConfigError, match="handed down"):
        prepare_scan(SCAN, image, PROTOCOL)


@pytest.mark.parametrize(("turn_deg", "looks_taken"), [(0.0, 1), (15.0, 2)])
def test_a_head_that_lies_otherwise_than_trained_on_is_looked_at_once_more(
    image: Image, turn_deg: float, looks_taken: int
) -> None:
    atlas, frames = load_atlas(), []

    def near(scan: Image, native_from_frame: FloatArray, center_mm: FloatArray) -> HeadSegmentation:
        frames.append(native_from_frame)
        return looks_of().near(scan, native_from_frame, center_mm)

    true = NATIVE_FROM_MNI @ rigid_about(ROI_CENTER_MM, np.radians([turn_deg, 0.0, 0.0]), [0.0, 0.0, 0.0])
    grid = HeadGrid(shape=(40, 48, 40), spacing_mm=4.0).at(head_center(image))
    whole = Found(atlas_segmentation(true, grid), LabelFit(true, true, 1.0))
    found = find_near(image, whole, Looks(looks_of().whole, near), atlas)
    assert len(frames) == looks_taken
    turned = np.linalg.inv(rigid_part(NATIVE_FROM_MNI)) @ frames[-1]
    assert rotation_angle_deg(turned) < 2.0
    points = apply_affine(np.linalg.inv(NATIVE_FROM_MNI) @ found.fit.affine, np.array(DOTS))
    assert np.linalg.norm(points - np.array(DOTS), axis=1).max() < 1.0
