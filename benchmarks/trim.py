"""Measure which trim saturates the fewest true lesions and depends least on ventricle size.

Run as ``python benchmarks/trim.py ANATOMIES [SCANS_PER_ANATOMY]``, where ANATOMIES is a folder of whole-head label
maps with FreeSurfer numbers (``anatomy_*.nii.gz``). For each it draws a contrast, perivascular spaces and noise on
the prepared grid, outlines the basal ganglia with an error of 1 mm, and tries every way to trim.
Printed for each: the share of true lesions whose centre is saturated (aim: < 5 %), the correlation over scans of
the clip value, relative to white matter, with the volume of the lateral ventricles (aim: 0), the share of the
mask that is saturated, and the range left to an average lesion above its tissue.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import nibabel as nib
import numpy as np
from scipy import ndimage

from epvs_cohort.geometry import Grid, apply_affine, centered_grid
from epvs_cohort.prepare.mask import SoftMask, soft_mask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import GridSettings, RoiSettings, TrimSettings
from epvs_cohort.records import Float32Array, LabelArray

Over = Literal["crop", "mask", "roi"]

#: FreeSurfer numbers of caudate, putamen, pallidum, accumbens: left 1, 3, 5, 7 and right 2, 4, 6, 8.
BASAL_GANGLIA = {11: 1, 50: 2, 12: 3, 51: 4, 13: 5, 52: 6, 26: 7, 58: 8}
LATERAL_VENTRICLES = (4, 5, 43, 44)
#: Intensity relative to white matter, lowest and highest: T2-like scans with long to short echo times.
CONTRAST = {
    "csf": (1.6, 2.7), "cortex": (1.2, 1.45), "caudate": (1.1, 1.4), "putamen": (0.8, 1.15),
    "pallidum": (0.6, 0.95), "thalamus": (0.9, 1.15), "white": (1.0, 1.0), "other": (0.3, 1.2),
}  # fmt: skip
TISSUE_OF = {
    **dict.fromkeys((4, 5, 14, 15, 24, 43, 44), "csf"), **dict.fromkeys((3, 42, 17, 18, 53, 54), "cortex"),
    **dict.fromkeys((11, 50, 26, 58), "caudate"), **dict.fromkeys((12, 51), "putamen"),
    **dict.fromkeys((13, 52), "pallidum"), **dict.fromkeys((10, 49, 28, 60), "thalamus"),
    **dict.fromkeys((2, 41), "white"),
}  # fmt: skip


@dataclass(frozen=True)
class SimulatedCrop:
    """Intensities relative to white matter, soft mask, and lesion centres, all on the prepared grid."""

    values: Float32Array
    mask: SoftMask
    centers: np.ndarray
    ventricles_ml: float


def simulate(path: Path, rng: np.random.Generator) -> SimulatedCrop:
    """Draw one crop from an anatomy: contrast, lesions, noise, and an outline that is 1 mm off."""
    volume = nib.as_closest_canonical(nib.load(path))
    anatomy = np.asarray(volume.dataobj).astype(np.int16)
    regions = np.zeros(anatomy.shape, dtype=np.uint8)
    for number, label in BASAL_GANGLIA.items():
        regions[anatomy == number] = label
    center = apply_affine(volume.affine, np.argwhere(regions > 0)[::7].mean(axis=0))
    settings = GridSettings()
    grid = centered_grid(settings.shape, settings.spacing_mm, center)
    labels = _nearest(anatomy, volume.affine, grid)
    outline = _nearest(regions, volume.affine, grid, shift_mm=rng.normal(size=3) / np.sqrt(3.0))
    levels = {name: rng.uniform(*span) for name, span in CONTRAST.items()}
    values = np.full(labels.shape, levels["other"], dtype=np.float32)
    for number, name in TISSUE_OF.items():
        values[labels == number] = levels[name]
    values = ndimage.gaussian_filter(values, np.array([0.5, 0.5, 0.5]) / settings.spacing_mm)
    truth = np.isin(labels, list(BASAL_GANGLIA))
    centers = _add_lesions(values, truth, levels["csf"], rng)
    values += rng.normal(0.0, rng.uniform(0.03, 0.1), values.shape).astype(np.float32)
    ventricles = float(np.isin(anatomy, LATERAL_VENTRICLES).sum()) / 1000.0
    inside = np.ones(values.shape, dtype=np.bool_)
    mask = soft_mask(outline.astype(np.uint8), settings.spacing_mm, RoiSettings(), inside)
    return SimulatedCrop(values, mask, centers, ventricles)


def _nearest(
    data: np.ndarray, affine: np.ndarray, grid: Grid, shift_mm: np.ndarray | float = 0.0
) -> LabelArray:
    moved = grid.affine.copy()
    moved[:3, 3] += shift_mm
    matrix = np.linalg.inv(affine) @ moved
    out: LabelArray = ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=grid.shape, order=0, mode="nearest"
    )
    return out


def _add_lesions(values: Float32Array, truth: np.ndarray, csf: float, rng: np.random.Generator) -> np.ndarray:
    """Paint elongated blobs, 1 to 3 mm wide, that hold fluid; counts as skewed as people's."""
    spacing = np.asarray(GridSettings().spacing_mm)
    count = min(int(rng.negative_binomial(1.5, 0.12)), 60)
    places = np.argwhere(ndimage.binary_erosion(truth, iterations=2))
    centers = places[rng.choice(len(places), size=count, replace=False)]
    steps = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3, indexing="ij"), axis=-1)
    for center in centers:
        radii = rng.uniform(0.5, 1.5) * np.array([1.0, 1.0, rng.uniform(1.0, 3.0)])
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        distance = np.linalg.norm((steps * spacing) @ turn / radii, axis=-1)
        share = rng.uniform(0.6, 1.0) / (1.0 + np.exp((distance - 1.0) * 6.0))
        at = np.moveaxis(center + steps, -1, 0)
        legal = np.all([(at[a] >= 0) & (at[a] < values.shape[a]) for a in range(3)], axis=0)
        index = tuple(axis[legal] for axis in at)
        values[index] += (share[legal] * np.maximum(csf - values[index], 0.0)).astype(np.float32)
    return np.asarray(centers)


