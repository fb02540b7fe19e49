"""Simulated people and whole-head scans of them, in the scanner's own frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, Grid, apply_affine, axial_axis, centered_grid
from epvs_cohort.records import AcSlice, LabelArray
from epvs_cohort.simulate.anatomy import Anatomy, Int16Array, regions_of
from epvs_cohort.simulate.lesions import LesionSpec, coverage, crossing_mm, draw_lesions, slab_of
from epvs_cohort.simulate.mimics import MimicRates, Mimics, draw_mimics
from epvs_cohort.simulate.placement import placement_of
from epvs_cohort.simulate.prepared import ac_mm, roi_center_mm
from epvs_cohort.simulate.render import Scene, render
from epvs_cohort.simulate.scanner import Scanner, draw_scanner
from epvs_cohort.simulate.tissue import TissueModel, draw_tissue
from epvs_cohort.simulate.warp import (
    Placed,
    ShapeVariation,
    Warp,
    draw_warp,
    inverse_of,
    random_rigid,
    sample,
)

UInt16Array = npt.NDArray[np.uint16]

#: Grid on which lesions are placed: shape and spacing in mm, around the basal ganglia in person space.
PLACING_SHAPE = (112, 104, 88)
PLACING_MM = (0.8, 0.8, 0.8)

#: Middle in person RAS mm of a box that holds the lateral ventricles.
_VENTRICLES_CENTER_MM = (0.0, -20.0, 5.0)
LATERAL_VENTRICLES = (4, 43, 5, 44)

#: Middle of the field of view in person RAS mm: the head's, not the brain's.
VIEW_CENTER_MM = (0.0, -15.0, -2.0)
#: How far at most it is off on each axis.
VIEW_SHIFT_MM = 4.0

#: A voxel belongs to the truth mask of a lesion that fills at least this part of what it fills of its fullest.
_MASK_SHARE = 0.5


@dataclass(frozen=True)
class Acquisition:
    """Geometry of a scan.

    Attributes
    ----------
    voxel_mm : tuple of float
        Edge lengths along i (right to left or left to right), j and k (inferior to superior).
    view_mm : tuple of float
        Field of view.
    pose_deg, pose_mm : float
        Largest rotation and shift of the head on each axis.
    units : float
        Stored value of white matter.
    """

    voxel_mm: tuple[float, float, float] = (0.49, 0.49, 0.8)
    view_mm: tuple[float, float, float] = (200.0, 240.0, 190.0)
    pose_deg: float = 10.0
    pose_mm: float = 8.0
    units: float = 400.0


@dataclass(frozen=True)
class Person:
    """What stays the same from visit to visit: shape and mimics, in person RAS mm (MNI-oriented).

    Attributes
    ----------
    anatomy : Anatomy
    warp : Warp
    roi_center_mm, ac_mm : ndarray, shape (3,)
    mimics : Mimics
    labels : ndarray, shape (112, 104, 88), int16
        FreeSurfer numbers on ``grid``.
    """

    anatomy: Anatomy
    warp: Warp
    roi_center_mm: FloatArray
    ac_mm: FloatArray
    mimics: Mimics
    labels: Int16Array
    grid: Grid


@dataclass(frozen=True)
class Head:
    """One scan and the truth about it, all in native RAS mm.

    Attributes
    ----------
    data : ndarray, shape (I, J, K), int16
    grid : Grid
    lesions : tuple of LesionSpec
        Numbered from 1 in ``lesion_labels``.
    ac : AcSlice or None
        None where the anterior commissure lies outside the scan.
    crossings_mm : tuple
        For each lesion, the middle of its part within the AC slice, a slab of the slice's thickness, shape
        (3,), or None.
    lesion_labels : ndarray, shape (I, J, K), uint16
    region_labels : ndarray, shape (I, J, K), uint8
        True regions 1..8 (``data.atlas.REGIONS``).
    native_from_person : ndarray, shape (4, 4)
        The simulated pose: rigid, person (MNI-oriented) to native RAS mm.
    ac_mm : ndarray, shape (3,)
        Anterior commissure.
    scanner : Scanner
    """

    data: Int16Array
    grid: Grid
    lesions: tuple[LesionSpec, ...]
    ac: AcSlice | None
    crossings_mm: tuple[FloatArray | None, ...]
    lesion_labels: UInt16Array
    region_labels: LabelArray
    native_from_person: FloatArray
    ac_mm: FloatArray
    scanner: Scanner


@dataclass(frozen=True)
class Look:
    """What a scanner makes of tissue; the same from visit to visit on one scanner."""

    tissue: TissueModel
    scanner: Scanner


@dataclass(frozen=True)
class View:
    """How a person lies in a scanner.

    Attributes
    ----------
    native_from_person : ndarray, shape (4, 4)
        Rigid, person (MNI-oriented) to native RAS mm.
    grid : Grid
        Native, axial.
    look : Look
    """

    native_from_person: FloatArray
    grid: Grid
    look: Look

    def on_scanner_of(self, look: Look) -> View:
        """The same pose and the same motion, with contrast, blur, noise level and bias of another scan."""
        own = self.look.scanner
        scanner = replace(look.scanner, ghost=own.ghost, ghost_mm=own.ghost_mm)
        return replace(self, look=Look(look.tissue, scanner))


def draw_person(rng: np.random.Generator, anatomy: Anatomy, growth: float) -> Person:
    """Draw the shape of a head and the mimics in it; ``growth`` widens the ventricles (``draw_warp``)."""
    warp = draw_warp(rng, anatomy, ShapeVariation(), growth)
    center = roi_center_mm(anatomy, warp)
    grid = centered_grid(PLACING_SHAPE, PLACING_MM, center)
    block = anatomy.detail
    (pulled,) = sample([block.labels], block.grid, warp, Placed(grid, np.eye(4)))
    labels = np.asarray(pulled, dtype=np.int16)
    mimics = draw_mimics(rng, labels, grid, MimicRates())
    return Person(anatomy, warp, center, ac_mm(anatomy, warp), mimics, labels, grid)


def ventricle_ml(person: Person) -> float:
    """Volume of the lateral ventricles of a person in mL, on a 2 mm lattice."""
    step = 2.0
    grid = centered_grid((60, 90, 60), (step, step, step), _VENTRICLES_CENTER_MM)
    (pulled,) = sample([person.anatomy.labels], person.anatomy.grid, person.warp, Placed(grid, np.eye(4)))
    return float(np.isin(pulled, LATERAL_VENTRICLES).sum()) * step**3 / 1000.0


def intracranial_ml(person: Person) -> float:
    """Intracranial volume of a person in mL: the anatomy's, through the affine part of the warp."""
    return person.anatomy.intracranial_ml / float(np.linalg.det(person.warp.anatomy_from_person[:3, :3]))


