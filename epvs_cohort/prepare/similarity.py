"""Mutual information of template and scan under a map, the measure that every stage of registration reports."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.shrunk import shrunk_atlas, shrunk_image
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.records import Image

#: Spacing in mm of the points compared, and bins of each image.
POINTS_MM = 4.0
BINS = 24


def similarity(image: Image, atlas: Atlas, native_from_mni: Callable[[FloatArray], FloatArray]) -> float:
    """Mutual information in nats within the template's brain, times the share of it that the scan holds.

    Parameters
    ----------
    image : Image
        Native scan.
    atlas : Atlas
        Template and brain mask.
    native_from_mni : callable
        MNI RAS mm to native RAS mm, (n, 3) to (n, 3).
    """
    template, inside, grid = shrunk_atlas(atlas, POINTS_MM)
    scan, affine = shrunk_image(image, POINTS_MM)
    voxels = np.argwhere(inside > 0.5)
    native = native_from_mni(apply_affine(grid, voxels))
    index = apply_affine(np.linalg.inv(affine), native)
    within = np.all((index >= -0.5) & (index <= np.array(scan.shape) - 0.5), axis=1)
    if within.sum() < 2 * BINS:
        return 0.0
    found = ndimage.map_coordinates(scan, index[within].T, order=1, mode="nearest")
    values = template[tuple(voxels.T)][within]
    return mutual_information(values, found) * float(within.mean())


def mutual_information(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Mutual information in nats of two samples, each in ``BINS`` equal bins between its 0.5 and 99.5 percentiles.

    >>> x = np.linspace(0, 1, 1000, dtype=np.float32)
    >>> mutual_information(x, x) > 3.0, abs(mutual_information(x, np.zeros_like(x))) < 1e-9
    (True, True)
    """
    binned = []
    for values in (a, b):
        low, high = np.percentile(values, [0.5, 99.5])
        scaled = (values - low) / max(float(high - low), 1e-12) * BINS
        binned.append(np.clip(scaled, 0, BINS - 1).astype(np.intp))
    joint = np.bincount(binned[0] * BINS + binned[1], minlength=BINS * BINS).reshape(BINS, BINS) / len(a)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())
