"""Whole heads of random shape, pose, contrast and quality on a coarse grid, with the class of each voxel.

They are what the networks that outline the basal ganglia are trained on, in SynthSeg's manner (Billot et al. 2023,
Medical Image Analysis 86:102789): label maps in, images of any contrast out, no real scan. They lie as scans lie before
any registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from epvs_cohort.data.head_grid import ROI_FROM_CENTER_MM, CenteredOn, HeadGrid, normalised
from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.head_classes import HeadClass, class_table, mirror_table
from epvs_cohort.protocol import Settings
from epvs_cohort.records import Float32Array, LabelArray
from epvs_cohort.simulate.anatomy import (
    DEEP_NUCLEI,
    Anatomy,
    Int16Array,
    LabelBlock,
    bundled_anatomy,
    grown_window,
    load_anatomy,
    with_capsules,
)
from epvs_cohort.simulate.head_looks import (
    LookSettings,
    acquire,
    add_pathology,
    draw_contrast,
    look_constants,
)
from epvs_cohort.simulate.tissue import TissueModel, contrast_settings, tissue_of
from epvs_cohort.simulate.warp import (
    NUCLEI_MM,
    NUCLEI_REACH_MM,
    VENTRICLE_REACH_MM,
    VENTRICLES_MM,
    Placed,
    ShapeVariation,
    Warp,
    draw_warp,
    inverse_of,
    random_rigid,
    reached,
    sample,
)

BoolArray = npt.NDArray[np.bool_]

#: White matter around the deep nuclei that capsules are looked for in, in voxels of the label map.
_CAPSULE_MARGIN: Final = 12
#: Voxels of the label map that are painted around those looked at: interpolation takes one, smoothing another.
_PAINT_MARGIN: Final = 2
#: Faces are cut off in front of a plane through this point of person space (MNI-oriented RAS mm), tilted by so many
#: degrees from upright; as defacing does, it leaves a margin of 6 mm around the brain.
_FACE_MM: Final = (0.0, 62.0, -38.0)
_FACE_DEG: Final = (5.0, 40.0)
_FACE_MARGIN_VOXELS: Final = 3


class WholeHeadSettings(Settings):
    """How widely heads are drawn."""

    #: What the grid lies around.
    centered_on: CenteredOn = "head"
    #: Largest turn of a head on each axis; each head has a limit of its own, even from the first to the second number.
    pose_deg: tuple[float, float] = (5.0, 30.0)
    #: Largest shift along x, y and z from where the grid is centred.
    shift_mm: tuple[float, float, float] = (10.0, 18.0, 20.0)
    #: Standard deviations of `simulate.warp.ShapeVariation`.
    scale: Annotated[float, Field(ge=0, le=0.2)] = 0.06
    shear: Annotated[float, Field(ge=0, le=0.2)] = 0.03
    offset_mm: Annotated[float, Field(ge=0, le=15)] = 5.5
    #: Of `simulate.warp.draw_warp`: how far ventricles are narrowed and widened.
    growth: tuple[float, float] = (-0.25, 0.45)
    #: The same of basal ganglia: how far they are shrunk and widened beside the rest of the brain.
    nuclei: tuple[float, float] = (0.0, 0.0)
    mirrored_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    look: LookSettings = LookSettings()


@dataclass(frozen=True)
class HeadSource:
    """An anatomy whose labels are numbered without gaps, so that tables look them up.

    Attributes
    ----------
    anatomy : Anatomy
    codes : ndarray, shape (I, J, K), uint8
    tissues : ndarray, shape (N,), int16
        `Tissue` of each code.
    classes : ndarray, shape (N,), uint8
        `HeadClass` of each code.
    """

    anatomy: Anatomy
    codes: LabelArray
    tissues: Int16Array
    classes: LabelArray


@dataclass(frozen=True)
class HeadSample:
    """What a network is shown, and what it is to say.

    Attributes
    ----------
    intensities : ndarray, shape (I, J, K), float32
        Normalised (`data.head_grid.normalised`).
    classes : ndarray, shape (I, J, K), uint8
        `HeadClass`; what lies outside the field of view or was cut away is no brain.
    """

    intensities: Float32Array
    classes: LabelArray


def head_source(anatomy: Anatomy) -> HeadSource:
    """Number the labels of an anatomy, capsules apart from other white matter."""
    labels = anatomy.labels.copy()
    window = grown_window(np.isin(labels, DEEP_NUCLEI), _CAPSULE_MARGIN)
    part = LabelBlock(labels[window], Grid(labels[window].shape, anatomy.grid.affine))
    labels[window] = with_capsules(part).labels
    # Capsules have a number of our own, and are white matter wherever they are.
    classes_of = class_table(int(anatomy.labels.max(initial=0)))[anatomy.labels]
    present = np.flatnonzero(np.bincount(labels.reshape(-1)))
    codes_of = np.zeros(int(present.max()) + 1, dtype=np.uint8)
    codes_of[present] = np.arange(present.size)
    codes: LabelArray = codes_of[labels]
    classes = np.zeros(present.size, dtype=np.uint8)
    classes[codes.reshape(-1)] = classes_of.reshape(-1)
    return HeadSource(anatomy, codes, tissue_of(present.astype(np.int16)), classes)


def whole_head_settings() -> dict[str, object]:
    """What samples depend on besides `WholeHeadSettings`, for the hash of a training run's inputs."""
    return {
        "contrast": contrast_settings(),
        "looks": look_constants(),
        "roi_from_center_mm": list(ROI_FROM_CENTER_MM),
        "face": [list(_FACE_MM), list(_FACE_DEG), _FACE_MARGIN_VOXELS],
        "classes": class_table(600).tolist(),
        "ventricles": [list(VENTRICLES_MM), VENTRICLE_REACH_MM],
        "nuclei": [list(NUCLEI_MM), NUCLEI_REACH_MM],
    }