def draw_person_lesions(rng: np.random.Generator, person: Person, n: int) -> list[LesionSpec]:
    """Draw perivascular spaces in a person's basal ganglia, in person RAS mm; fewer than ``n`` if they are full."""
    up = np.array([0.0, 0.0, 1.0])
    placement = placement_of(regions_of(person.labels), person.grid, person.ac_mm, up)
    return draw_lesions(rng, n, placement)


def draw_view(rng: np.random.Generator, person: Person, acquisition: Acquisition) -> View:
    """Draw pose, field of view, contrast, blur, noise level and strength of the bias field of one scan."""
    pose = random_rigid(rng, person.roi_center_mm, acquisition.pose_deg, acquisition.pose_mm)
    grid = _native_grid(rng, acquisition)
    return View(pose, grid, Look(draw_tissue(rng), draw_scanner(rng)))


def scan_person(
    rng: np.random.Generator,
    person: Person,
    lesions: list[LesionSpec],
    acquisition: Acquisition,
    look: Look | None = None,
) -> Head:
    """Scan a person: pose, field of view, contrast, blur, bias field and noise are drawn.

    Everything but the lesions is the same for the same state of ``rng``, whatever the lesions.

    Parameters
    ----------
    look : Look, optional
        Contrast, blur and noise level of an earlier scan on the same scanner, in place of drawn ones.
    """
    view = draw_view(rng, person, acquisition)
    if look is not None:
        view = view.on_scanner_of(look)
    pose, grid = view.native_from_person, view.grid
    tissue, scanner = view.look.tissue, view.look.scanner
    moved = tuple(lesion.moved(pose) for lesion in lesions)
    scene = _scene(person, pose, grid, tissue, scanner)
    image, regions = render(rng, scene, moved)
    image *= np.float32(acquisition.units)
    np.rint(image, out=image)
    np.clip(image, 0, np.iinfo(np.int16).max, out=image)
    ac_native = apply_affine(pose, person.ac_mm)
    ac, crossings = ac_truth(ac_native, grid, moved)
    return Head(
        data=image.astype(np.int16),
        grid=grid,
        lesions=moved,
        ac=ac,
        crossings_mm=crossings,
        lesion_labels=_lesion_labels(moved, grid),
        region_labels=regions,
        native_from_person=pose,
        ac_mm=ac_native,
        scanner=scanner,
    )


