"""Heatmap and lesions on the native grid of a scan, as NIfTI images."""

from __future__ import annotations

import itertools
from typing import Any, Literal, TypeVar, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.detect.lesions import heat_volume
from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import Detection, Lesion, Prediction, PreparedVolume

#: How far, in native voxels, a lesion too small for the native grid may be moved to find a free voxel.
_SEARCH_VOXELS = 3

_Box = tuple[slice, slice, slice]
_Number = TypeVar("_Number", np.float32, np.uint16)


def native_maps(
    volume: PreparedVolume, prediction: Prediction, detection: Detection
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Heatmap (float32, linear) and lesion numbers (uint16, nearest) on the native grid.

    Only the part of the native grid that the prepared grid covers is computed. A lesion that falls between
    the native voxels is labelled at the voxel of its centre, or at the nearest that no other lesion needs.

    Returns
    -------
    tuple of Nifti1Image
        Heatmap and labels, both of shape and affine ``volume.native``.

    Raises
    ------
    RoiError
        The mask is empty.
    PredictionError
        The heatmap is not finite or does not fit the mask.
    """
    heat = heat_volume(volume, prediction)
    box = _native_box(volume)
    heat_map = np.zeros(volume.native.shape, dtype=np.float32)
    labels = np.zeros(volume.native.shape, dtype=np.uint16)
    if box is not None:
        heat_map[box] = _resampled(heat, volume, box, order=1)
        labels[box] = _resampled(detection.component_labels, volume, box, order=0)
    _keep_all(labels, detection.lesions, volume.native)
    return _nifti(heat_map, volume.native.affine), _nifti(labels, volume.native.affine)


def _native_box(volume: PreparedVolume) -> _Box | None:
    """Native voxels that the prepared grid covers; None where it lies outside the scan."""
    ends = [(-0.5, size - 0.5) for size in volume.labels.shape]
    corners = np.array(list(itertools.product(*ends)))
    to_native = np.linalg.inv(volume.native.affine) @ volume.native_from_grid
    at = apply_affine(to_native, corners)
    low = np.maximum(np.floor(at.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(at.max(axis=0)) + 1, volume.native.shape).astype(int)
    if np.any(high <= low):
        return None
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (i, j, k)


def _resampled(
    values: npt.NDArray[_Number],
    volume: PreparedVolume,
    box: tuple[slice, slice, slice],
    order: Literal[0, 1],
) -> npt.NDArray[_Number]:
    grid_from_voxel = volume.grid_from_native @ volume.native.affine
    start = np.array([part.start for part in box], dtype=np.float64)
    out: npt.NDArray[_Number] = ndimage.affine_transform(
        values,
        grid_from_voxel[:3, :3],
        offset=apply_affine(grid_from_voxel, start),
        output_shape=tuple(part.stop - part.start for part in box),
        order=order,
        mode="grid-constant",
        prefilter=False,
    )
    return out


def _keep_all(labels: npt.NDArray[np.uint16], lesions: tuple[Lesion, ...], native: Grid) -> None:
    """Label a voxel for each lesion that the nearest-neighbour map missed, in place."""
    sizes = np.bincount(labels[labels > 0], minlength=len(lesions) + 1)
    for lesion in lesions:
        if sizes[lesion.number] == 0:
            voxel = _free_voxel(labels, sizes, lesion, native)
            sizes[labels[voxel]] -= 1
            labels[voxel] = lesion.number
            sizes[lesion.number] = 1


def _free_voxel(
    labels: npt.NDArray[np.uint16], sizes: npt.NDArray[np.intp], lesion: Lesion, native: Grid
) -> tuple[int, ...]:
    """Nearest native voxel, in mm, that is background or belongs to a lesion with more than one voxel."""
    top = np.array(native.shape) - 1
    center = np.clip(np.floor(np.array(lesion.native_voxel) + 0.5), 0, top).astype(int)
    reach = np.arange(-_SEARCH_VOXELS, _SEARCH_VOXELS + 1)
    around = center + np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    around = around[np.all((around >= 0) & (around <= top), axis=1)]
    steps_mm = (around - center) @ np.asarray(native.affine, dtype=np.float64)[:3, :3].T
    ordered = around[np.argsort((steps_mm**2).sum(axis=1), kind="stable")]
    held = labels[tuple(ordered.T)]
    free = np.flatnonzero((held == 0) | (sizes[held] > 1))
    return tuple(int(v) for v in ordered[free[0] if free.size else 0])


def _nifti(data: npt.NDArray[np.generic], affine: FloatArray) -> nib.Nifti1Image:
    image: Any = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    return cast(nib.Nifti1Image, image)
