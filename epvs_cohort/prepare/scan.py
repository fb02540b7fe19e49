"""Preparation of one scan, from native voxels to what the network sees."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.data.orient import closest_canonical
from epvs_cohort.data.pictures import ac_grid_slice
from epvs_cohort.errors import ConfigError, RoiError, ScanError
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, Grid, apply_affine, axial_axis, centered_grid
from epvs_cohort.prepare.evidence import Evidence, Near, look_near, look_wide
from epvs_cohort.prepare.mask import SoftMask, soft_mask
from epvs_cohort.prepare.pictures import prepare_pictures
from epvs_cohort.prepare.quality import measure
from epvs_cohort.prepare.register import Rigid, register_rigid, similarity_part
from epvs_cohort.prepare.resample import field_of_view, inverse, resample_cubic
from epvs_cohort.prepare.roi import Outline, outline_roi, roi_way
from epvs_cohort.prepare.segmented import Looks, find, find_near, outline_segmented
from epvs_cohort.prepare.trim import Trimmed, trim
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import (
    AcSlice,
    Float32Array,
    Image,
    LabelArray,
    PreparedVolume,
    QcValue,
    Scan,
)

#: Part of the fingerprint of a prepared volume; raised whenever preparation gives other voxels, labels or maps.
PREPARE_VERSION = 5

#: A scan that holds less of the region than this is not counted: what is cut off cannot be seen.
LARGEST_OUTSIDE_SHARE = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Placed:
    """Where one scan's prepared grid lies."""

    rigid: Rigid
    outline: Outline
    grid: Grid
    near: Near

    @property
    def native_from_grid(self) -> np.ndarray:
        return inverse(self.rigid.rigid_from_native) @ self.grid.affine


@dataclass(frozen=True)
class _Voxels:
    """Voxels of one scan on the prepared grid."""

    roi: LabelArray
    values: Float32Array
    mask: SoftMask
    trimmed: Trimmed


def prepare_scan(scan: Scan, image: Image, protocol: Protocol, looks: Looks | None = None) -> PreparedVolume:
    """Register, outline, resample, mask, trim and measure one scan (paper, Sec. 3).

    Parameters
    ----------
    scan : Scan
        Key, side files and, where a person gave it, the AC slice.
    image : Image
        Native voxels.
    protocol : Protocol
        Settings of the study.
    looks : Looks or None
        Find the parts of a head in a scan; needed where networks outline the region.

    Returns
    -------
    PreparedVolume

    Raises
    ------
    ConfigError
        Networks are to outline the region, and there are none.
    RoiError
        More than half of the basal ganglia lie outside the field of view, or nothing is outlined.
    RegistrationError
        No usable transform to MNI was found.
    UnsuitableImageError
        The region holds no positive intensity.
    """
    try:
        return _prepared(scan, image, protocol, looks)
    except ScanError as error:
        if str(scan.path) in error.message:
            raise
        raise type(error)(f"{scan.path}: {error.message}", hint=error.hint) from error


def _prepared(scan: Scan, stored: Image, protocol: Protocol, looks: Looks | None) -> PreparedVolume:
    seconds: dict[str, float] = {}
    atlas, image = load_atlas(), closest_canonical(stored)
    if roi_way(scan, protocol) == "network":
        placed = _place_segmented(scan, image, protocol, looks, seconds)
    else:
        placed = _place(scan, image, protocol, seconds)
    voxels = _voxels(scan, image, protocol, placed, seconds)
    voxel_from_rigid = inverse(placed.rigid.rigid_from_native @ image.affine)
    with _timed(seconds, "quality"):
        quality = _quality(image, placed, voxels)
    volume = PreparedVolume(
        key=scan.key,
        intensities=voxels.trimmed.intensities,
        labels=voxels.mask.labels,
        regions=atlas.regions,
        native_from_grid=placed.native_from_grid,
        rigid_from_native=placed.rigid.rigid_from_native,
        mni=placed.outline.mni_on(placed.grid),
        native=stored.grid,
        ac=ac_slice(scan, stored, placed.outline),
        quality=quality,
        facts=stored.facts,
        notes=stored.notes,
    )
    with _timed(seconds, "pictures"):
        pictures = prepare_pictures(
            image, voxel_from_rigid, placed.outline, placed.grid, ac_grid_slice(volume)
        )
    _log.debug("%s: prepared in %s", scan.key, ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items()))
    return replace(volume, pictures=pictures)