@cache
def load_source(path: Path | None) -> HeadSource:
    """Label map of a file, or the bundled one, ready for samples; loaded once in each process.

    Raises
    ------
    ConfigError
        As `simulate.anatomy.load_anatomy`.
    """
    return head_source(bundled_anatomy() if path is None else load_anatomy(path))


def draw_head_sample(
    rng: np.random.Generator, source: HeadSource, grid: HeadGrid, settings: WholeHeadSettings
) -> HeadSample:
    """Draw one head.

    Parameters
    ----------
    source : HeadSource
        Whose anatomy is deformed.
    grid : HeadGrid
        What the sample lies on.
    """
    look = settings.look
    placed = _place(rng, source.anatomy, grid, settings)
    model = draw_contrast(rng, look)
    # Only what the grid reaches is painted: around the basal ganglia that is a small part of a head.
    grid_of_map = source.anatomy.grid
    window = reached(grid_of_map, *placed, _PAINT_MARGIN)
    part = source.codes[window]
    affine = grid_of_map.affine.copy()
    affine[:3, 3] = apply_affine(affine, [each.start for each in window])
    values, codes = sample(
        [_painted(part, source.tissues, model), part], Grid((*part.shape,), affine), *placed
    )
    image, codes = np.asarray(values, dtype=np.float32), np.asarray(codes, dtype=np.uint8)
    classes: LabelArray = source.classes[codes]
    add_pathology(rng, image, classes, model, look)
    texture = rng.standard_normal(image.shape, dtype=np.float32)
    texture *= model.texture[source.tissues][codes]
    image += texture
    image = acquire(rng, np.maximum(image, 0.0, out=image), placed[1].grid, look)
    kept = _kept(rng, classes, placed[1], look)
    image[~kept] = 0.0
    seen = _field_of_view(rng, image.shape, look)
    classes[~(kept & seen)] = HeadClass.NOT_BRAIN
    image = normalised(image, seen)
    np.power(image, np.float32(np.exp(rng.normal(0.0, look.gamma_sigma))), out=image)
    if rng.random() < settings.mirrored_share:
        image, classes = mirrored(image, classes)
    return HeadSample(np.ascontiguousarray(image), np.ascontiguousarray(classes))


def mirrored(image: Float32Array, classes: LabelArray) -> tuple[Float32Array, LabelArray]:
    """The head with left and right exchanged, in image and classes; i runs to the right in both."""
    return image[::-1], mirror_table()[classes[::-1]]


