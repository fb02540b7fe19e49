"""Label maps of heads: loading, smooth super-resolution around the basal ganglia, landmarks."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from epvs_cohort.errors import ConfigError
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, FloatArray, Grid, apply_affine
from epvs_cohort.head_classes import INTRACRANIAL_MAX
from epvs_cohort.records import Float32Array, LabelArray

Int16Array = npt.NDArray[np.int16]

#: FreeSurfer number of each structure of the basal ganglia to its region number; odd is left.
REGION_OF_LABEL: dict[int, int] = {11: 1, 50: 2, 12: 3, 51: 4, 13: 5, 52: 6, 26: 7, 58: 8}

#: Structures whose centroids tie an anatomy to MNI space: thalami, basal ganglia, hippocampi, amygdalae.
LANDMARK_LABELS = (10, 49, 11, 50, 12, 51, 13, 52, 26, 58, 17, 53, 18, 54)

#: First and last number of parcels, and the whole they are part of: corpus callosum, cortex of aparc+aseg
#: (Desikan-Killiany) and aparc.a2009s+aseg (Destrieux), white matter of wmparc. Read as numbers above
#: ``INTRACRANIAL_MAX``, they would be head.
PARCELS = (
    (251, 255, 2), (1000, 1035, 3), (2000, 2035, 42), (11100, 11175, 3), (12100, 12175, 42),
    (3000, 3035, 2), (4000, 4035, 41), (5001, 5001, 2), (5002, 5002, 41),
)  # fmt: skip

#: Names of label maps end in one of these.
SUFFIXES = (".nii.gz", ".nii", ".mgz")

#: Our own number for the white matter of the internal and external capsules.
CAPSULE = 300
DEEP_NUCLEI = (10, 49, 11, 50, 12, 51, 13, 52)
#: A voxel of white matter is capsule where deep nuclei make up this share of its Gaussian neighbourhood.
CAPSULE_REACH_MM = 4.0
CAPSULE_SHARE = 0.28

#: Super-resolved voxel edge in mm around the basal ganglia.
DETAIL_MM = 0.5

#: Gaussian in mm that turns 1 mm blocks into smooth probabilities: small enough that a sheet one voxel
#: thick keeps more than half of the probability at its middle (erf(0.5 / (0.65 sqrt 2)) = 0.56).
DETAIL_SMOOTH_MM = 0.65

#: Around the basal ganglia's bounding box; covers the prepared grid's box at its worst pose.
DETAIL_MARGIN_MM = 22.0

BUNDLED_ANATOMY = Path(__file__).resolve().parent.parent / "data" / "bundled" / "anatomy.nii.gz"


@dataclass(frozen=True)
class LabelBlock:
    """Part of an anatomy: FreeSurfer labels of shape (I, J, K), int16, on ``grid`` (anatomy RAS mm)."""

    labels: Int16Array
    grid: Grid


@dataclass(frozen=True)
class Anatomy:
    """One head as labels.

    Attributes
    ----------
    name : str
        File stem.
    labels : ndarray, shape (I, J, K), int16
        FreeSurfer numbers; above 100 skull, eyes and soft tissue; 0 air.
    grid : Grid
        RAS-oriented grid of the labels; its world is the anatomy's own RAS mm.
    """

    name: str
    labels: Int16Array
    grid: Grid

    @cached_property
    def detail(self) -> LabelBlock:
        """Labels at 0.5 mm around the basal ganglia, super-resolved through smoothed probabilities."""
        block = _crop(self, list(REGION_OF_LABEL), DETAIL_MARGIN_MM)
        factors = tuple(max(1, round(s / DETAIL_MM)) for s in block.grid.spacing_mm)
        return super_resolve(with_capsules(block), (factors[0], factors[1], factors[2]))

    @cached_property
    def anatomy_from_mni(self) -> FloatArray:
        """(4, 4) least-squares affine of subcortical centroids, MNI RAS mm to anatomy RAS mm."""
        return _fit_affine(_centroids(bundled_anatomy()), _centroids(self))

    @cached_property
    def anatomy_from_upright(self) -> FloatArray:
        """(4, 4) rigid map from an MNI-oriented frame to anatomy RAS mm; the anterior commissures coincide.

        The rotation is that of the least-squares similarity of the same centroids (Kabsch).
        """
        source, target = _centroids(bundled_anatomy()), _centroids(self)
        covariance = (target - target.mean(axis=0)).T @ (source - source.mean(axis=0))
        left, _, right = np.linalg.svd(covariance)
        proper = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(left @ right)))])
        out = np.eye(4)
        out[:3, :3] = left @ proper @ right
        out[:3, 3] = self.ac_mm - out[:3, :3] @ np.asarray(MNI_ANTERIOR_COMMISSURE_MM)
        return out

    @property
    def ac_mm(self) -> FloatArray:
        """Anterior commissure in anatomy RAS mm, shape (3,): MNI (0, 3, -4.5) through the affine."""
        return apply_affine(self.anatomy_from_mni, MNI_ANTERIOR_COMMISSURE_MM)

    @cached_property
    def roi_center_mm(self) -> FloatArray:
        """Middle of the basal ganglia's bounding box in anatomy RAS mm, shape (3,)."""
        low, high = _bounds_mm(self, list(REGION_OF_LABEL))
        return (low + high) / 2.0

    def volume_ml(self, labels: tuple[int, ...]) -> float:
        """Volume of some labels in mL."""
        count = int(np.isin(self.labels, labels).sum())
        return count * float(np.prod(self.grid.spacing_mm)) / 1000.0

    @cached_property
    def intracranial_ml(self) -> float:
        """Volume of all labels inside the skull in mL."""
        count = int(((self.labels > 0) & (self.labels <= INTRACRANIAL_MAX)).sum())
        return count * float(np.prod(self.grid.spacing_mm)) / 1000.0


