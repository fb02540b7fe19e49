"""The coarse grid that a head, or a part of one, is segmented on: where it lies in a scan, and what is put on it.

What a network is trained on and what it is shown later go through the same functions here.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from epvs_cohort.data.shrunk import shrunk_image
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid
from epvs_cohort.protocol import Positive, Settings
from epvs_cohort.records import Float32Array, Image

Side = Annotated[int, Field(ge=16, le=512, multiple_of=8)]
BoolArray = npt.NDArray[np.bool_]
#: What a grid lies around: the middle of a head as `head_center` finds it, or the middle of the basal ganglia as a
#: registration finds it.
CenteredOn = Literal["head", "basal ganglia"]

#: Percentiles of what is seen that become 0 and 1; the higher one is of what is brighter than the mean, so that the
#: share of air in a scan changes it little.
LOW_PERCENT: Final = 1.0
HIGH_PERCENT: Final = 98.0
#: Name of this normalisation in model cards.
NORMALISATION: Final = "percentiles-1-98"
#: Normalised intensities are cut here.
CEILING: Final = 1.5

#: Basal ganglia lie about so far from the middle that `head_center` finds, in RAS mm: looked at in five real scans, of
#: which each is within 1.5 cm of it.
ROI_FROM_CENTER_MM: Final = (0.0, 16.0, 0.0)

#: Voxel edge in mm at which the head is looked for.
_LOOK_MM: Final = 4.0
#: A brain's middle lies this far below the top of the head, and a head with more below it than twice that shows neck.
TOP_TO_MIDDLE_MM: Final = 85.0
#: Front and back are those of what lies at most this far below the top: shoulders and neck are no head.
_HEAD_MM: Final = 150.0
#: A slab belongs to the head where it holds this part of what the fullest one holds; specks of noise are none.
_SLAB_SHARE: Final = 0.05
#: Classes of the histogram that the threshold between air and head is found on.
_BINS: Final = 128


class HeadGrid(Settings):
    """Shape and spacing of the grid; it lies along the axes of an RAS frame."""

    shape: tuple[Side, Side, Side] = (80, 96, 80)
    spacing_mm: Positive = 2.0

    def at(self, center_mm: npt.ArrayLike) -> Grid:
        """The grid with its middle at a point of the frame, mm."""
        return centered_grid(self.shape, (self.spacing_mm,) * 3, center_mm)


def head_center(image: Image) -> FloatArray:
    """Where about the middle of the brain lies in a scan, native RAS mm, shape (3,).

    Left to right and front to back it is the middle of what is not air. Bottom to top it is
    ``TOP_TO_MIDDLE_MM`` below the top of the head where the scan reaches down to the neck, else the middle of what
    is seen, as it is in a stripped brain or a slab.

    Parameters
    ----------
    image : Image
        Any contrast; the person's head up within 45 degrees.
    """
    coarse, affine = shrunk_image(image, _LOOK_MM)
    low, high = (float(v) for v in np.percentile(coarse, (LOW_PERCENT, 99.5)))
    between = otsu(coarse[(coarse > low) & (coarse < high)])
    # Half of the way: dark tissue is more than air, and the threshold parts dark from bright tissue in some scans.
    found = np.argwhere(coarse > low + 0.5 * (between - low))
    points = apply_affine(affine, found if len(found) else np.argwhere(np.isfinite(coarse)))
    bottom, top = _ends(points[:, 2])
    head = points[points[:, 2] >= top - _HEAD_MM]
    left_right, back_front = (sum(_ends(head[:, axis])) / 2.0 for axis in range(2))
    return np.array([left_right, back_front, max(top - TOP_TO_MIDDLE_MM, (top + bottom) / 2.0)])


def _ends(places_mm: FloatArray) -> tuple[float, float]:
    """Where what lies at some places along an axis begins and ends."""
    low = float(places_mm.min()) - _LOOK_MM / 2.0
    counts = np.bincount(((places_mm - low) / _LOOK_MM).astype(np.intp))
    full = np.flatnonzero(counts > _SLAB_SHARE * counts.max())
    return low + float(full[0]) * _LOOK_MM, low + float(full[-1] + 1) * _LOOK_MM


def otsu(values: npt.NDArray[np.floating]) -> float:
    """Threshold that parts values into two classes of the greatest variance between them (Otsu 1979).

    >>> 1.0 < otsu(np.array([0.0, 0.5, 1.0, 9.0, 9.5, 10.0])) < 9.0
    True
    """
    if values.size == 0 or float(values.min()) == float(values.max()):
        return float(values.min()) if values.size else 0.0
    counts, edges = np.histogram(values, bins=_BINS)
    middles = (edges[:-1] + edges[1:]) / 2.0
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * middles)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    # Empty classes between two heaps are all equally good: the middle one is taken.
    best = np.flatnonzero(between >= between.max() * (1.0 - 1e-9))
    return float(edges[1:-1][best].mean())


def on_grid(image: Image, grid: Grid) -> tuple[Float32Array, BoolArray]:
    """A scan averaged to about the grid's spacing and interpolated linearly onto it.

    Parameters
    ----------
    image : Image
        In the storage order of `data.orient.closest_canonical`: blocks of voxels are averaged from the first on.
    grid : Grid
        In native RAS mm, turned or not.

    Returns
    -------
    tuple of ndarray, shape ``grid.shape``
        Intensities, float32, 0 where the scan does not reach; and where it does.
    """
    coarse, affine = shrunk_image(image, round(min(grid.spacing_mm), 6))
    voxel_from_grid = np.linalg.inv(affine) @ grid.affine
    out = ndimage.affine_transform(
        coarse,
        voxel_from_grid[:3, :3],
        voxel_from_grid[:3, 3],
        output_shape=grid.shape,
        output=np.float32,
        order=1,
        # The outer half of the first and of the last voxel of the scan is seen too.
        mode="nearest",
    )
    seen = _within(voxel_from_grid, grid.shape, coarse.shape)
    out[~seen] = 0.0
    return out, seen


def _within(matrix: FloatArray, shape: tuple[int, int, int], source: tuple[int, ...]) -> BoolArray:
    """Whether each voxel of a grid falls into a voxel of the source."""
    inside = np.ones(shape, dtype=np.bool_)
    for row, n in zip(matrix[:3], source, strict=True):
        i, j, k = (row[axis] * np.arange(size) for axis, size in enumerate(shape))
        at = (i + row[3])[:, None, None] + j[:, None] + k
        inside &= (at >= -0.5) & (at <= n - 0.5)
    return inside


def normalised(values: Float32Array, seen: BoolArray) -> Float32Array:
    """Intensities scaled by what is seen: its low percentile to 0, that of its brighter part to 1.

    Parameters
    ----------
    values : ndarray, shape (I, J, K), float32
        On the head grid.
    seen : ndarray, shape (I, J, K), bool
        Where the scan reaches.

    Returns
    -------
    ndarray, shape (I, J, K), float32
        Within 0 and ``CEILING``; 0 where nothing is seen.
    """
    # An eighth of the voxels gives the same percentiles, and takes an eighth of the time.
    some = values[::2, ::2, ::2][seen[::2, ::2, ::2]]
    if some.size == 0:
        return np.zeros_like(values)
    low = np.percentile(some, LOW_PERCENT)
    bright = some[some > some.mean()]
    high = np.percentile(bright, HIGH_PERCENT) if bright.size else low
    if not high > low:
        return np.zeros_like(values)
    out: Float32Array = (values - np.float32(low)) * np.float32(1.0 / (high - low))
    np.clip(out, 0.0, CEILING, out=out)
    out[~seen] = 0.0
    return out
