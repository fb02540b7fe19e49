"""Outline of the basal ganglia in a scan: the atlas carried over, FreeSurfer's aseg, or a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.images import read_labels
from epvs_cohort.errors import ConfigError, RoiError
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, spacing_of
from epvs_cohort.prepare.elastix import Volume
from epvs_cohort.prepare.matrices import read_scan_from_aseg
from epvs_cohort.prepare.outlines import (
    GridPoints,
    SoftLabels,
    affine_map,
    labels_at,
    labels_on_grid,
    nearest_on_grid,
    soft_labels,
)
from epvs_cohort.prepare.register import Rigid, shrunk_scan
from epvs_cohort.prepare.similarity import similarity
from epvs_cohort.prepare.warp import Warp, fit_warp
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import LABEL_NO_REGION, Image, LabelArray, MniMap, QcValue, Scan

#: FreeSurfer's numbers to structure and hemisphere (FreeSurferColorLUT).
ASEG_REGIONS: dict[int, str] = {
    11: "left caudate",
    12: "left putamen",
    13: "left pallidum",
    26: "left accumbens",
    50: "right caudate",
    51: "right putamen",
    52: "right pallidum",
    58: "right accumbens",
}
#: A voxel belongs to the ROI where the atlas labels' smoothed probabilities exceed this.
ATLAS_THRESHOLD = 0.5
ATLAS_SIGMA_VOXELS = 0.7
#: Side files are outlines already: half a voxel's interpolation, no more.
SIDE_THRESHOLD = 0.5
#: A voxel of a binary mask farther than this from every region of the atlas belongs to none.
NEAREST_REGION_MM = 6.0
#: Resolution of affine and B-spline, whatever the rigid stage uses: the labels are no finer.
WARP_MM = 2.0


@dataclass(frozen=True)
class Outline:
    """Basal ganglia of one scan.

    Attributes
    ----------
    center_mm : ndarray, shape (3,)
        Middle of the bounding box, rigid-frame RAS mm.
    labels_on : callable
        Grid (voxel to rigid-frame mm) to labels, uint8: keys of the atlas's regions, 255 inside but in no region.
    tissue_on : callable
        Grid to tissue codes of the atlas, uint8.
    mni_on : callable
        Grid to its map to MNI152 RAS mm.
    native_from_mni : callable
        MNI152 RAS mm to native RAS mm, shape (..., 3).
    way : str
        ``"network"``, ``"atlas"``, ``"aseg"`` or ``"mask"``.
    quality : tuple of QcValue
    reach_on : callable or None
        Grid to voxels, bool, that may belong to the region: the mask is dilated from them too. None where the labels
        are all.
    """

    center_mm: FloatArray
    labels_on: Callable[[Grid], LabelArray]
    tissue_on: Callable[[Grid], LabelArray]
    mni_on: Callable[[Grid], MniMap]
    native_from_mni: Callable[[npt.ArrayLike], FloatArray]
    way: str
    quality: tuple[QcValue, ...]
    reach_on: Callable[[Grid], npt.NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class _Side:
    """Labels of a side file in the atlas's numbers, with their place in the rigid frame."""

    labels: LabelArray
    rigid_from_voxel: FloatArray


def outline_roi(scan: Scan, image: Image, rigid: Rigid, protocol: Protocol, atlas: Atlas) -> Outline:
    """Outline the basal ganglia of a scan by the atlas, or by a file that it brings.

    Parameters
    ----------
    scan : Scan
        Names the side files, if any.
    image : Image
        Native voxels.
    rigid : Rigid
        Pose of the scan.
    protocol : Protocol
        ``roi.method`` chooses the way, which is not that of the networks (`prepare.segmented`).
    atlas : Atlas
        Template, labels and tissues.

    Returns
    -------
    Outline

    Raises
    ------
    ConfigError
        The protocol leaves the scan to the networks.
    RoiError
        The way asked for lacks its file, the file holds none of the regions, or lies outside the scan.
    RegistrationError
        The affine or B-spline stage gave up.
    """
    way = roi_way(scan, protocol)
    if way == "network":
        raise ConfigError(f"{scan.path}: roi.method {protocol.roi.method!r} leaves this scan to the networks")
    soft = _atlas_labels(atlas, protocol)
    side = _read_side(way, scan, rigid, wanted_labels(protocol, atlas))
    moving = shrunk_scan(image, WARP_MM)
    placed = Volume(moving.data, rigid.rigid_from_native @ moving.affine)
    warp = fit_warp(placed, atlas, WARP_MM, protocol.registration.seed)
    if way == "mask" and side is not None:
        side = _named(side, soft, warp)
    points = _points(warp, soft, side)
    _check_in_view(scan, image, rigid, points)
    native_from_rigid = np.linalg.inv(rigid.rigid_from_native)

    def native_from_mni(mni_mm: npt.ArrayLike) -> FloatArray:
        return apply_affine(native_from_rigid, warp.to_rigid(mni_mm))

    return Outline(
        center_mm=(points.min(axis=0) + points.max(axis=0)) / 2,
        labels_on=_labels_on(warp, soft, side),
        tissue_on=lambda grid: nearest_on_grid(
            atlas.tissue, atlas.grid.affine, GridPoints(grid, warp.on_grid(grid))
        ),
        mni_on=warp.on_grid,
        native_from_mni=native_from_mni,
        way=way,
        quality=_similarities(image, rigid, atlas, warp) + _agreement(warp, soft, side),
    )


