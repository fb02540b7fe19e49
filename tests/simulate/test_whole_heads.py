"""Simulated whole heads: image and classes agree, sides are sides, each fault does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.head_grid import CEILING, ROI_FROM_CENTER_MM, HeadGrid
from epvs_cohort.geometry import FloatArray
from epvs_cohort.head_classes import BASAL_GANGLIA, HeadClass
from epvs_cohort.records import LabelArray
from epvs_cohort.simulate.anatomy import bundled_anatomy
from epvs_cohort.simulate.head_looks import LookSettings
from epvs_cohort.simulate.whole_heads import (
    HeadSample,
    HeadSource,
    WholeHeadSettings,
    draw_head_sample,
    load_source,
    mirrored,
)

GRID = HeadGrid(shape=(48, 56, 48), spacing_mm=4.0)
#: No fault, and a contrast near those of real scans.
PLAIN = LookSettings(
    realistic_share=1.0, lesion_share=0.0, speck_share=0.0, mass_share=0.0, thick_share=0.0, coarse_share=0.0,
    blur_mm=(0.0, 0.0), bias=(0.0, 0.0), noise=(0.0, 0.0), gamma_sigma=0.0, stripped_share=0.0, defaced_share=0.0,
    cropped_share=0.0,
)  # fmt: skip
STILL = WholeHeadSettings(
    pose_deg=(0.0, 0.0), shift_mm=(0.0, 0.0, 0.0), growth=(0.0, 0.0), mirrored_share=0.0, look=PLAIN
)


@pytest.fixture(scope="module")
def source() -> HeadSource:
    return load_source(None)


def draw(source: HeadSource, seed: int = 1, **changes: object) -> HeadSample:
    settings = STILL.model_copy(update={"look": PLAIN.model_copy(update=changes)})
    return draw_head_sample(np.random.default_rng(seed), source, GRID, settings)


@pytest.fixture(scope="module")
def plain(source: HeadSource) -> HeadSample:
    return draw(source)


def middle(classes: LabelArray, each: HeadClass) -> FloatArray:
    return np.asarray(np.argwhere(classes == each).mean(axis=0))


def test_codes_keep_every_label(source: HeadSource) -> None:
    anatomy = bundled_anatomy()
    for label, each in (
        (11, HeadClass.LEFT_CAUDATE),
        (52, HeadClass.RIGHT_PALLIDUM),
        (14, HeadClass.THIRD_VENTRICLE),
    ):
        np.testing.assert_array_equal(source.classes[source.codes] == each, anatomy.labels == label)
    white = source.classes[source.codes] == HeadClass.WHITE_MATTER
    assert white[np.isin(anatomy.labels, (2, 41))].all()


def test_a_head_shows_every_class_where_it_belongs(plain: HeadSample) -> None:
    classes = plain.classes
    assert plain.intensities.shape == classes.shape == GRID.shape
    assert plain.intensities.dtype == np.float32
    assert classes.dtype == np.uint8
    assert set(np.unique(classes)) == {int(each) for each in HeadClass}
    assert 0.0 <= plain.intensities.min() < plain.intensities.max() <= CEILING
    # Left is where i is small, for i runs to the right.
    for left in range(1, 11, 2):
        assert middle(classes, HeadClass(left))[0] < middle(classes, HeadClass(left + 1))[0]
    assert middle(classes, HeadClass.LEFT_CAUDATE)[1] > middle(classes, HeadClass.LEFT_THALAMUS)[1]
    deep = np.argwhere(np.isin(classes, BASAL_GANGLIA)).mean(axis=0)
    wanted = (np.array(GRID.shape) - 1) / 2 + np.asarray(ROI_FROM_CENTER_MM) / GRID.spacing_mm
    assert deep == pytest.approx(wanted, abs=2.5)


def test_image_and_classes_show_one_head(plain: HeadSample) -> None:
    # Fluid is the brightest tissue of the brain in each of the contrasts near real ones.
    fluid = plain.intensities[plain.classes == HeadClass.LATERAL_VENTRICLES].mean()
    white = plain.intensities[plain.classes == HeadClass.WHITE_MATTER].mean()
    air = plain.intensities[:3].mean()
    assert fluid > 1.2 * white > 2.0 * air


def test_a_seed_is_a_head(source: HeadSource, plain: HeadSample) -> None:
    again, other = draw(source), draw(source, seed=2)
    np.testing.assert_array_equal(again.intensities, plain.intensities)
    np.testing.assert_array_equal(again.classes, plain.classes)
    assert (other.classes != plain.classes).mean() > 0.01


def test_mirroring_swaps_sides(plain: HeadSample) -> None:
    image, classes = mirrored(plain.intensities, plain.classes)
    np.testing.assert_array_equal(image[::-1], plain.intensities)
    np.testing.assert_array_equal(
        classes[::-1] == HeadClass.LEFT_PUTAMEN, plain.classes == HeadClass.RIGHT_PUTAMEN
    )
    np.testing.assert_array_equal(classes[::-1] == HeadClass.CORTEX, plain.classes == HeadClass.CORTEX)
    assert middle(classes, HeadClass.LEFT_CAUDATE)[0] < middle(classes, HeadClass.RIGHT_CAUDATE)[0]


def test_a_drawn_mirror_image_is_the_mirror_image(source: HeadSource, plain: HeadSample) -> None:
    settings = STILL.model_copy(update={"mirrored_share": 1.0})
    turned = draw_head_sample(np.random.default_rng(1), source, GRID, settings)
    image, classes = mirrored(plain.intensities, plain.classes)
    np.testing.assert_array_equal(turned.intensities, image)
    np.testing.assert_array_equal(turned.classes, classes)


def test_stripping_leaves_the_brain(source: HeadSource, plain: HeadSample) -> None:
    stripped = draw(source, stripped_share=1.0)
    skin = (plain.classes == HeadClass.NOT_BRAIN) & (plain.intensities > 0.3)
    assert (stripped.intensities[skin] > 0.0).mean() < 0.5
    inner = np.isin(plain.classes, [*BASAL_GANGLIA, HeadClass.WHITE_MATTER])
    np.testing.assert_array_equal(stripped.classes[inner], plain.classes[inner])
    assert (stripped.intensities[inner] > 0.0).mean() > 0.95


def test_defacing_takes_the_face_and_no_brain(source: HeadSource, plain: HeadSample) -> None:
    defaced = draw(source, defaced_share=1.0)
    np.testing.assert_array_equal(defaced.classes, plain.classes)
    gone = (plain.intensities > 0.2) & (defaced.intensities == 0.0)
    assert gone.sum() > 100
    deep = np.argwhere(np.isin(plain.classes, BASAL_GANGLIA)).mean(axis=0)
    assert (np.argwhere(gone)[:, 1] > deep[1] - 3.0).mean() > 0.9


def test_what_is_not_seen_is_black_and_no_brain(source: HeadSource, plain: HeadSample) -> None:
    cropped = draw(source, cropped_share=1.0)
    seen = np.argwhere(cropped.intensities > 0.0)
    low, high = seen.min(axis=0), seen.max(axis=0)
    brain = np.argwhere(cropped.classes != HeadClass.NOT_BRAIN)
    assert (brain.min(axis=0) >= low).all()
    assert (brain.max(axis=0) <= high).all()
    assert (cropped.classes != HeadClass.NOT_BRAIN).sum() < (plain.classes != HeadClass.NOT_BRAIN).sum()


def test_poses_turn_the_head(source: HeadSource) -> None:
    turned = STILL.model_copy(update={"pose_deg": (30.0, 30.0)})
    directions = []
    for seed in range(6):
        classes = draw_head_sample(np.random.default_rng(seed), source, GRID, turned).classes
        across = middle(classes, HeadClass.RIGHT_PUTAMEN) - middle(classes, HeadClass.LEFT_PUTAMEN)
        directions.append(across / np.linalg.norm(across))
    tilts = np.degrees(np.arccos(np.array(directions)[:, 0]))
    assert tilts.max() > 12.0
    assert tilts.max() < 50.0


def test_basal_ganglia_vary_beside_the_rest_of_the_brain(source: HeadSource) -> None:
    def sizes(nuclei: float) -> tuple[int, int]:
        settings = STILL.model_copy(update={"nuclei": (nuclei, nuclei)})
        classes = draw_head_sample(np.random.default_rng(1), source, GRID, settings).classes
        return int(np.isin(classes, BASAL_GANGLIA).sum()), int((classes != HeadClass.NOT_BRAIN).sum())

    # Next to nothing rather than nothing, so that the same numbers are drawn for all.
    (small, brain), (usual, same), (large, again) = sizes(-0.15), sizes(1e-9), sizes(0.2)
    assert small < 0.9 * usual < usual < 0.85 * large
    assert brain == pytest.approx(same, rel=0.02)
    assert again == pytest.approx(same, rel=0.02)


def test_a_head_is_the_same_however_little_of_the_label_map_is_painted(
    source: HeadSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = HeadGrid(shape=(24, 24, 24), spacing_mm=4.0)
    near = STILL.model_copy(update={"centered_on": "basal ganglia", "pose_deg": (20.0, 20.0)})
    some = draw_head_sample(np.random.default_rng(1), source, grid, near)
    whole = tuple(slice(0, n) for n in source.codes.shape)
    monkeypatch.setattr("epvs_cohort.simulate.whole_heads.reached", lambda *_: whole)
    every = draw_head_sample(np.random.default_rng(1), source, grid, near)
    # Coordinates are rounded in float32, so that a voxel on a border may fall to the other side.
    assert (some.classes != every.classes).mean() < 1e-3
    np.testing.assert_allclose(some.intensities, every.intensities, atol=1e-3)