def _scene(person: Person, pose: FloatArray, grid: Grid, tissue: TissueModel, scanner: Scanner) -> Scene:
    mimics = Mimics(
        tuple(m.moved(pose) for m in person.mimics.bright),
        tuple(m.moved(pose) for m in person.mimics.soft),
        tuple(m.moved(pose) for m in person.mimics.dark),
    )
    center = apply_affine(pose, person.roi_center_mm)
    return Scene(person.anatomy, person.warp, Placed(grid, inverse_of(pose)), center, tissue, scanner, mimics)


def _native_grid(rng: np.random.Generator, acquisition: Acquisition) -> Grid:
    """Axial grid with the head about in its middle; i runs to the left in half of the scans, as in practice."""
    shape = [max(8, round(v / s)) for v, s in zip(acquisition.view_mm, acquisition.voxel_mm, strict=True)]
    center = np.asarray(VIEW_CENTER_MM) + rng.uniform(-VIEW_SHIFT_MM, VIEW_SHIFT_MM, 3)
    grid = centered_grid((shape[0], shape[1], shape[2]), acquisition.voxel_mm, center)
    if rng.random() < 0.5:
        flip = np.eye(4)
        flip[0, 0], flip[0, 3] = -1.0, shape[0] - 1.0
        grid = Grid(grid.shape, grid.affine @ flip)
    return grid


def ac_truth(
    ac_native_mm: FloatArray, grid: Grid, lesions: tuple[LesionSpec, ...]
) -> tuple[AcSlice | None, tuple[FloatArray | None, ...]]:
    """Slice of the anterior commissure, and for each lesion the middle of its part within it, or None."""
    axis = axial_axis(grid.affine)
    voxel = apply_affine(np.linalg.inv(grid.affine), ac_native_mm)
    index = int(np.floor(voxel[axis] + 0.5))
    if not 0 <= index < grid.shape[axis]:
        return None, tuple(None for _ in lesions)
    slab = slab_of(grid, axis, index)
    return AcSlice(axis, index), tuple(crossing_mm(lesion, slab) for lesion in lesions)


def _lesion_labels(lesions: tuple[LesionSpec, ...], grid: Grid) -> UInt16Array:
    """Lesion number of each voxel."""
    out = np.zeros(grid.shape, dtype=np.uint16)
    for number, lesion in enumerate(lesions, start=1):
        found = coverage(lesion, grid)
        if found is None or found[1].size == 0:
            continue
        window, part = found
        held = out[window]
        held[(part >= _MASK_SHARE * float(part.max())) & (held == 0)] = number
    return out
