"""Non-rigid map between a rigidly registered scan and MNI152: affine, then a coarse B-spline of the deep brain.

Only labels and coordinates go through it; the image itself is never moved by more than the rigid pose.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.blocks import shrink
from epvs_cohort.data.shrunk import shrunk_atlas
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray, Grid, apply_affine
from epvs_cohort.prepare.elastix import (
    SHORT_GUESS,
    ParameterMap,
    Setting,
    Volume,
    linear_ras,
    numbers,
    parameter_map,
    run_elastix,
)
from epvs_cohort.records import MniMap

Shape = tuple[int, int, int]

logger = logging.getLogger(__name__)

_AFFINE: dict[str, Setting] = {
    "Transform": "AffineTransform",
    "NumberOfResolutions": 2,
    "ImagePyramidSchedule": (2, 2, 2, 1, 1, 1),
    "MaximumNumberOfIterations": 250,
    "NumberOfSpatialSamples": 2000,
    **SHORT_GUESS,
}
_SPLINE: dict[str, Setting] = {
    "Transform": "BSplineTransform",
    "NumberOfResolutions": 2,
    "ImagePyramidSchedule": (2, 2, 2, 1, 1, 1),
    "FinalGridSpacingInPhysicalUnits": 24.0,
    "GridSpacingSchedule": (2.0, 1.0),
    "MaximumNumberOfIterations": 200,
    "NumberOfSpatialSamples": 2000,
    **SHORT_GUESS,
}
#: The B-spline is fitted within this distance of basal ganglia and ventricles.
DEEP_MARGIN_MM = 12.0
#: A spline that shrinks the basal ganglia's volume locally below the first (1st percentile) or over all below the
#: second (median) has lost its way, as on scans without contrast between fluid and tissue; the affine is kept then.
#: Set by hand between two real scans at this spacing: 0.25 and 0.67 on one whose outline looked right, 0.18 and
#: 0.55 on a PD scan where it did not. Few scans stand behind them.
LEAST_SHRINKING = (0.2, 0.6)
#: Spacing in mm of the lattice on which the map is tabulated for a grid.
LATTICE_MM = 4.0
#: Newton steps of the inverse at most, the error at which it ends, and the error that is worth a warning.
INVERSE_STEPS = 25
INVERSE_TOLERANCE_MM = 1e-3
INVERSE_WORRY_MM = 0.1
#: Distance over which slopes of the spline are taken, and the longest step, a fraction of the knots' spacing.
SLOPE_MM = 0.1
#: Slopes are taken anew where a step left more than this share of the error before it.
SLOWEST_GAIN = 0.25
LONGEST_STEP_MM = 6.0


@dataclass(frozen=True)
class Warp:
    """Map of MNI mm to the rigid frame: x to ``rigid_from_mni`` of x + u(x).

    Attributes
    ----------
    rigid_from_mni : ndarray, shape (4, 4)
        Affine part, RAS mm.
    coefficients : ndarray, shape (A, B, C, 3)
        Cubic B-spline coefficients of u in RAS mm.
    knot_from_mni : ndarray, shape (4, 4)
        MNI RAS mm to index of the coefficients.
    """

    rigid_from_mni: FloatArray
    coefficients: FloatArray
    knot_from_mni: FloatArray
    _tables: dict[tuple[Shape, bytes], MniMap] = field(default_factory=dict, repr=False, compare=False)

    def to_rigid(self, mni_mm: npt.ArrayLike) -> FloatArray:
        """Rigid-frame RAS mm of MNI RAS mm, shape (..., 3)."""
        points = np.asarray(mni_mm, dtype=np.float64)
        return apply_affine(self.rigid_from_mni, points + self._offsets(points))

    def to_mni(self, rigid_mm: npt.ArrayLike) -> FloatArray:
        """MNI RAS mm of rigid-frame RAS mm, shape (..., 3): the inverse, by Newton's method at each point.

        Fixed-point iteration would need a spline of slope below 1, and around wide ventricles it is steeper. Slopes
        are taken again only where the old ones no longer bring the points home quickly: they cost three times the rest.
        """
        target = apply_affine(np.linalg.inv(self.rigid_from_mni), rigid_mm).reshape(-1, 3)
        points, before = target.copy(), np.inf
        jacobian = np.zeros((len(points), 3, 3))
        for _ in range(INVERSE_STEPS):
            offsets = self._offsets(points)
            residual = target - points - offsets
            worst = np.abs(residual).max(initial=0.0)
            if worst < INVERSE_TOLERANCE_MM:
                break
            if worst > SLOWEST_GAIN * before or before == np.inf:
                jacobian = self._jacobian(points, offsets)
            before = worst
            step = np.linalg.solve(jacobian, residual[..., None])[..., 0]
            length = np.linalg.norm(step, axis=-1, keepdims=True)
            points += step * np.minimum(1.0, LONGEST_STEP_MM / np.maximum(length, 1e-9))
        left = float(np.abs(target - points - self._offsets(points)).max(initial=0.0))
        if left > INVERSE_WORRY_MM:
            logger.warning("the map to MNI is off by up to %.1f mm where its spline folds", left)
        return points.reshape(np.shape(rigid_mm))

    def _jacobian(self, points: FloatArray, offsets: FloatArray) -> FloatArray:
        slopes = [(self._offsets(points + h) - offsets) / SLOPE_MM for h in SLOPE_MM * np.eye(3)]
        # A floor under the determinant's sign would hide folds; damping keeps their steps short instead.
        return np.eye(3) + np.stack(slopes, axis=-1) + 1e-6 * np.eye(3)

    def on_grid(self, grid: Grid) -> MniMap:
        """Map tabulated for a grid whose affine is voxel to rigid-frame RAS mm; made once for each grid."""
        key = grid.shape, np.asarray(grid.affine, dtype=np.float64).tobytes()
        if key not in self._tables:
            self._tables[key] = self._tabulated(grid)
        return self._tables[key]

    def _tabulated(self, grid: Grid) -> MniMap:
        extent = (np.array(grid.shape) - 1) * np.array(grid.spacing_mm)
        nodes = np.maximum(np.ceil(extent / LATTICE_MM).astype(int) + 1, 2)
        axes = [np.linspace(0, n - 1, k) for n, k in zip(grid.shape, nodes, strict=True)]
        voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        mni_from_grid = np.linalg.inv(self.rigid_from_mni) @ grid.affine
        exact = self.to_mni(apply_affine(grid.affine, voxels))
        return MniMap(mni_from_grid, exact - apply_affine(mni_from_grid, voxels), grid.shape)

    def _offsets(self, points: FloatArray) -> FloatArray:
        index = apply_affine(self.knot_from_mni, points.reshape(-1, 3)).T
        parts = [
            ndimage.map_coordinates(self.coefficients[..., axis], index, order=3, prefilter=False)
            for axis in range(3)
        ]
        return np.stack(parts, axis=-1).reshape(points.shape)


def fit_warp(scan: Volume, atlas: Atlas, resolution_mm: float, seed: int) -> Warp:
    """Fit affine and B-spline with the template fixed and masked.

    Parameters
    ----------
    scan : Volume
        Scan with its affine to the rigid frame, RAS mm.
    atlas : Atlas
        Template, labels and tissues.
    resolution_mm : float
        The template is shrunk to this.
    seed : int
        Seed of elastix's sampling.

    Raises
    ------
    RegistrationError
        elastix gave up.
    """
    fixed, brain = _template(atlas, resolution_mm)
    affine = linear_ras(run_elastix(fixed, scan, brain, parameter_map(_AFFINE, seed)))
    moved = Volume(scan.data, np.linalg.inv(affine) @ scan.affine)
    spline = run_elastix(fixed, moved, brain & deep_region(atlas, fixed), parameter_map(_SPLINE, seed))
    coefficients, knots = spline_ras(spline)
    warp = Warp(affine, coefficients, knots)
    least, middle = np.percentile(volume_ratios(warp, atlas), (1, 50))
    if least < LEAST_SHRINKING[0] or middle < LEAST_SHRINKING[1]:
        logger.info("spline set aside: it shrinks volumes to %.2f (least) and %.2f (median)", least, middle)
        return Warp(affine, np.zeros_like(coefficients), knots)
    return warp


def volume_ratios(warp: Warp, atlas: Atlas) -> FloatArray:
    """Local volume change by the spline, without the affine, at points of the basal ganglia, shape (n,)."""
    points = apply_affine(atlas.grid.affine, np.argwhere(atlas.labels > 0)[::7])
    inverse = np.linalg.inv(warp.rigid_from_mni)
    columns = [
        apply_affine(inverse, warp.to_rigid(points + step))
        - apply_affine(inverse, warp.to_rigid(points - step))
        for step in np.eye(3)
    ]
    return np.asarray(np.linalg.det(np.stack(columns, axis=-1) / 2.0), dtype=np.float64)


def _template(atlas: Atlas, resolution_mm: float) -> tuple[Volume, npt.NDArray[np.bool_]]:
    template, inside, affine = shrunk_atlas(atlas, resolution_mm)
    return Volume(template, affine), inside > 0.5


def deep_region(atlas: Atlas, fixed: Volume) -> npt.NDArray[np.bool_]:
    """Voxels of ``fixed`` within ``DEEP_MARGIN_MM`` of basal ganglia and the ventricles beside them."""
    near = (atlas.labels > 0).astype(np.float32)
    spacing = float(np.linalg.norm(fixed.affine[:3, 0]))
    seed, _ = shrink(near, atlas.grid.affine, spacing)
    distance = ndimage.distance_transform_edt(seed < 0.25, sampling=spacing)
    return np.asarray(distance <= DEEP_MARGIN_MM)


def spline_ras(parameters: ParameterMap) -> tuple[FloatArray, FloatArray]:
    """Coefficients (A, B, C, 3) in RAS mm and RAS mm to knot index (4, 4) of an elastix B-spline."""
    size = numbers(parameters, "GridSize").astype(int)
    flat = numbers(parameters, "TransformParameters").reshape(3, *size[::-1])
    coefficients = flat.transpose(3, 2, 1, 0) * np.array([-1.0, -1.0, 1.0])
    direction = numbers(parameters, "GridDirection").reshape(3, 3).T
    index = numbers(parameters, "GridIndex")
    lps_from_knot = np.eye(4)
    lps_from_knot[:3, :3] = direction * numbers(parameters, "GridSpacing")
    lps_from_knot[:3, 3] = numbers(parameters, "GridOrigin") + lps_from_knot[:3, :3] @ index
    return np.ascontiguousarray(coefficients), np.linalg.inv(lps_from_knot) @ LPS_FROM_RAS