def roi_way(scan: Scan, protocol: Protocol) -> str:
    """How the region of a scan is outlined: ``"network"``, ``"atlas"``, ``"aseg"`` or ``"mask"``.

    ``auto`` takes the aseg, else the mask, else the networks.

    Raises
    ------
    RoiError
        The way asked for lacks its file.
    """
    method = protocol.roi.method
    if method == "auto":
        return "aseg" if scan.aseg else "mask" if scan.mask else "network"
    if (method == "aseg" and scan.aseg is None) or (method == "mask" and scan.mask is None):
        raise RoiError(
            f"{scan.path}: roi.method is {method!r}, but the scan brings no {method} file",
            hint=f"name it in the manifest's column {method}, or set roi.method to 'network', 'atlas' or 'auto'",
        )
    return method


def wanted_labels(protocol: Protocol, atlas: Atlas) -> dict[int, str]:
    """Labels of the atlas whose structure the protocol names."""
    return {k: name for k, name in atlas.regions.items() if name.split(" ", 1)[1] in protocol.roi.regions}


def _atlas_labels(atlas: Atlas, protocol: Protocol) -> SoftLabels:
    kept = np.where(np.isin(atlas.labels, list(wanted_labels(protocol, atlas))), atlas.labels, 0).astype(
        np.uint8
    )
    if not kept.any():
        raise RoiError(
            f"roi.regions {list(protocol.roi.regions)} names no region of the atlas; "
            f"legal are {sorted({n.split(' ', 1)[1] for n in atlas.regions.values()})}"
        )
    return soft_labels(kept, atlas.grid.affine, ATLAS_SIGMA_VOXELS)


def _read_side(way: str, scan: Scan, rigid: Rigid, wanted: dict[int, str]) -> _Side | None:
    if way == "aseg" and scan.aseg is not None:
        return _aseg_side(scan, scan.aseg, rigid, wanted)
    if way == "mask" and scan.mask is not None:
        return _mask_side(scan.mask, rigid)
    return None


def _aseg_side(scan: Scan, path: Path, rigid: Rigid, wanted: dict[int, str]) -> _Side:
    aseg = read_labels(path)
    number_of = {name: label for label, name in wanted.items()}
    labels = np.zeros(aseg.data.shape, dtype=np.uint8)
    for theirs, name in ASEG_REGIONS.items():
        if name in number_of:
            labels[aseg.data == theirs] = number_of[name]
    if not labels.any():
        raise RoiError(
            f"{path}: holds none of FreeSurfer's labels {sorted(ASEG_REGIONS)} of the protocol's regions",
            hint="give aseg.mgz or another volume with FreeSurfer's numbers",
        )
    affine = aseg.affine
    if scan.aseg_to_scan is not None:
        affine = read_scan_from_aseg(scan.aseg_to_scan) @ affine
    return _Side(labels, rigid.rigid_from_native @ affine)


def _mask_side(path: Path, rigid: Rigid) -> _Side:
    mask = read_labels(path)
    labels = np.asarray(np.where(mask.data != 0, LABEL_NO_REGION, 0), dtype=np.uint8)
    if not labels.any():
        raise RoiError(f"{path}: the mask is empty; it must hold the basal ganglia as non-zero voxels")
    return _Side(labels, rigid.rigid_from_native @ mask.affine)


def _named(side: _Side, soft: SoftLabels, warp: Warp) -> _Side:
    """Give the voxels of a mask the atlas's regions."""
    voxels = np.argwhere(side.labels > 0)
    labels = np.zeros_like(side.labels)
    mni_mm = warp.to_mni(apply_affine(side.rigid_from_voxel, voxels))
    labels[tuple(voxels.T)] = _regions_near(soft, mni_mm)
    return _Side(labels, side.rigid_from_voxel)