def _place(
    rng: np.random.Generator, anatomy: Anatomy, grid: HeadGrid, settings: WholeHeadSettings
) -> tuple[Warp, Placed]:
    """A shape, and how it lies on the grid, whose own frame is the scan's."""
    variation = ShapeVariation(scale=settings.scale, shear=settings.shear, offset_mm=settings.offset_mm)
    growth = float(rng.uniform(*settings.growth))
    # Recipes without it draw the heads that they always drew.
    nuclei = float(rng.uniform(*settings.nuclei)) if any(settings.nuclei) else 0.0
    warp = draw_warp(rng, anatomy, variation, growth, nuclei)
    center = warp.inverse(anatomy.roi_center_mm)
    limit = float(rng.uniform(*settings.pose_deg))
    pose = random_rigid(rng, center, limit, 0.0)
    shift = rng.uniform(-1.0, 1.0, 3) * np.asarray(settings.shift_mm)
    if settings.centered_on == "head":
        shift -= np.asarray(ROI_FROM_CENTER_MM)
    return warp, Placed(grid.at(center + shift), inverse_of(pose))


def _painted(codes: LabelArray, tissues: Int16Array, model: TissueModel) -> Float32Array:
    """Levels of a label map or a part of it, averaged over 2 mm as a voxel of the grid averages them; float32.

    Smoothing levels is smoothing the probabilities of tissues: both are linear. Weights are 1/4, 1/2, 1/4.
    """
    image: Float32Array = model.level[tissues][codes]
    for axis in range(3):
        image = np.moveaxis(image, axis, 0)
        between = image[1:] + image[:-1]
        image[1:-1] = between[1:]
        image[1:-1] += between[:-1]
        image[1:-1] *= np.float32(0.25)
        image = np.moveaxis(image, 0, axis)
    return image


def _kept(rng: np.random.Generator, classes: LabelArray, placed: Placed, look: LookSettings) -> BoolArray:
    """What stripping and defacing leave of a head."""
    chance = rng.random()
    if chance < look.stripped_share:
        brain: BoolArray = classes != HeadClass.NOT_BRAIN
        if rng.random() < 0.5:
            brain &= classes != HeadClass.CSF
        steps = int(rng.integers(0, 3))
        return brain if steps == 0 else np.asarray(ndimage.binary_dilation(brain, iterations=steps))
    if chance >= look.stripped_share + look.defaced_share:
        return np.ones(classes.shape, dtype=np.bool_)
    tilt = np.radians(rng.uniform(*_FACE_DEG))
    normal = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    face = _beyond(placed, normal, np.asarray(_FACE_MM) + rng.normal(0.0, 4.0, 3))
    near = ndimage.binary_dilation(classes != HeadClass.NOT_BRAIN, iterations=_FACE_MARGIN_VOXELS)
    return np.asarray(near | ~face, dtype=np.bool_)


def _beyond(placed: Placed, normal: FloatArray, point_mm: FloatArray) -> BoolArray:
    """Voxels in front of a plane of person space."""
    person_from_voxel = placed.person_from_world @ placed.grid.affine
    slope = normal @ person_from_voxel[:3, :3]
    start = float(normal @ (apply_affine(person_from_voxel, np.zeros(3)) - point_mm))
    i, j, k = (slope[axis] * np.arange(n) for axis, n in enumerate(placed.grid.shape))
    beyond: BoolArray = (i + start)[:, None, None] + j[:, None] + k > 0.0
    return beyond


def _field_of_view(rng: np.random.Generator, shape: tuple[int, ...], look: LookSettings) -> BoolArray:
    """Voxels that a scan reaches: all, or less at some faces."""
    seen = np.ones(shape, dtype=np.bool_)
    for axis, n in enumerate(shape):
        view = np.moveaxis(seen, axis, 0)
        for face in range(2):
            cut, part = rng.random() < look.cropped_share, rng.uniform(0.0, look.cropped_part)
            if cut and (depth := round(part * n)):
                view[slice(0, depth) if face == 0 else slice(n - depth, n)] = False
    return seen