def regions_of(labels: Int16Array) -> LabelArray:
    """Region numbers 1..8 of FreeSurfer labels, 0 elsewhere; same shape, uint8."""
    table = np.zeros(int(labels.max(initial=0)) + 1 + max(REGION_OF_LABEL), dtype=np.uint8)
    for label, region in REGION_OF_LABEL.items():
        table[label] = region
    regions: LabelArray = table[labels]
    return regions


def with_capsules(block: LabelBlock) -> LabelBlock:
    """The block with white matter between and beside the deep nuclei labelled ``CAPSULE``.

    T2-weighted scans show the internal and external capsule darker than other white matter; FreeSurfer gives
    them no number.
    """
    deep = np.isin(block.labels, DEEP_NUCLEI).astype(np.float32)
    sigma = tuple(CAPSULE_REACH_MM / s for s in block.grid.spacing_mm)
    near = ndimage.gaussian_filter(deep, sigma, mode="nearest", truncate=3.0) > CAPSULE_SHARE
    labels = block.labels.copy()
    labels[near & np.isin(labels, (2, 41))] = CAPSULE
    return LabelBlock(labels, block.grid)


def super_resolve(block: LabelBlock, factors: tuple[int, int, int]) -> LabelBlock:
    """Most probable label at ``factors`` times the resolution, probabilities interpolated linearly."""
    spacing = np.asarray(block.grid.spacing_mm)
    sigma = tuple(float(DETAIL_SMOOTH_MM / s) for s in spacing)
    shape = tuple(n * f for n, f in zip(block.labels.shape, factors, strict=True))
    best = np.full(shape, -1.0, dtype=np.float32)
    out = np.zeros(shape, dtype=np.int16)
    for label in np.unique(block.labels):
        where = block.labels == label
        window = grown_window(where, 4)
        smooth = ndimage.gaussian_filter(
            where[window].astype(np.float32), (sigma[0], sigma[1], sigma[2]), mode="nearest"
        )
        fine = _refine(smooth, factors)
        target = tuple(slice(w.start * f, w.stop * f) for w, f in zip(window, factors, strict=True))
        better = fine > best[target]
        best[target][better] = fine[better]
        out[target][better] = label
    scale = np.diag([*(1.0 / np.asarray(factors, dtype=np.float64)), 1.0])
    scale[:3, 3] = (1.0 / np.asarray(factors, dtype=np.float64) - 1.0) / 2.0
    return LabelBlock(out, Grid((shape[0], shape[1], shape[2]), block.grid.affine @ scale))


def load_anatomies(folder: Path | None = None) -> tuple[Anatomy, ...]:
    """Label maps of a folder, sorted by name; the bundled one where no folder is named.

    Parameters
    ----------
    folder : Path or None
        Holds ``*.nii.gz``, ``*.nii`` or ``*.mgz`` label maps with FreeSurfer numbers, of any orientation.

    Raises
    ------
    ConfigError
        The folder holds no label map, or one lacks structures of the basal ganglia.
    """
    if folder is None:
        return (bundled_anatomy(),)
    return tuple(load_anatomy(path) for path in anatomy_files(folder))