def main() -> int:
    """Print one line for each way to trim."""
    folder, repeats = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    rng = np.random.default_rng(20)
    ways = [
        TrimSettings(over=over, headroom=headroom, fraction=fraction)
        for over, headroom, fraction in product(get_args(Over), (1.0, 1.25, 1.5), (0.01, 0.005))
    ]
    rows: dict[int, list[tuple[float, float, float, float, float, float]]] = {i: [] for i in range(len(ways))}
    for path in sorted(folder.glob("anatomy_*.nii.gz")):
        for _ in range(repeats):
            crop = simulate(path, rng)
            at = tuple(crop.centers.T)
            for number, way in enumerate(ways):
                done = trim(crop.values, crop.mask, way)
                peaks = done.intensities[at]
                tissue = float(np.median(done.intensities[(crop.mask.labels > 0) & (crop.mask.labels < 9)]))
                rows[number].append(
                    (float((peaks >= 1.0).sum()), float(len(peaks)), done.clip_value, crop.ventricles_ml,
                     done.saturated_share, float((peaks - tissue).sum()))
                )  # fmt: skip
    sys.stdout.write(
        "over  headroom  fraction  lesions  saturated  r(clip, ventricles)  mask saturated  range\n"
    )
    for way, found in zip(ways, rows.values(), strict=True):
        table = np.array(found)
        lesions = table[:, 1].sum()
        r = np.corrcoef(table[:, 2], table[:, 3])[0, 1]
        sys.stdout.write(
            f"{way.over:5} {way.headroom:8.2f} {way.fraction:9.3f} {lesions:8.0f} "
            f"{table[:, 0].sum() / lesions:10.3f} {r:20.2f} {table[:, 4].mean():15.4f} "
            f"{table[:, 5].sum() / lesions:6.2f}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
