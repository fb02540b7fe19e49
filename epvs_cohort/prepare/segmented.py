"""Outline of the basal ganglia from networks' segmentation of the head; no affine or B-spline stage is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import TISSUE_CODES, Atlas
from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, rotation_angle_deg
from epvs_cohort.head_classes import BASAL_GANGLIA, HeadClass
from epvs_cohort.prepare.label_fit import LabelFit, fit_labels
from epvs_cohort.prepare.outlines import (
    GridPoints,
    SoftLabels,
    affine_map,
    labels_on_grid,
    nearest_on_grid,
)
from epvs_cohort.prepare.register import ROI_CENTER_MM, Rigid, rigid_part
from epvs_cohort.prepare.resample import inverse
from epvs_cohort.prepare.roi import Outline, wanted_labels
from epvs_cohort.prepare.similarity import similarity
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Float32Array, HeadSegmentation, Image, LabelArray, MniMap, QcValue


@dataclass(frozen=True)
class Looks:
    """The two looks that outline a scan; handed down, for networks live elsewhere.

    Attributes
    ----------
    whole : callable
        Finds the parts of a head in a native scan, coarsely and wherever the head lies.
    near : callable
        Finds them closely on a grid around a point: called with the scan, the map (4, 4) of a frame that the head lies
        straight in to native RAS mm, and the point, mm of that frame.
    """

    whole: Callable[[Image], HeadSegmentation]
    near: Callable[[Image, FloatArray, FloatArray], HeadSegmentation]


#: A voxel belongs to the region where the probabilities of its structures together exceed this. Of 0.5, 0.45, 0.42,
#: 0.4 and 0.35 it is the highest at which the dilated mask holds 99 % of the true region, on average over 16 simulated
#: heads of the people who validated the networks that ship.
THRESHOLD: Final = 0.42
#: The mask is dilated from where they exceed this, so that it is wide where the network is unsure. Of 0.42, 0.3, 0.2,
#: 0.15 and 0.1 it is the highest at which the dilated mask holds 99.5 % of the true region of each of the two people
#: who validated the networks, on average over four simulated heads.
MASK_THRESHOLD: Final = 0.2
#: A part of the region that hangs together with no other and is smaller than this, in mL, is none: an accumbens, the
#: smallest structure, measures 0.4 mL and more and touches caudate and putamen.
LEAST_PART_ML: Final = 0.4
#: A close look at a head that is turned or shifted more than this was not trained for; then its own answer, which is
#: nearer, says where to look once more.
FARTHEST_TURN_DEG: Final = 8.0
FARTHEST_MM: Final = 6.0
_MOST_CLOSE_LOOKS: Final = 2
#: A network this unsure of the region, in nats, as between three classes alike, guesses: 0.3 in real scans at most, 0.7
#: in a head whose axes were exchanged, 1.35 in a phantom.
GUESS_NATS: Final = 1.0
#: Voxels of the segmentation around the region that are kept with it.
_MARGIN: Final = 3

#: Tissue of the atlas that each class is. What is left of the brain (brain stem, cerebellum, hippocampus) is neither
#: white matter nor fluid, and stands with the deep grey matter.
_TISSUE_OF: Final = {
    HeadClass.NOT_BRAIN: "outside",
    HeadClass.LATERAL_VENTRICLES: "ventricle",
    HeadClass.THIRD_VENTRICLE: "ventricle",
    HeadClass.CSF: "csf",
    HeadClass.CORTEX: "cortex",
    HeadClass.WHITE_MATTER: "white matter",
}


@dataclass(frozen=True)
class Found:
    """What a look at a scan found, how that lies to MNI152, and of a close look what the coarse one found around it."""

    head: HeadSegmentation
    fit: LabelFit
    around: HeadSegmentation | None = None


def find(image: Image, looks: Looks, atlas: Atlas) -> Found:
    """Look at a whole scan and fit the atlas's labels to what was found.

    Raises
    ------
    RoiError
        Too little of the basal ganglia was found.
    """
    head = looks.whole(image)
    return Found(head, fit_labels(head, atlas))


def find_near(image: Image, whole: Found, looks: Looks, atlas: Atlas) -> Found:
    """Look closely at where the basal ganglia were found in the whole scan, and fit the atlas's labels anew.

    Where they then turn out to lie otherwise than heads lay in training, the scan is looked at once more.

    Raises
    ------
    RoiError
        Too little of the basal ganglia was found, or what was found is a guess.
    """
    found, frame = whole, rigid_part(whole.fit.affine)
    for _ in range(_MOST_CLOSE_LOOKS):
        head = looks.near(image, frame, ROI_CENTER_MM)
        found = Found(head, fit_labels(head, atlas), whole.head)
        better = rigid_part(found.fit.affine)
        turn, shift = _apart(inverse(frame) @ better)
        if turn <= FARTHEST_TURN_DEG and shift <= FARTHEST_MM:
            break
        frame = better
    unsure = found.head.entropy_inside
    if unsure is not None and unsure > GUESS_NATS:
        raise RoiError(
            f"what the network found of the basal ganglia is a guess, with {unsure:.2f} nats of entropy on average; "
            f"legal are at most {GUESS_NATS:g}",
            hint="the image may show no head, or not this part of it; look at it",
        )
    return found


def _apart(pose: FloatArray) -> tuple[float, float]:
    """Degrees and mm by which a pose differs from none at the middle of the basal ganglia."""
    moved = apply_affine(pose, ROI_CENTER_MM) - ROI_CENTER_MM
    return rotation_angle_deg(pose), float(np.linalg.norm(moved))


def outline_segmented(image: Image, rigid: Rigid, found: Found, protocol: Protocol, atlas: Atlas) -> Outline:
    """Outline the basal ganglia as a network found them.

    Coordinates in MNI152 come from the affine that brings the atlas's labels onto those found.

    Parameters
    ----------
    image : Image
        Native voxels.
    rigid : Rigid
        Pose of the scan.
    found : Found
        By the close look.
    protocol : Protocol
        Names the regions.
    atlas : Atlas

    Returns
    -------
    Outline

    Raises
    ------
    RoiError
        None of the regions that the protocol names was found.
    """
    head, fit = found.head, found.fit
    rigid_from_head = rigid.rigid_from_native @ head.grid.affine
    soft = _soft(head, sorted(wanted_labels(protocol, atlas)), rigid_from_head)
    mni_from_rigid = np.linalg.inv(rigid.rigid_from_native @ fit.affine)

    def mni_on(grid: Grid) -> MniMap:
        return affine_map(mni_from_rigid @ grid.affine, grid)

    def native_from_mni(mni_mm: npt.ArrayLike) -> FloatArray:
        return apply_affine(fit.affine, mni_mm)

    points = apply_affine(soft.affine, np.argwhere(np.sum(soft.maps, axis=0) > THRESHOLD))
    if len(points) == 0:
        raise RoiError(
            f"the network found none of roi.regions {list(protocol.roi.regions)}",
            hint="the image may not show this part of the head; look at it",
        )
    return Outline(
        center_mm=(points.min(axis=0) + points.max(axis=0)) / 2,
        labels_on=lambda grid: labels_on_grid(
            soft, GridPoints(grid, affine_map(grid.affine, grid)), THRESHOLD
        ),
        tissue_on=lambda grid: _tissue_on(found, rigid.rigid_from_native, grid),
        mni_on=mni_on,
        native_from_mni=native_from_mni,
        way="network",
        quality=_quality(image, rigid, found, atlas),
        reach_on=lambda grid: (
            labels_on_grid(soft, GridPoints(grid, affine_map(grid.affine, grid)), MASK_THRESHOLD) > 0
        ),
    )


def _soft(head: HeadSegmentation, labels: list[int], rigid_from_head: FloatArray) -> SoftLabels:
    """Probabilities of some classes on a box around them, in the rigid frame."""
    near = np.argwhere(head.probabilities[labels].sum(axis=0) > MASK_THRESHOLD / 2.0)
    size = np.array(head.grid.shape)
    low, high = (near.min(axis=0), near.max(axis=0)) if len(near) else (np.zeros(3, int), size - 1)
    low, high = np.maximum(low - _MARGIN, 0), np.minimum(high + _MARGIN, size - 1)
    box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    affine = rigid_from_head.copy()
    affine[:3, 3] = apply_affine(rigid_from_head, low)
    maps = head.probabilities[labels][:, *box]
    # Of all structures together: one that the protocol names alone may be smaller.
    together = head.probabilities[list(BASAL_GANGLIA)][:, *box].sum(axis=0)
    maps[:, _islands(together, float(np.prod(head.grid.spacing_mm)) / 1000.0)] = 0.0
    return SoftLabels(tuple(labels), tuple(maps), affine)


def _islands(total: Float32Array, voxel_ml: float) -> npt.NDArray[np.bool_]:
    """Voxels of the region in parts too small to be any of its structures, and what may belong to such parts alone."""
    islands = np.zeros(total.shape, dtype=np.bool_)
    for threshold in (THRESHOLD, MASK_THRESHOLD):
        parts, number = ndimage.label((total > threshold) & ~islands, np.ones((3, 3, 3)))
        surely = (total > THRESHOLD) & ~islands
        small = np.bincount(parts[surely], minlength=number + 1) * voxel_ml < LEAST_PART_ML
        small[0] = False
        islands |= small[parts]
    return islands


def _tissue_on(found: Found, rigid_from_native: FloatArray, grid: Grid) -> LabelArray:
    """Tissue of the close look; beyond its grid, where the rest of the head lies, that of the coarse one."""
    table = np.array([TISSUE_CODES[_TISSUE_OF.get(each, "deep grey")] for each in HeadClass], dtype=np.uint8)
    points, out = GridPoints(grid, affine_map(grid.affine, grid)), np.zeros(grid.shape, dtype=np.uint8)
    for head in filter(None, (found.around, found.head)):
        # One more, so that 0 is what no voxel is near to.
        own = nearest_on_grid(table[head.labels] + np.uint8(1), rigid_from_native @ head.grid.affine, points)
        out = np.where(own > 0, own - np.uint8(1), out)
    return out


def _quality(image: Image, rigid: Rigid, found: Found, atlas: Atlas) -> tuple[QcValue, ...]:
    head, fit = found.head, found.fit
    scale = float(abs(np.linalg.det(fit.affine[:3, :3])) ** (1 / 3))
    turned, moved = _apart(rigid.rigid_from_native @ rigid_part(fit.similarity))
    return (
        QcValue("similarity_affine", similarity(image, atlas, partial(apply_affine, fit.affine)), "nats"),
        QcValue("similarity_spline", None, "nats"),
        QcValue("affine_scale", scale, "ratio"),
        QcValue("spline_used", None, "0 or 1"),
        QcValue("roi_atlas_dice", fit.dice, "dice"),
        QcValue("roi_atlas_distance_mm", None, "mm"),
        QcValue("pose_labels_distance_mm", moved, "mm"),
        QcValue("pose_labels_turn_deg", turned, "deg"),
        QcValue("roi_entropy_inside", head.entropy_inside, "nats"),
        QcValue("roi_entropy_border", head.entropy_border, "nats"),
    )