def _regions_near(soft: SoftLabels, mni_mm: FloatArray) -> LabelArray:
    """Region of each point: the atlas's own, else the nearest within reach, else ``LABEL_NO_REGION``."""
    pad = int(np.ceil(NEAREST_REGION_MM / min(spacing_of(soft.affine))))
    maps = np.pad(np.stack(soft.maps), ((0, 0), (pad, pad), (pad, pad), (pad, pad)))
    hard = np.where(maps.sum(0) > ATLAS_THRESHOLD, 1 + np.argmax(maps, axis=0), 0)
    distance, nearest = ndimage.distance_transform_edt(
        hard == 0, sampling=spacing_of(soft.affine), return_indices=True
    )
    names = np.array([0, *soft.labels], dtype=np.uint8)
    filled = np.where(distance <= NEAREST_REGION_MM, names[hard[tuple(nearest)]], LABEL_NO_REGION)
    index = np.rint(apply_affine(np.linalg.inv(soft.affine), mni_mm)).astype(np.intp) + pad
    inside = np.all((index >= 0) & (index < np.array(hard.shape)), axis=1)
    index = np.where(inside[:, None], index, 0)
    return np.where(inside, filled[tuple(index.T)], LABEL_NO_REGION).astype(np.uint8)


def _labels_on(warp: Warp, soft: SoftLabels, side: _Side | None) -> Callable[[Grid], LabelArray]:
    if side is None:
        return lambda grid: labels_on_grid(soft, GridPoints(grid, warp.on_grid(grid)), ATLAS_THRESHOLD)
    softened = soft_labels(side.labels, side.rigid_from_voxel, 0.0)
    return lambda grid: labels_on_grid(
        softened, GridPoints(grid, affine_map(grid.affine, grid)), SIDE_THRESHOLD
    )


def _points(warp: Warp, soft: SoftLabels, side: _Side | None) -> FloatArray:
    """Rigid-frame mm of the voxels of the outline, shape (n, 3)."""
    if side is not None:
        return apply_affine(side.rigid_from_voxel, np.argwhere(side.labels > 0))
    voxels = np.argwhere(np.sum(soft.maps, axis=0) > ATLAS_THRESHOLD)
    return warp.to_rigid(apply_affine(soft.affine, voxels))


def _check_in_view(scan: Scan, image: Image, rigid: Rigid, points: FloatArray) -> None:
    voxels = apply_affine(np.linalg.inv(rigid.rigid_from_native @ image.affine), points)
    inside = np.all((voxels >= -0.5) & (voxels <= np.array(image.data.shape) - 0.5), axis=1)
    if not inside.any():
        raise RoiError(
            f"{scan.path}: the basal ganglia lie wholly outside the field of view of the scan",
            hint="its aseg or mask may be in another space (see aseg_to_scan), or the scan misses the region",
        )


def _agreement(warp: Warp, soft: SoftLabels, side: _Side | None) -> tuple[QcValue, ...]:
    """Dice of a side file with the atlas, and the distance of their centres; unknown for the atlas way."""
    if side is None:
        return (QcValue("roi_atlas_dice", None, "dice"), QcValue("roi_atlas_distance_mm", None, "mm"))
    theirs = apply_affine(side.rigid_from_voxel, np.argwhere(side.labels > 0))
    ours = _points(warp, soft, None)
    shared = labels_at(soft, warp.to_mni(theirs), ATLAS_THRESHOLD) > 0
    volume = float(abs(np.linalg.det(side.rigid_from_voxel[:3, :3])))
    atlas_volume = len(ours) * float(abs(np.linalg.det((warp.rigid_from_mni @ soft.affine)[:3, :3])))
    dice = 2 * float(shared.sum()) * volume / (len(theirs) * volume + atlas_volume)
    distance = float(np.linalg.norm(theirs.mean(axis=0) - ours.mean(axis=0)))
    return (QcValue("roi_atlas_dice", dice, "dice"), QcValue("roi_atlas_distance_mm", distance, "mm"))


def _similarities(image: Image, rigid: Rigid, atlas: Atlas, warp: Warp) -> tuple[QcValue, ...]:
    native_from_rigid = np.linalg.inv(rigid.rigid_from_native)
    native_from_mni = native_from_rigid @ warp.rigid_from_mni
    affine = similarity(image, atlas, lambda mm: apply_affine(native_from_mni, mm))
    spline = similarity(image, atlas, lambda mm: apply_affine(native_from_rigid, warp.to_rigid(mm)))
    scale = float(abs(np.linalg.det(warp.rigid_from_mni[:3, :3])) ** (1 / 3))
    return (
        QcValue("similarity_affine", affine, "nats"),
        QcValue("similarity_spline", spline, "nats"),
        QcValue("affine_scale", scale, "ratio"),
        QcValue("spline_used", float(np.any(warp.coefficients != 0)), "0 or 1"),
    )
