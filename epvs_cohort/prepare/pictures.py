"""Small pictures of preparation: the outline and the atlas over the scan, and the slices around the AC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from epvs_cohort.data.picture_layers import PLAIN_REGISTRATION, PLAIN_ROI, PLANES, planes_record
from epvs_cohort.data.pictures import (
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SLICE_NAME,
    VERMILION,
    YELLOW,
    Colour,
    encode,
    grey_panel,
    letter,
    paint,
    side_by_side,
    upright,
    window,
    write,
)
from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.prepare.evidence import VENTRICLE, WHITE_MATTER
from epvs_cohort.prepare.resample import inverse, resample_cubic, sample_linear
from epvs_cohort.prepare.roi import Outline
from epvs_cohort.records import Float32Array, Image, LabelArray

#: Structures by label of the left side (odd) and right side (even).
STRUCTURE_COLOURS: tuple[tuple[tuple[int, int], str, Colour], ...] = (
    ((1, 2), "caudate", ORANGE),
    ((3, 4), "putamen", SKY),
    ((5, 6), "pallidum", GREEN),
    ((7, 8), "accumbens", PURPLE),
)

#: Extent of the planes in mm from the centre of the region, which lies in the front half of the head; step 1 mm.
LOW_MM = np.array([-84.0, -112.0, -80.0])
HIGH_MM = np.array([84.0, 84.0, 92.0])
#: The sagittal plane of the outline lies this far left of the middle, through the putamen: at the midline there is
#: nothing to see of the basal ganglia.
PUTAMEN_OFFSET_MM = 24.0
#: How far the grid slices beside the AC slice go.
NEIGHBOURS = 2


@dataclass(frozen=True)
class Planes:
    """Three planes through the centre of the region, across x, y and z, at 1 mm.

    Attributes
    ----------
    grids : tuple of Grid
        Each with one voxel along its own axis.
    grey : tuple of ndarray
        Grey levels (rows, columns), upright.
    """

    grids: tuple[Grid, Grid, Grid]
    grey: tuple[np.ndarray, np.ndarray, np.ndarray]


def prepare_pictures(
    image: Image, voxel_from_rigid: FloatArray, outlined: Outline, grid: Grid, ac_slice: int | None
) -> Mapping[str, bytes]:
    """Pictures of one prepared scan, a few tens of kB together.

    Parameters
    ----------
    image : Image
        Native scan.
    voxel_from_rigid : ndarray, shape (4, 4)
        Rigid-frame mm to native voxel.
    outlined : Outline
        Region labels and tissue classes in the rigid frame.
    grid : Grid
        Prepared grid, voxel to rigid-frame mm.
    ac_slice : int or None
        Grid slice nearest the AC slice; the middle slice stands in where there is none.

    Returns
    -------
    mapping of str to bytes
        ``roi.webp`` and ``registration.webp``, both also plain and with a record of where their planes lie, and
        ``slice_kkk.webp`` for the AC slice and its neighbours.
    """
    center = outlined.center_mm
    lateral = cut_planes(image, voxel_from_rigid, center, sagittal_offset_mm=-PUTAMEN_OFFSET_MM)
    middle = cut_planes(image, voxel_from_rigid, center)
    roi = roi_picture(lateral, outlined, grid)
    affines, shapes = [plane.affine for plane in lateral.grids], [plane.shape for plane in lateral.grids]
    return {
        "roi.webp": encode(roi),
        "registration.webp": encode(registration_picture(middle, outlined)),
        PLAIN_ROI: encode(plain_picture(lateral)),
        PLAIN_REGISTRATION: encode(plain_picture(middle)),
        PLANES: planes_record(affines, shapes, roi.size),
        **slice_pictures(image, voxel_from_rigid @ grid.affine, grid.shape, ac_slice),
    }


def cut_planes(
    image: Image, voxel_from_rigid: FloatArray, center_mm: FloatArray, *, sagittal_offset_mm: float = 0.0
) -> Planes:
    """Cut the un-masked scan across x, y and z through ``center_mm``, trilinear.

    The sagittal plane lies ``sagittal_offset_mm`` to the right of it.
    """
    grids, cuts = [], []
    for axis in range(3):
        size = [round(high - low) + 1 for low, high in zip(LOW_MM, HIGH_MM, strict=True)]
        size[axis] = 1
        affine = np.eye(4)
        affine[:3, 3] = np.asarray(center_mm) + LOW_MM
        affine[axis, 3] = center_mm[axis] + (sagittal_offset_mm if axis == 0 else 0.0)
        grid = Grid((size[0], size[1], size[2]), affine)
        cut = sample_linear(image.data, voxel_from_rigid @ grid.affine, grid.shape)
        grids.append(grid)
        cuts.append(np.asarray(upright(np.squeeze(cut, axis=axis)), dtype=np.float32))
    low, high = grey_window(np.concatenate([cut.ravel() for cut in cuts]))
    greys = [window(cut, low, high) for cut in cuts]
    return Planes((grids[0], grids[1], grids[2]), (greys[0], greys[1], greys[2]))


def grey_window(values: Float32Array) -> tuple[float, float]:
    """Lowest and highest intensity worth showing: 0 or less, and the 99 % quantile of what shines."""
    bright = values[values > 0]
    if bright.size == 0:
        return 0.0, 1.0
    return 0.0, float(np.quantile(bright, 0.99))


def tissue_window(values: Float32Array) -> tuple[float, float]:
    """Window of a crop around the ganglia that lets the ventricles run white, so that small bright dots stand out."""
    bright = values[values > 0]
    if bright.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(bright, (0.01, 0.97))
    return float(low), float(high)


def roi_picture(planes: Planes, outlined: Outline, grid: Grid) -> Pillow.Image:
    """Outline of every structure and the box of the prepared grid, on three planes."""
    panels = []
    for axis, (plane, grey) in enumerate(zip(planes.grids, planes.grey, strict=True)):
        panel = grey_panel(grey, (2 * grey.shape[1], 2 * grey.shape[0]))
        labels = _flat(outlined.labels_on(plane), axis)
        for pair, _, colour in STRUCTURE_COLOURS:
            paint(panel, np.isin(labels, pair), colour)
        paint(panel, _flat(_in_box(plane, grid), axis) > 0, VERMILION)
        letter(panel, axis)
        panels.append(panel)
    for row, (_, name, colour) in enumerate((*STRUCTURE_COLOURS, ((0, 0), "box", VERMILION))):
        write(panels[0], name, (4, panels[0].height - 84 + 16 * row), colour, 12)
    return side_by_side(panels)


def plain_picture(planes: Planes) -> Pillow.Image:
    """The three planes with nothing on them, half as large: what is seen without the lines, in the same places."""
    whole = side_by_side([grey_panel(grey, (2 * grey.shape[1], 2 * grey.shape[0])) for grey in planes.grey])
    return whole.convert("L").resize((whole.width // 2, whole.height // 2), Pillow.Resampling.BOX)


def registration_picture(planes: Planes, outlined: Outline) -> Pillow.Image:
    """Edges of the registered template over the scan: brain, white matter and ventricles, on three planes."""
    panels = []
    for axis, (plane, grey) in enumerate(zip(planes.grids, planes.grey, strict=True)):
        panel = grey_panel(grey, (2 * grey.shape[1], 2 * grey.shape[0]))
        tissue = _flat(outlined.tissue_on(plane), axis)
        paint(panel, tissue == WHITE_MATTER, GREEN)
        paint(panel, tissue > 0, YELLOW)
        paint(panel, tissue == VENTRICLE, SKY)
        letter(panel, axis)
        panels.append(panel)
    names = (("brain", YELLOW), ("white matter", GREEN), ("ventricles", SKY))
    for row, (name, colour) in enumerate(names):
        write(panels[0], name, (4, panels[0].height - 52 + 16 * row), colour, 12)
    return side_by_side(panels)


def slice_pictures(
    image: Image, voxel_from_grid: FloatArray, shape: tuple[int, int, int], ac_slice: int | None
) -> Mapping[str, bytes]:
    """Plain greyscale slices of the un-masked scan on the prepared grid: the AC slice and two on each side."""
    middle = shape[2] // 2 if ac_slice is None else ac_slice
    low, high = max(middle - NEIGHBOURS, 0), min(middle + NEIGHBOURS + 1, shape[2])
    shifted = voxel_from_grid.copy()
    shifted[:3, 3] += voxel_from_grid[:3, 2] * low
    slab = resample_cubic(image.data, shifted, (shape[0], shape[1], high - low))
    dark, bright = tissue_window(slab)
    return {
        SLICE_NAME.format(k=k): encode(
            Pillow.fromarray(
                window(np.asarray(upright(slab[:, :, k - low]), dtype=np.float32), dark, bright)
            ),
            quality=80,
        )
        for k in range(low, high)
    }


def _flat(volume: LabelArray, axis: int) -> LabelArray:
    return np.asarray(upright(np.squeeze(volume, axis=axis)), dtype=np.uint8)


def _in_box(plane: Grid, grid: Grid) -> LabelArray:
    voxel = inverse(grid.affine) @ plane.affine
    inside = np.ones(plane.shape, dtype=np.bool_)
    index = np.ogrid[: plane.shape[0], : plane.shape[1], : plane.shape[2]]
    for axis in range(3):
        at = voxel[axis, axis] * index[axis] + voxel[axis, 3]
        inside = inside & (at >= -0.5) & (at <= grid.shape[axis] - 0.5)
    return np.asarray(inside, dtype=np.uint8)
