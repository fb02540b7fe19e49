"""One simulated head spoilt in many ways, and volumes of its size that are no head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.geometry import Grid, apply_affine
from epvs_cohort.head_classes import HeadClass, class_table
from epvs_cohort.records import Float32Array, Image
from epvs_cohort.simulate.anatomy import bundled_anatomy
from epvs_cohort.simulate.heads import (
    Acquisition,
    Head,
    Look,
    Person,
    draw_person,
    draw_person_lesions,
    scan_person,
)
from epvs_cohort.simulate.scanner import Scanner, bias_field, ghosted, rician
from epvs_cohort.simulate.tissue import Tissue, TissueModel, draw_tissue
from epvs_cohort.simulate.warp import Placed, inverse_of, sample

VOXEL_MM = (1.0, 1.0, 1.0)
LESIONS = 12
#: Of the scan that nothing was done to, relative to white matter; ``noise x1``.
NOISE = 0.04
_WHITE = 400.0

#: Levels of other contrasts relative to white matter: (fluid, cortex, deep grey matter, fat and marrow).
CONTRASTS = {
    "T1-weighted": (0.25, 0.65, 0.75, 1.4),
    "FLAIR": (0.15, 1.25, 1.1, 1.2),
    "time of flight": (0.55, 0.95, 0.95, 0.3),
    "T2*-weighted, fluid as bright as white matter": (1.05, 1.1, 0.9, 0.3),
    "PD-weighted, early echo, fluid darker than cortex": (1.1, 1.25, 1.15, 0.9),
}


@dataclass(frozen=True)
class Spoilt:
    """A scan of the table; ``wrong`` where it has a contrast that is not counted, or is no head."""

    name: str
    image: Image
    wrong: bool = False


def _other_contrast(model: TissueModel, levels: tuple[float, float, float, float]) -> TissueModel:
    fluid, cortex, deep, fat = levels
    level = model.level.copy()
    for tissue in (Tissue.VENTRICLE, Tissue.SULCUS, Tissue.EYE, Tissue.PLEXUS):
        level[tissue] = fluid
    for tissue in (Tissue.CORTEX, Tissue.LIMBIC, Tissue.CEREBELLUM):
        level[tissue] = cortex
    for tissue in (Tissue.CAUDATE, Tissue.PUTAMEN, Tissue.ACCUMBENS, Tissue.THALAMUS, Tissue.DIENCEPHALON):
        level[tissue] = deep
    level[Tissue.PALLIDUM] = 0.5 * (1.0 + deep)
    for tissue in (Tissue.MARROW, Tissue.SKIN, Tissue.SOFT):
        level[tissue] = fat
    return replace(model, level=level)


def _heads(seed: int) -> tuple[Person, dict[str, Head]]:
    """The head in its own contrast and in the others, same pose, without noise."""
    rng = np.random.default_rng(seed)
    person = draw_person(rng, bundled_anatomy(), 0.1)
    lesions = draw_person_lesions(rng, person, LESIONS)
    tissue = draw_tissue(rng)
    scanner = Scanner(psf_sigma_mm=(0.3, 0.3, 0.5), noise_sigma=0.002, bias=0.1)
    models = {"": tissue, **{name: _other_contrast(tissue, levels) for name, levels in CONTRASTS.items()}}
    heads = {}
    for name, model in models.items():
        again = np.random.default_rng(seed + 1)
        heads[name] = scan_person(
            again, person, lesions, Acquisition(voxel_mm=VOXEL_MM), Look(model, scanner)
        )
    return person, heads


def _noisy(values: npt.NDArray[np.floating], times: float = 1.0) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng(17)
    noisy = rician(rng, np.asarray(values, dtype=np.float32) / np.float32(_WHITE), NOISE * times)
    return np.rint(np.clip(noisy * _WHITE, 0, 32767)).astype(np.int16)


def _view(image: Image, *axes: slice) -> Image:
    """A part of the field of view."""
    affine = image.affine.copy()
    affine[:3, 3] = apply_affine(image.affine, [axis.start or 0 for axis in axes])
    return replace(image, data=np.ascontiguousarray(image.data[axes]), affine=affine)


def _thick(values: Float32Array, affine: npt.NDArray[np.float64], times: int) -> Image:
    kept = values[:, :, : values.shape[2] // times * times]
    thick = kept.reshape(*kept.shape[:2], -1, times).mean(axis=3)
    wide = affine.copy()
    wide[:3, 3] = apply_affine(affine, [0.0, 0.0, (times - 1) / 2.0])
    wide[:3, 2] *= times
    return Image(_noisy(thick), wide)


def _brain(person: Person, head: Head) -> npt.NDArray[np.bool_]:
    placed = Placed(head.grid, inverse_of(head.native_from_person))
    (labels,) = sample([person.anatomy.labels], person.anatomy.grid, person.warp, placed)
    classes = class_table(int(person.anatomy.labels.max()))[np.asarray(labels, dtype=np.intp)]
    return np.asarray(classes != HeadClass.NOT_BRAIN, dtype=np.bool_)


def _quality(values: Float32Array, grid: Grid) -> Iterator[Spoilt]:
    """The right head and contrast, badly acquired."""
    affine = grid.affine
    for times in (1, 2, 4, 8):
        yield Spoilt(f"noise x{times}", Image(_noisy(values, times), affine))
    for ghost in (0.1, 0.25):
        moved = ghosted(values, grid, Scanner((0.3, 0.3, 0.5), NOISE, 0.1, ghost=ghost, ghost_mm=30.0))
        yield Spoilt(f"motion: {2 * ghost:.0%} of the signal in ghosts", Image(_noisy(moved), affine))
    for strength in (0.4, 0.8):
        field = bias_field(np.random.default_rng(3), grid, strength)
        yield Spoilt(f"bias field within 1 ± {strength}", Image(_noisy(values * field), affine))
    for times in (3, 5):
        yield Spoilt(f"slices of {times} mm", _thick(values, affine, times))


def _geometry(plain: Image, center: tuple[int, int, int], brain: npt.NDArray[np.bool_]) -> Iterator[Spoilt]:
    """The right head and contrast, otherwise placed or cut."""
    everything = slice(None)
    i, _, k = center
    yield Spoilt(
        "field of view cut 45 mm above the region", _view(plain, everything, everything, slice(0, k + 45))
    )
    yield Spoilt("cut 30 mm below the region", _view(plain, everything, everything, slice(k - 30, None)))
    yield Spoilt("cut 20 mm above and below", _view(plain, everything, everything, slice(k - 20, k + 20)))
    yield Spoilt("cut through the region", _view(plain, everything, everything, slice(k, None)))
    yield Spoilt("cut between the hemispheres", _view(plain, slice(0, i), everything, everything))
    above = _view(plain, everything, everything, slice(k + 40, None))
    yield Spoilt("without the region", above, wrong=True)
    mirrored = plain.affine.copy()
    mirrored[0] *= -1
    yield Spoilt("header flipped left to right", replace(plain, affine=mirrored))
    upside = plain.affine.copy()
    upside[2] *= -1
    yield Spoilt("header flipped top to bottom", replace(plain, affine=upside))
    turned = np.ascontiguousarray(plain.data.transpose(0, 2, 1))
    yield Spoilt("axes exchanged in the header", replace(plain, data=turned))
    doubled = plain.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    yield Spoilt("voxel size half of what it is", replace(plain, affine=doubled))
    yield Spoilt("skull stripped", replace(plain, data=np.where(brain, plain.data, 0).astype(np.int16)))


def no_heads() -> Iterator[tuple[str, Image]]:
    """Volumes of the size of a head, 2 mm voxels, with noise, that show none."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -90.0
    at = np.moveaxis(np.indices((90, 90, 90)), 0, -1) * 2.0 - 90.0
    rng = np.random.default_rng(5)
    away = np.hypot(at[..., 0], at[..., 1])
    knee = np.select([away < 25, away < 50, away < 60], [700.0, 250.0, 500.0], 0.0)
    knee[(np.abs(at[..., 2]) < 6) & (away < 45)] = 900.0
    phantom = np.where(np.linalg.norm(at / (70.0, 85.0, 70.0), axis=-1) < 1, 600.0, 0.0)
    for middle in rng.uniform(-45.0, 45.0, (12, 3)):
        phantom[np.linalg.norm(at - middle, axis=-1) < 10] = rng.uniform(200.0, 1200.0)
    bottle = np.where((away < 55) & (np.abs(at[..., 2]) < 75), 900.0, 0.0)
    trunk = np.where(np.hypot(at[..., 0] / 85, at[..., 1] / 60) < 1, 400.0, 0.0)
    for side in (-40.0, 40.0):
        trunk[np.linalg.norm((at - (side, 5.0, 0.0)) / (30.0, 40.0, 80.0), axis=-1) < 1] = 40.0
    trunk[np.linalg.norm(at - (0.0, -35.0, 0.0), axis=-1) < 14] = 800.0
    nothing = np.zeros(at.shape[:3])
    blobs = ndimage.gaussian_filter(rng.standard_normal(at.shape[:3]), 6.0)
    blobs = np.where(np.linalg.norm(at, axis=-1) < 80, 500.0 + 6000.0 * blobs, 0.0)
    shapes = {"knee": knee, "phantom of spheres": phantom, "bottle": bottle, "trunk": trunk,
              "noise alone": nothing, "ball of smooth noise": blobs}  # fmt: skip
    for name, data in shapes.items():
        noisy = np.abs(data + rng.normal(scale=20.0, size=data.shape))
        yield name, Image(noisy.astype(np.float32), affine)


def spoilt_scans(seed: int) -> tuple[list[Spoilt], int]:
    """All scans of the table, and how many lesions the head holds."""
    person, heads = _heads(seed)
    head = heads[""]
    values = head.data.astype(np.float32)
    plain = Image(_noisy(values), head.grid.affine)
    inside = np.argwhere(head.region_labels > 0)
    low, high = inside.min(axis=0), inside.max(axis=0)
    center = tuple(int(n) for n in (low + high) // 2)
    scans = [
        Spoilt(name, Image(_noisy(heads[name].data), head.grid.affine), wrong=True) for name in CONTRASTS
    ]
    top = float(values.max())
    scans.append(Spoilt("grey values reversed", Image(_noisy(top - values), head.grid.affine), wrong=True))
    scans += [Spoilt(name, image, wrong=True) for name, image in no_heads()]
    scans += _quality(values, head.grid)
    scans += _geometry(plain, (center[0], center[1], center[2]), _brain(person, head))
    return scans, len(head.lesions)
