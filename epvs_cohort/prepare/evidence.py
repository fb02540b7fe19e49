"""What the quality measures of a scan look at: coarse views of region and head beside the prepared voxels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from epvs_cohort.geometry import FloatArray, Grid, centered_grid
from epvs_cohort.prepare.mask import BoolArray, SoftMask
from epvs_cohort.prepare.resample import field_of_view, sample_linear
from epvs_cohort.prepare.roi import Outline
from epvs_cohort.prepare.trim import Trimmed
from epvs_cohort.records import Float32Array, Image, LabelArray

#: Tissue codes of the atlas.
VENTRICLE, OTHER_CSF, CORTEX, WHITE_MATTER = 1, 2, 3, 4

#: View of the head: from so many mm off the centre of the region, far enough for the scalp on the sides and above.
WIDE_LOW_MM = (-84.0, -102.0, -45.0)
WIDE_SHAPE = (78, 84, 48)
WIDE_STEP_MM = 2.2
#: View of the region: further than the prepared grid, so that what it cuts off is seen.
NEAR_SHAPE = (56, 52, 52)
NEAR_STEP_MM = 2.0


@dataclass(frozen=True)
class Near:
    """Region labels on a coarse grid that is larger than the prepared grid.

    Attributes
    ----------
    grid : Grid
        Voxel to rigid-frame mm.
    labels : ndarray, shape (I, J, K), uint8
        Regions of the outline.
    inside : ndarray, shape (I, J, K), bool
        Within the native field of view.
    """

    grid: Grid
    labels: LabelArray
    inside: BoolArray

    @property
    def outside_share(self) -> float:
        """Share of the region that the native field of view does not hold; 1 where nothing is outlined."""
        roi = self.labels > 0
        return float(np.mean(~self.inside[roi])) if roi.any() else 1.0


@dataclass(frozen=True)
class Wide:
    """Scan and tissue on a coarse grid around the head.

    Attributes
    ----------
    grid : Grid
        Voxel to rigid-frame mm.
    values : ndarray, shape (I, J, K), float32
        Native intensities, trilinear; 0 outside the field of view.
    inside : ndarray, shape (I, J, K), bool
        Within the native field of view.
    tissue : ndarray, shape (I, J, K), uint8
        Tissue classes of the outline.
    """

    grid: Grid
    values: Float32Array
    inside: BoolArray
    tissue: LabelArray

    @cached_property
    def white_matter(self) -> float | None:
        """Median native intensity of white matter, None where there is none in view."""
        return self._level(WHITE_MATTER)

    @cached_property
    def fluid(self) -> float | None:
        """Median native intensity over the ventricles, None where there are none in view."""
        return self._level(VENTRICLE)

    def _level(self, tissue: int) -> float | None:
        values = self.values[(self.tissue == tissue) & self.inside]
        return float(np.median(values)) if values.size else None


@dataclass(frozen=True)
class Evidence:
    """All that the measures of one scan look at.

    Attributes
    ----------
    image : Image
        Native scan.
    voxel_from_rigid : ndarray, shape (4, 4)
        Rigid-frame mm to native voxel.
    grid : Grid
        Prepared grid, voxel to rigid-frame mm.
    near, wide : Near, Wide
        Coarse views.
    roi : ndarray, shape (I, J, K), uint8
        Undilated region labels on the prepared grid, not cut by the field of view.
    mask : SoftMask
        On the prepared grid.
    values : ndarray, shape (I, J, K), float32
        Resampled native intensities where ``mask.weight`` is above 0.
    trimmed : Trimmed
        What the trim did.
    """

    image: Image
    voxel_from_rigid: FloatArray
    grid: Grid
    near: Near
    wide: Wide
    roi: LabelArray
    mask: SoftMask
    values: Float32Array
    trimmed: Trimmed


def look_near(image: Image, voxel_from_rigid: FloatArray, outline: Outline) -> Near:
    """Sample the regions on a coarse grid around their centre."""
    step = (NEAR_STEP_MM, NEAR_STEP_MM, NEAR_STEP_MM)
    grid = centered_grid(NEAR_SHAPE, step, outline.center_mm)
    inside = field_of_view(image.grid.shape, voxel_from_rigid @ grid.affine, grid.shape)
    return Near(grid, outline.labels_on(grid), inside)


def look_wide(image: Image, voxel_from_rigid: FloatArray, outline: Outline) -> Wide:
    """Sample scan and tissue on the coarse grid around the head."""
    affine = np.diag([WIDE_STEP_MM, WIDE_STEP_MM, WIDE_STEP_MM, 1.0])
    affine[:3, 3] = outline.center_mm + np.array(WIDE_LOW_MM)
    grid = Grid(WIDE_SHAPE, affine)
    voxel_from_grid = voxel_from_rigid @ affine
    return Wide(
        grid,
        sample_linear(image.data, voxel_from_grid, grid.shape),
        field_of_view(image.grid.shape, voxel_from_grid, grid.shape),
        outline.tissue_on(grid),
    )
