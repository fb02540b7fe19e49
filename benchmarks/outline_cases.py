"""Simulated whole heads whose every voxel is known, for what is measured of outlines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.orient import closest_canonical
from epvs_cohort.geometry import Grid
from epvs_cohort.head_classes import class_table
from epvs_cohort.records import Image, LabelArray
from epvs_cohort.simulate.anatomy import Anatomy, anatomy_files, load_anatomy
from epvs_cohort.simulate.heads import (
    Acquisition,
    Head,
    Person,
    draw_person,
    draw_person_lesions,
    scan_person,
)
from epvs_cohort.simulate.lesions import DEFAULT_COUNT
from epvs_cohort.simulate.people import GROWTH_RANGE
from epvs_cohort.simulate.warp import Placed, inverse_of, sample


@dataclass(frozen=True)
class Case:
    """A simulated head and who it is of."""

    anatomy: Anatomy
    person: Person
    head: Head
    image: Image


def simulated_case(person: Path, seed: int, number: int, voxel_mm: tuple[float, float, float]) -> Case:
    """Simulate head ``number`` of a person: ventricles of any width, as many lesions as people have."""
    place = [path.name for path in anatomy_files(person.parent)].index(person.name)
    # By the place in the folder, so that a head is the same whoever else is measured.
    rng = np.random.default_rng((seed, place, number))
    anatomy = _anatomy(person)
    drawn = draw_person(rng, anatomy, float(rng.uniform(*GROWTH_RANGE)))
    lesions = draw_person_lesions(rng, drawn, DEFAULT_COUNT.draw(rng))
    head = scan_person(rng, drawn, lesions, Acquisition(voxel_mm=voxel_mm))
    return Case(anatomy, drawn, head, closest_canonical(Image(head.data, head.grid.affine)))


@cache
def _anatomy(path: Path) -> Anatomy:
    return load_anatomy(path)


def true_region(case: Case, grid: Grid) -> npt.NDArray[np.bool_]:
    """Basal ganglia as they were rendered, on a grid in native mm."""
    back = np.linalg.inv(case.head.grid.affine) @ grid.affine
    labels = ndimage.affine_transform(
        case.head.region_labels, back[:3, :3], back[:3, 3], output_shape=grid.shape, order=0
    )
    return np.asarray(labels > 0, dtype=np.bool_)


def true_classes(case: Case, grid: Grid) -> LabelArray:
    """`HeadClass` of each voxel of a grid in native mm."""
    placed = Placed(grid, inverse_of(case.head.native_from_person))
    (labels,) = sample([case.anatomy.labels], case.anatomy.grid, case.person.warp, placed)
    numbers = np.asarray(labels, dtype=np.intp)
    table: LabelArray = class_table(int(case.anatomy.labels.max()))
    return table[numbers]
