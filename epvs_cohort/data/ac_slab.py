"""The native slice of the anterior commissure, as the prepared grid sees it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray
from epvs_cohort.records import PreparedVolume

BoolArray = npt.NDArray[np.bool_]


def ac_slab(volume: PreparedVolume) -> BoolArray | None:
    """Voxels of the prepared grid that lie in the native slice of the anterior commissure.

    A voxel belongs to the slice when its native coordinate along ``ac.axis`` rounds to ``ac.index``. Where
    native slices are thinner than the steps of the grid, the slice is taken one step thick, since otherwise a
    lesion could pass through it between two rows of voxels.

    Returns
    -------
    ndarray, shape (I, J, K), bool, or None where the scan has no such slice
    """
    if volume.ac is None:
        return None
    along = native_voxel_from_grid(volume)[volume.ac.axis]
    half = max(0.5, 0.5 * float(np.abs(along[:3]).max()))
    i, j, k = np.ogrid[tuple(slice(n) for n in volume.labels.shape)]
    distance = i * along[0] + j * along[1] + k * along[2] + (along[3] - volume.ac.index)
    slab: BoolArray = (distance >= -half) & (distance < half)
    return slab


def native_voxel_from_grid(volume: PreparedVolume) -> FloatArray:
    """(4, 4) map from voxels of the prepared grid to 0-based native voxels."""
    matrix: FloatArray = np.linalg.inv(volume.native.affine) @ volume.native_from_grid
    return matrix
