"""Heads of known geometry: one of spheres with its outline, and what a perfect network finds in the template."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, rigid_about
from epvs_cohort.head_classes import CLASS_NAMES, HeadClass
from epvs_cohort.prepare.roi import Outline
from epvs_cohort.records import HeadSegmentation, Image, LabelArray, MniMap

#: Rigid-frame mm: two balls for the basal ganglia, one for the ventricle, the brain and the scalp around them.
CENTER = np.array([0.0, 5.0, 0.0])
LEFT, RIGHT, BALL_RADIUS = np.array([-22.0, 5.0, 0.0]), np.array([22.0, 5.0, 0.0]), 11.0
VENTRICLE, VENTRICLE_RADIUS = np.array([0.0, 5.0, 6.0]), 8.0
BRAIN_RADIUS, CORTEX_MM, SCALP_RADIUS = 62.0, 4.0, 74.0
LEVELS = {"ventricle": 240.0, "cortex": 140.0, "white": 100.0, "ganglia": 110.0, "scalp": 120.0}

#: Native frame: a rotated, shifted head.
RIGID_FROM_NATIVE: FloatArray = rigid_about((0, 0, 0), (0.12, -0.08, 0.2), (6.0, -9.0, 11.0))


def _distance(points: FloatArray, center: npt.ArrayLike) -> FloatArray:
    return np.asarray(np.linalg.norm(points - np.asarray(center), axis=-1))


def _points(grid: Grid) -> FloatArray:
    return apply_affine(
        grid.affine, np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    )


def labels_on(grid: Grid) -> LabelArray:
    """Left ball 3 (left putamen), right ball 4."""
    points = _points(grid)
    out = np.zeros(grid.shape, dtype=np.uint8)
    out[_distance(points, LEFT) < BALL_RADIUS] = 3
    out[_distance(points, RIGHT) < BALL_RADIUS] = 4
    return out


def tissue_on(grid: Grid) -> LabelArray:
    """Codes of the atlas: 1 ventricle, 3 cortex, 4 white matter, 5 deep grey."""
    points = _points(grid)
    radius = _distance(points, CENTER)
    out = np.zeros(grid.shape, dtype=np.uint8)
    out[radius < BRAIN_RADIUS] = 3
    out[radius < BRAIN_RADIUS - CORTEX_MM] = 4
    out[labels_on(grid) > 0] = 5
    out[_distance(points, VENTRICLE) < VENTRICLE_RADIUS] = 1
    return out


def mni_on(grid: Grid) -> MniMap:
    """The rigid frame is MNI space itself."""
    return MniMap(grid.affine, np.zeros((2, 2, 2, 3)), grid.shape)


def outline() -> Outline:
    """What a perfect outline of the phantom is."""
    back = np.linalg.inv(RIGID_FROM_NATIVE)
    return Outline(
        center_mm=CENTER,
        labels_on=labels_on,
        tissue_on=tissue_on,
        mni_on=mni_on,
        native_from_mni=lambda points: apply_affine(back, points),
        way="atlas",
        quality=(),
    )


@dataclass(frozen=True)
class Look:
    """How the phantom is scanned."""

    spacing: tuple[float, float, float] = (1.2, 1.2, 1.5)
    noise: float = 3.0
    stripped: bool = False
    #: Mirror the intensities of the brain, so that fluid is dark: a T1-like scan.
    inverted: bool = False
    #: Field of view in mm along the native axes.
    size_mm: tuple[float, float, float] = (168.0, 168.0, 168.0)
    #: Native mm of the middle of the field of view, relative to the head's.
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def scan(look: Look = Look(), blobs: tuple[tuple[float, float, float], ...] = ()) -> Image:
    """Scan of the phantom; ``blobs`` are rigid-frame mm of bright dots, sigma 1.2 mm."""
    shape = tuple(round(size / step) for size, step in zip(look.size_mm, look.spacing, strict=True))
    middle = apply_affine(np.linalg.inv(RIGID_FROM_NATIVE), CENTER) + np.asarray(look.shift_mm)
    affine = np.diag([*look.spacing, 1.0])
    affine[:3, 3] = middle - (np.array(shape) - 1.0) / 2.0 * np.array(look.spacing)
    native = Grid((shape[0], shape[1], shape[2]), affine)
    seen = Grid(native.shape, RIGID_FROM_NATIVE @ affine)
    tissue = tissue_on(seen)
    names = {1: "ventricle", 3: "cortex", 4: "white", 5: "ganglia"}
    data = np.zeros(native.shape, dtype=np.float32)
    if not look.stripped:
        radius = _distance(_points(seen), CENTER)
        data[(radius < SCALP_RADIUS) & (radius > BRAIN_RADIUS + 4.0)] = LEVELS["scalp"]
    for code, name in names.items():
        data[tissue == code] = 260.0 - LEVELS[name] if look.inverted else LEVELS[name]
    for blob in blobs:
        data += (100.0 * np.exp(-0.5 * (_distance(_points(seen), blob) / 1.2) ** 2)).astype(np.float32)
    rng = np.random.default_rng(5)
    noisy = data + rng.normal(0.0, look.noise, data.shape).astype(np.float32)
    return Image(
        np.where(data > 0, noisy, 0.0 if look.stripped else np.abs(noisy)).astype(np.float32), affine
    )


#: Classes of the atlas's tissues, in the order of their codes; its deep grey matter stands for what is left.
_CLASS_OF_TISSUE = (
    HeadClass.NOT_BRAIN,
    HeadClass.LATERAL_VENTRICLES,
    HeadClass.CSF,
    HeadClass.CORTEX,
    HeadClass.WHITE_MATTER,
    HeadClass.REST_OF_BRAIN,
)


def atlas_segmentation(native_from_mni: FloatArray, grid: Grid) -> HeadSegmentation:
    """What a perfect network finds in the template, moved: each voxel with the shares of the classes in it."""
    atlas = load_atlas()
    mni_from_voxel = np.linalg.inv(native_from_mni @ atlas.grid.affine) @ grid.affine
    classes = np.asarray(_CLASS_OF_TISSUE, dtype=np.uint8)[atlas.tissue]
    classes = np.where(atlas.labels > 0, atlas.labels, classes)
    probabilities = np.zeros((len(CLASS_NAMES), *grid.shape), dtype=np.float32)
    for number in np.unique(classes):
        # A voxel of 2 mm holds shares of what lies in it.
        soft = ndimage.gaussian_filter((classes == number).astype(np.float32), 2.0 * 12.0**-0.5)
        ndimage.affine_transform(
            soft,
            mni_from_voxel[:3, :3],
            mni_from_voxel[:3, 3],
            output_shape=grid.shape,
            output=probabilities[number],
            order=1,
        )
    probabilities[HeadClass.NOT_BRAIN] += 1.0 - probabilities.sum(axis=0)
    return HeadSegmentation(
        probabilities.argmax(axis=0).astype(np.uint8), probabilities, grid, {}, 0.2, 0.6, "perfect"
    )