def anatomy_files(folder: Path) -> list[Path]:
    """Label maps of a folder, sorted by name; hidden files are none.

    Raises
    ------
    ConfigError
        The folder is missing or holds none, or two have one name.
    """
    paths = [p for p in folder.glob("*") if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
    if not paths:
        raise ConfigError(f"{folder}: no label map found; expected *.nii.gz, *.nii or *.mgz")
    paths.sort(key=lambda path: path.name)
    # Tables name the label map of each head by its stem, and cohorts are split by that.
    seen: dict[str, Path] = {}
    for path in paths:
        if (other := seen.setdefault(stem(path), path)) != path:
            raise ConfigError(f"{folder}: {other.name} and {path.name} are two label maps of one name")
    return paths


@cache
def bundled_anatomy() -> Anatomy:
    """The label map that the project ships, in MNI space (see NOTICE)."""
    return load_anatomy(BUNDLED_ANATOMY)


def load_anatomy(path: Path) -> Anatomy:
    """Load one label map, turned to RAS.

    Raises
    ------
    ConfigError
        Not a readable 3D label map, or structures of the basal ganglia are missing.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.asarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError, OrientationError) as error:
        raise ConfigError(f"{path}: not a readable label map: {error}") from error
    if labels.dtype.kind not in "iuf" or labels.size == 0:
        raise ConfigError(
            f"{path}: {labels.dtype} voxels of shape {labels.shape} found; a label map holds plain numbers"
        )
    if labels.ndim != 3:
        raise ConfigError(f"{path}: a label map has 3 dimensions, found {labels.ndim}")
    if not (labels.min() >= 0 and labels.max() <= np.iinfo(np.int16).max):
        raise ConfigError(
            f"{path}: numbers from {labels.min()} to {labels.max()} found; FreeSurfer numbers from 0 to "
            f"{np.iinfo(np.int16).max} are legal"
        )
    rounded = _without_parcels(np.rint(labels).astype(np.int16))
    missing = [label for label in LANDMARK_LABELS if not (rounded == label).any()]
    if missing:
        raise ConfigError(
            f"{path}: FreeSurfer labels {missing} are missing; all of {LANDMARK_LABELS} are needed"
        )
    return _trimmed(stem(path), rounded, np.asarray(image.affine, dtype=np.float64))


def stem(path: Path) -> str:
    """Name of a label map without its ending."""
    return next(path.name.removesuffix(end) for end in (*SUFFIXES, "") if path.name.endswith(end))


def _without_parcels(labels: Int16Array) -> Int16Array:
    for first, last, whole in PARCELS:
        labels[(labels >= first) & (labels <= last)] = whole
    return labels


def _trimmed(name: str, labels: Int16Array, affine: FloatArray) -> Anatomy:
    window = grown_window(labels > 0, 4)
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, [w.start for w in window])
    kept = np.ascontiguousarray(labels[window])
    return Anatomy(name, kept, Grid((kept.shape[0], kept.shape[1], kept.shape[2]), moved))


def grown_window(where: npt.NDArray[np.bool_], grow: int) -> tuple[slice, slice, slice]:
    """Smallest window that holds all true voxels, ``grow`` voxels wider to each side within the array."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(where.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(hit[0]), int(hit[-1])) if hit.size else (0, 0)
        spans.append(slice(max(0, low - grow), min(where.shape[axis], high + 1 + grow)))
    return (spans[0], spans[1], spans[2])


def _crop(anatomy: Anatomy, labels: list[int], margin_mm: float) -> LabelBlock:
    window = grown_window(np.isin(anatomy.labels, labels), int(margin_mm / min(anatomy.grid.spacing_mm)))
    affine = anatomy.grid.affine.copy()
    affine[:3, 3] = apply_affine(affine, [w.start for w in window])
    kept = anatomy.labels[window]
    return LabelBlock(kept, Grid((kept.shape[0], kept.shape[1], kept.shape[2]), affine))


def _bounds_mm(anatomy: Anatomy, labels: list[int]) -> tuple[FloatArray, FloatArray]:
    window = grown_window(np.isin(anatomy.labels, labels), 0)
    corners = np.array([[w.start, w.stop - 1] for w in window]).T
    ends = apply_affine(anatomy.grid.affine, corners)
    return ends.min(axis=0), ends.max(axis=0)


def _refine(values: Float32Array, factors: tuple[int, int, int]) -> Float32Array:
    for axis, factor in enumerate(factors):
        n = values.shape[axis]
        at = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.minimum(at.astype(np.intp), max(n - 2, 0))
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = (at - low).astype(np.float32).reshape(shape)
        near = np.take(values, low, axis=axis)
        far = np.take(values, np.minimum(low + 1, n - 1), axis=axis)
        values = near + weight * (far - near)
    return values


def _centroids(anatomy: Anatomy) -> FloatArray:
    windows = ndimage.find_objects(anatomy.labels, max_label=max(LANDMARK_LABELS))
    found = []
    for label in LANDMARK_LABELS:
        window = windows[label - 1]
        voxels = np.argwhere(anatomy.labels[window] == label).mean(axis=0)
        found.append(voxels + [w.start for w in window])
    return apply_affine(anatomy.grid.affine, np.asarray(found, dtype=np.float64))


def _fit_affine(source: FloatArray, target: FloatArray) -> FloatArray:
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    out = np.eye(4)
    out[:3, :] = solution.T
    return out
