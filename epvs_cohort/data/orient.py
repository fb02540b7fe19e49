"""One storage order for all scans, so that the way a file stores its voxels changes no result."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np

from epvs_cohort.records import Image


def closest_canonical(image: Image) -> Image:
    """The same image with its axes permuted and flipped to run nearest to right, front and up.

    Block averages and random samples start at the first voxel; without this a flipped file would be registered
    to a slightly different pose. No voxel is copied.

    >>> mirrored = Image(np.arange(8).reshape(2, 2, 2), np.diag([-1.0, 1.0, 1.0, 1.0]))
    >>> canonical = closest_canonical(mirrored)
    >>> canonical.data[:, 0, 0].tolist(), float(canonical.affine[0, 3])
    ([4, 0], -1.0)
    """
    orientation = nib.orientations.io_orientation(image.affine)
    data = nib.orientations.apply_orientation(image.data, orientation)
    to_stored = nib.orientations.inv_ornt_aff(orientation, image.data.shape)
    return replace(image, data=data, affine=np.asarray(image.affine @ to_stored, dtype=np.float64))
