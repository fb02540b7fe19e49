"""Frozen records that the stages hand to one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, Grid, apply_affine

Float32Array = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]

#: Values a covariate may take; ``None`` is unknown.
Scalar = str | int | float | bool | None

#: Label of voxels inside the mask that belong to no region; 0 is outside the mask.
LABEL_NO_REGION = 255


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan asked for: where it lies and what is known of it before it is read."""

    key: str
    path: Path
    subject: str | None = None
    session: str | None = None
    aseg: Path | None = None
    aseg_to_scan: Path | None = None
    mask: Path | None = None
    ac_slice: int | None = None
    covariates: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class QcValue:
    """One quality measure of one scan; bounds come from the protocol later. ``value`` may be None (unknown)."""

    measure: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class AcquisitionFacts:
    """What the header or side-car tells of the acquisition, never anything about the person."""

    scanner: str | None = None
    acquisition_date: str | None = None


@dataclass(frozen=True)
class Image:
    """One native 3D image.

    Attributes
    ----------
    data : ndarray, shape (I, J, K), float32 or the integer type on disk
        Finite intensities, slope and intercept applied.
    affine : ndarray, shape (4, 4)
        0-based voxel to native RAS mm.
    """

    data: npt.NDArray[np.generic]
    affine: FloatArray
    facts: AcquisitionFacts = AcquisitionFacts()
    notes: tuple[str, ...] = ()
    quality: tuple[QcValue, ...] = ()

    @property
    def grid(self) -> Grid:
        """Shape and affine together."""
        i, j, k = self.data.shape
        return Grid((i, j, k), self.affine)


@dataclass(frozen=True)
class MniMap:
    """Smooth map from the prepared grid to MNI152 RAS mm: an affine and offsets on a coarse lattice.

    Attributes
    ----------
    mni_from_grid : ndarray, shape (4, 4)
        Prepared-grid voxel to MNI RAS mm, affine part.
    offsets_mm : ndarray, shape (A, B, C, 3)
        Added to the affine part; node (a, b, c) lies at voxel ``a * (I - 1) / (A - 1)`` and so on, so the
        lattice spans the grid corner to corner. Trilinear between nodes, held constant outside.
        All zero, shape (2, 2, 2, 3), where the map is affine.
    grid_shape : tuple of int
        (I, J, K) of the prepared grid.
    """

    mni_from_grid: FloatArray
    offsets_mm: FloatArray
    grid_shape: tuple[int, int, int]

    def __call__(self, voxels: npt.ArrayLike) -> FloatArray:
        """MNI RAS mm of prepared-grid voxels, shape (..., 3) to (..., 3)."""
        points = np.asarray(voxels, dtype=np.float64)
        return apply_affine(self.mni_from_grid, points) + self._offsets_at(points)

    def _offsets_at(self, points: FloatArray) -> FloatArray:
        nodes = np.array(self.offsets_mm.shape[:3], dtype=np.float64)
        extent = np.maximum(np.array(self.grid_shape, dtype=np.float64) - 1.0, 1.0)
        at = np.clip(points / extent * (nodes - 1.0), 0.0, nodes - 1.0)
        low = np.minimum(np.floor(at), nodes - 2.0).astype(np.intp)
        fraction = at - low
        out = np.zeros(points.shape, dtype=np.float64)
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(np.array(corner) == 1, fraction, 1.0 - fraction), axis=-1)
            index = low + np.array(corner)
            out += weight[..., None] * self.offsets_mm[index[..., 0], index[..., 1], index[..., 2]]
        return out


@dataclass(frozen=True)
class AcSlice:
    """The native axial slice of the anterior commissure: voxel ``index`` (0-based) along voxel axis ``axis``."""

    axis: int
    index: int