def ac_slice(scan: Scan, image: Image, outline: Outline) -> AcSlice | None:
    """Native axial slice nearest the anterior commissure; the manifest's ``ac_slice`` wins.

    Raises
    ------
    RoiError
        The manifest's slice is not a slice of the scan.
    """
    axis = axial_axis(image.affine)
    size = image.data.shape[axis]
    if scan.ac_slice is not None:
        if not 0 <= scan.ac_slice < size:
            raise RoiError(
                f"{scan.path}: ac_slice is {scan.ac_slice}; legal are 0 to {size - 1} along voxel axis {axis}",
                hint="ac_slice is the 0-based native index along the inferior-superior axis",
            )
        return AcSlice(axis, scan.ac_slice)
    native_mm = outline.native_from_mni(np.asarray([MNI_ANTERIOR_COMMISSURE_MM], dtype=np.float64))[0]
    voxel = apply_affine(inverse(image.affine), native_mm)
    within = np.all((voxel >= -0.5) & (voxel <= np.asarray(image.data.shape) - 0.5))
    return AcSlice(axis, min(max(round(float(voxel[axis])), 0), size - 1)) if within else None


def _place(scan: Scan, image: Image, protocol: Protocol, seconds: dict[str, float]) -> _Placed:
    atlas = load_atlas()
    with _timed(seconds, "rigid"):
        rigid = register_rigid(image, protocol.registration, atlas)
    with _timed(seconds, "outline"):
        outline = outline_roi(scan, image, rigid, protocol, atlas)
    return _checked(scan, image, protocol, rigid, outline)


def _place_segmented(
    scan: Scan, image: Image, protocol: Protocol, looks: Looks | None, seconds: dict[str, float]
) -> _Placed:
    """A coarse look says where the close one goes, and that where the registration starts."""
    if looks is None:
        raise ConfigError(
            "the networks are to outline this scan, and no functions that segment a head were handed down",
            hint="hand them down, or set roi.method to 'atlas'",
        )
    atlas = load_atlas()
    with _timed(seconds, "whole look"):
        whole = find(image, looks, atlas)
    with _timed(seconds, "near look"):
        found = find_near(image, whole, looks, atlas)
    with _timed(seconds, "rigid"):
        rigid = register_rigid(image, protocol.registration, atlas, similarity_part(found.fit.affine))
    with _timed(seconds, "outline"):
        outline = outline_segmented(image, rigid, found, protocol, atlas)
    return _checked(scan, image, protocol, rigid, outline)


def _checked(scan: Scan, image: Image, protocol: Protocol, rigid: Rigid, outline: Outline) -> _Placed:
    """The prepared grid around the outline, unless too much of that lies outside the scan."""
    grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, outline.center_mm)
    near = look_near(image, inverse(rigid.rigid_from_native @ image.affine), outline)
    outside = near.outside_share
    if outside > LARGEST_OUTSIDE_SHARE:
        raise RoiError(
            f"{scan.path}: {outside:.0%} of the basal ganglia lie outside the field of view of the scan; "
            f"legal is at most {LARGEST_OUTSIDE_SHARE:.0%}",
            hint="the scan may not cover the basal ganglia, or its registration failed",
        )
    return _Placed(rigid, outline, grid, near)


def _voxels(
    scan: Scan, image: Image, protocol: Protocol, placed: _Placed, seconds: dict[str, float]
) -> _Voxels:
    grid = placed.grid
    voxel_from_grid = inverse(image.affine) @ placed.native_from_grid
    with _timed(seconds, "labels"):
        roi = placed.outline.labels_on(grid)
    with _timed(seconds, "mask"):
        inside = field_of_view(image.grid.shape, voxel_from_grid, grid.shape)
        reach = placed.outline.reach_on(grid) if placed.outline.reach_on else None
        mask = soft_mask(roi, grid.spacing_mm, protocol.roi, inside, reach)
    if not ((mask.labels > 0) & (roi > 0)).any():
        raise RoiError(
            f"{scan.path}: no voxel of the basal ganglia lies on the prepared grid within the scan",
            hint="the aseg, mask or registration of this scan may belong to another image",
        )
    with _timed(seconds, "resample"):
        values = resample_cubic(image.data, voxel_from_grid, grid.shape, mask.weight > 0)
    with _timed(seconds, "trim"):
        trimmed = trim(values, mask, protocol.trim)
    return _Voxels(roi, values, mask, trimmed)


def _quality(image: Image, placed: _Placed, voxels: _Voxels) -> tuple[QcValue, ...]:
    voxel_from_rigid = inverse(placed.rigid.rigid_from_native @ image.affine)
    evidence = Evidence(
        image=image,
        voxel_from_rigid=voxel_from_rigid,
        grid=placed.grid,
        near=placed.near,
        wide=look_wide(image, voxel_from_rigid, placed.outline),
        roi=voxels.roi,
        mask=voxels.mask,
        values=voxels.values,
        trimmed=voxels.trimmed,
    )
    return (*image.quality, *placed.rigid.quality, *placed.outline.quality, *measure(evidence))


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
