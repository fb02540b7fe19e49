"""Preparation of one scan from end to end, on the bundled template carried to a turned, shifted native frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.errors import RoiError, ScanError
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, FloatArray, apply_affine, rigid_about, spacing_of
from epvs_cohort.prepare.scan import ac_slice, prepare_scan
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import AcSlice, Image, PreparedVolume, Scan
from tests.prepare.phantom import outline

pytestmark = pytest.mark.slow

NATIVE_FROM_MNI: FloatArray = rigid_about((0.0, -18.0, 8.0), (0.14, -0.1, 0.12), (9.0, -14.0, 11.0))
#: MNI mm of bright dots in the left and right putamen.
DOTS = ((-26.0, 4.0, 0.0), (27.0, -2.0, 4.0), (-24.0, 10.0, 4.0))
SPACING = (1.2, 1.2, 1.4)
SHAPE = (164, 190, 140)


def native_scan() -> Image:
    """Template with dots and noise, seen from the native frame."""
    atlas = load_atlas()
    affine = np.diag([*SPACING, 1.0])
    middle = apply_affine(NATIVE_FROM_MNI, (0.0, -18.0, 8.0))
    affine[:3, 3] = middle - (np.array(SHAPE) - 1.0) / 2.0 * np.array(SPACING)
    template_from_native = np.linalg.inv(NATIVE_FROM_MNI @ atlas.grid.affine) @ affine
    data = ndimage.affine_transform(
        atlas.template, template_from_native[:3, :3], template_from_native[:3, 3], output_shape=SHAPE, order=1
    )
    for dot in DOTS:
        at = apply_affine(np.linalg.inv(affine) @ NATIVE_FROM_MNI, dot)
        first = np.rint(at).astype(int) - 5
        window = tuple(slice(f, f + 11) for f in first)
        offsets = (np.moveaxis(np.indices((11, 11, 11)), 0, -1) + first - at) * np.array(SPACING)
        data[window] += 0.8 * np.exp(-0.5 * (offsets**2).sum(axis=-1))
    noise = np.random.default_rng(2).normal(0.0, 0.03, SHAPE)
    return Image((300.0 * np.abs(data + noise)).astype(np.float32), affine)


@pytest.fixture(scope="module")
def image() -> Image:
    return native_scan()


@pytest.fixture(scope="module")
def prepare() -> Callable[[Image], PreparedVolume]:
    scan = Scan(key="turned", path=Path("turned.nii.gz"))
    return lambda image: prepare_scan(scan, image, Protocol(roi=RoiSettings(method="atlas")))


@pytest.fixture(scope="module")
def volume(image: Image, prepare: Callable[[Image], PreparedVolume]) -> PreparedVolume:
    return prepare(image)


def _peak_near(volume: PreparedVolume, native_mm: FloatArray) -> tuple[FloatArray, float]:
    """Native mm and height of the brightest voxel within 4 mm of a point."""
    at = np.rint(apply_affine(volume.grid_from_native, native_mm)).astype(int)
    reach = np.array([8, 8, 5])
    box = tuple(slice(a - r, a + r + 1) for a, r in zip(at, reach, strict=True))
    part = volume.intensities[box]
    top = np.array(np.unravel_index(int(np.argmax(part)), part.shape)) + at - reach
    return apply_affine(volume.native_from_grid, top), float(part.max())


def test_volume_has_the_protocol_s_grid(volume: PreparedVolume) -> None:
    assert volume.intensities.shape == volume.labels.shape == (168, 128, 84)
    assert volume.intensities.dtype == np.float32
    assert (volume.intensities.min(), volume.intensities.max()) == (0.0, 1.0)
    np.testing.assert_allclose(spacing_of(volume.native_from_grid), (0.49, 0.49, 0.8), rtol=1e-4)
    assert set(np.unique(volume.labels)) == {0, *range(1, 9), 255}


@pytest.mark.parametrize("dot", DOTS)
def test_dots_stay_where_they_are_in_native_space(volume: PreparedVolume, dot: tuple[float, ...]) -> None:
    native_mm = apply_affine(NATIVE_FROM_MNI, dot)
    found, height = _peak_near(volume, native_mm)
    assert np.linalg.norm(found - native_mm) < 1.0
    assert height > 0.6


@pytest.mark.parametrize("dot", DOTS)
def test_dots_have_their_mni_place_and_region(volume: PreparedVolume, dot: tuple[float, ...]) -> None:
    voxel = apply_affine(volume.grid_from_native, apply_affine(NATIVE_FROM_MNI, dot))
    assert np.linalg.norm(volume.mni(voxel) - np.array(dot)) < 2.5
    label = int(volume.labels[tuple(np.rint(voxel).astype(int))])
    assert volume.regions[label].startswith("left" if dot[0] < 0 else "right")


def test_rigid_map_leads_to_the_mni_orientation(volume: PreparedVolume) -> None:
    turn = volume.rigid_from_native @ NATIVE_FROM_MNI
    center = np.array([0.0, 5.0, 0.0])
    assert np.linalg.norm(apply_affine(turn, center) - center) < 1.5
    np.testing.assert_allclose(turn[:3, :3], np.eye(3), atol=0.04)


def test_ac_slice_is_the_one_through_the_commissure(volume: PreparedVolume, image: Image) -> None:
    voxel = apply_affine(np.linalg.inv(image.affine) @ NATIVE_FROM_MNI, MNI_ANTERIOR_COMMISSURE_MM)
    assert volume.ac is not None
    assert volume.ac.axis == 2
    assert volume.ac.index == pytest.approx(voxel[2], abs=1.6)


def test_every_measure_stands_once(volume: PreparedVolume) -> None:
    names = [item.measure for item in volume.quality]
    assert len(set(names)) == len(names)
    values = {item.measure: item.value for item in volume.quality}
    assert values["skull_stripped"] == 1.0
    assert values["slice_thickness_mm"] == pytest.approx(1.4)
    ratio = values["csf_wm_ratio"]
    assert ratio is not None
    assert ratio > 1.5


def test_pictures_come_with_the_volume(volume: PreparedVolume) -> None:
    assert {"roi.webp", "registration.webp"} <= set(volume.pictures)
    assert sum(name.startswith("slice_") for name in volume.pictures) == 5
    assert sum(len(content) for content in volume.pictures.values()) < 120_000


@pytest.mark.parametrize("codes", ["LSA", "PIR"])
def test_reoriented_input_gives_the_same_places(
    volume: PreparedVolume, image: Image, prepare: Callable[[Image], PreparedVolume], codes: str
) -> None:
    nifti = nib.Nifti1Image(image.data, image.affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = nifti.as_reoriented(turn)
    other = prepare(Image(np.asarray(turned.dataobj), turned.affine))
    for dot in DOTS:
        native_mm = apply_affine(NATIVE_FROM_MNI, dot)
        voxel = apply_affine(volume.grid_from_native, native_mm)
        back = apply_affine(other.native_from_grid, voxel)
        assert np.linalg.norm(back - native_mm) < 0.5
        assert np.linalg.norm(other.mni(voxel) - volume.mni(voxel)) < 0.5
    both = (volume.labels > 0) & (other.labels > 0)
    assert both.sum() > 0.97 * (volume.labels > 0).sum()
    assert np.median(np.abs(volume.intensities[both] - other.intensities[both])) < 0.01


def test_head_without_the_ganglia_is_an_error_that_names_the_file(
    image: Image, prepare: Callable[[Image], PreparedVolume]
) -> None:
    affine = image.affine.copy()
    affine[:3, 3] += 100 * affine[:3, 2]
    top = Image(image.data[:, :, 100:], affine)
    with pytest.raises(ScanError) as caught:
        prepare(top)
    assert caught.value.message.startswith("turned.nii.gz: ")
    assert caught.value.message.count("turned.nii.gz") == 1


def test_slice_of_the_manifest_wins(image: Image) -> None:
    scan = Scan(key="s", path=Path("s.nii"), ac_slice=17)
    assert ac_slice(scan, image, outline()) == AcSlice(2, 17)


def test_slice_outside_the_scan_is_an_error(image: Image) -> None:
    with pytest.raises(RoiError, match=r"ac_slice is 140; legal are 0 to 139"):
        ac_slice(Scan(key="s", path=Path("s.nii"), ac_slice=140), image, outline())