@dataclass(frozen=True)
class PreparedVolume:
    """What the network sees of one scan, and the way back.

    Attributes
    ----------
    intensities : ndarray, shape (I, J, K), float32
        In [0, 1]; smoothed mask applied, trimmed, rescaled.
    labels : ndarray, shape (I, J, K), uint8
        0 outside the mask, 1..254 a region of ``regions``, 255 in the mask but in no region.
    regions : mapping of int to str
        Label to ``<hemisphere> <structure>``, for example ``1: "left caudate"``.
    native_from_grid : ndarray, shape (4, 4)
        Prepared-grid voxel to native RAS mm; a rigid map times the grid's spacing.
    rigid_from_native : ndarray, shape (4, 4)
        Native RAS mm to the rigidly registered (MNI-oriented) frame, RAS mm.
    mni : MniMap
        Prepared-grid voxel to MNI152 RAS mm.
    native : Grid
        Shape and affine of the scan.
    ac : AcSlice or None
        None where the anterior commissure lies outside the scan.
    quality : tuple of QcValue
        Measures without bounds.
    pictures : mapping of str to bytes
        File name to encoded small picture.
    """

    key: str
    intensities: Float32Array
    labels: LabelArray
    regions: Mapping[int, str]
    native_from_grid: FloatArray
    rigid_from_native: FloatArray
    mni: MniMap
    native: Grid
    ac: AcSlice | None
    quality: tuple[QcValue, ...]
    facts: AcquisitionFacts = AcquisitionFacts()
    notes: tuple[str, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Voxels in which features are pooled and lesions sought: smoothed mask > 0.5."""
        return self.labels > 0

    @property
    def grid_from_native(self) -> FloatArray:
        """Native RAS mm to prepared-grid voxel, shape (4, 4)."""
        return np.asarray(np.linalg.inv(self.native_from_grid), dtype=np.float64)


@dataclass(frozen=True)
class HeadSegmentation:
    """Parts of a head on a coarse grid, and how sure of them the network was.

    Attributes
    ----------
    labels : ndarray, shape (I, J, K), uint8
        The most probable ``head_classes.HeadClass``.
    probabilities : ndarray, shape (17, I, J, K), float32
        Of each class; they sum to 1.
    grid : Grid
        In native RAS mm; along its axes for a whole head, along those of the rigid frame for the part around the
        basal ganglia.
    volumes_ml : mapping of str to float
        Name of each class of the brain to the sum of its probabilities times the voxel.
    entropy_inside, entropy_border : float or None
        Mean entropy in nats within the basal ganglia and at their border (one voxel to either side); None where none
        of them were found.
    model_id : str
    """

    labels: LabelArray
    probabilities: Float32Array
    grid: Grid
    volumes_ml: Mapping[str, float]
    entropy_inside: float | None
    entropy_border: float | None
    model_id: str


@dataclass(frozen=True)
class PreparedRef:
    """A prepared volume in the store: all of it that crosses the Dask network."""

    key: str
    path: Path
    fingerprint: str
    input_sha256: str
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Prediction:
    """The network's answer for one prepared volume.

    Attributes
    ----------
    count : float
        The estimated count, ŷ of Eq. 2.
    heat : ndarray, shape (N,), float32
        Heatmap M of Eq. 3 at the N voxels of the mask, in C order of ``labels > 0``.
    """

    key: str
    count: float
    heat: Float32Array
    model_id: str


@dataclass(frozen=True)
class Lesion:
    """One component of the thresholded score map. Coordinates are unweighted centroids of its voxels."""

    number: int
    grid_voxel: tuple[float, float, float]
    native_voxel: tuple[float, float, float]
    native_mm: tuple[float, float, float]
    mni_mm: tuple[float, float, float]
    region: str | None
    hemisphere: str
    component_mm3: float
    peak_heat: float
    mean_heat: float
    in_ac_slice: bool | None
    ac_mm: tuple[float, float, float] | None


@dataclass(frozen=True)
class Detection:
    """Lesions of one scan and how the threshold came about.

    Attributes
    ----------
    threshold : float or None
        Components are those of {score >= threshold}; None where no lesion is sought.
    threshold_how : str
        ``"exact"``, ``"nearest"`` or ``"none"``.
    n_components : int
        Components counted against n: all, or those that touch the AC slice.
    component_labels : ndarray, shape (I, J, K), uint16
        0 background, else ``Lesion.number``.
    """

    threshold: float | None
    threshold_how: str
    n_components: int
    lesions: tuple[Lesion, ...]
    component_labels: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Failure:
    """Why one scan has no count."""

    key: str
    stage: str
    kind: str
    message: str
    hint: str
    seconds: float
    #: Columns of the table of counts that were known before it failed.
    known: Mapping[str, Scalar] = field(default_factory=dict)
