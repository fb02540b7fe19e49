"""Measure which trim saturates the fewest true lesions and depends least on ventricle size.

Run as ``python benchmarks/trim.py ANATOMIES [CROPS_PER_ANATOMY]``, where ANATOMIES is a folder of whole-head label
maps with FreeSurfer numbers. Each crop is simulated on the prepared grid (shape, pose, contrast, mimics, lesions,
noise), outlined truly, as a side file brings it, and as the atlas would outline it, with its errors, and trimmed in
every way. Printed for each outline and way: the share of true lesions whose centre is saturated (aim: < 5 %), the
correlation over crops of the clip value, relative to white matter, with the volume of the anatomy's lateral
ventricles (aim: 0), the spread of that ratio (standard deviation over mean), the share of the mask that is
saturated, and the mean height of a lesion's centre above the tissue of the region, in the network's range of 0 to 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import apply_affine
from epvs_cohort.prepare.mask import SoftMask, soft_mask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import Protocol, TrimSettings
from epvs_cohort.records import LABEL_NO_REGION, Float32Array
from epvs_cohort.simulate.anatomy import Anatomy, anatomy_files, load_anatomy
from epvs_cohort.simulate.lesions import DEFAULT_COUNT, draw_lesions, fluid_fraction
from epvs_cohort.simulate.prepared import draw_canvas
from epvs_cohort.simulate.scanner import rician

IndexArray = npt.NDArray[np.intp]
Over = Literal["crop", "mask", "roi"]
LATERAL_VENTRICLES = (4, 5, 43, 44)
SEED = 20


@dataclass(frozen=True)
class Crop:
    """A simulated crop before the trim: white matter is about 1; lesion centres are grid voxels."""

    values: Float32Array
    masks: dict[str, SoftMask]
    centers: IndexArray
    ventricles_ml: float


def draw_crop(anatomy: Anatomy, rng: np.random.Generator) -> Crop:
    """Simulate one crop with lesions, and outline it both ways."""
    protocol = Protocol()
    canvas = draw_canvas(anatomy, rng, protocol)
    lesions = draw_lesions(rng, DEFAULT_COUNT.draw(rng), canvas.placement)
    fraction = fluid_fraction(lesions, canvas.grid, psf_sigma_mm=canvas.psf_sigma_mm)
    painted = canvas.image + fraction * (np.float32(canvas.fluid) * canvas.bias - canvas.image)
    everywhere = np.ones(canvas.grid.shape, dtype=np.bool_)
    masks = {
        name: soft_mask(outline, canvas.grid.spacing_mm, protocol.roi, everywhere)
        for name, outline in (("true", canvas.regions), ("atlas", canvas.roi))
    }
    places = np.array([lesion.center_mm for lesion in lesions], dtype=np.float64).reshape(-1, 3)
    centers = np.rint(apply_affine(np.linalg.inv(canvas.grid.affine), places)).astype(np.intp)
    voxel_ml = float(np.prod(anatomy.grid.spacing_mm)) / 1000.0
    ventricles = float(np.isin(anatomy.labels, LATERAL_VENTRICLES).sum()) * voxel_ml
    return Crop(rician(rng, painted, canvas.noise_sigma), masks, centers, ventricles)


def outcome(crop: Crop, outline: str, way: TrimSettings) -> tuple[float, ...]:
    """Saturated lesions, lesions, clip value, ventricles, saturated share, summed height of lesions."""
    mask = crop.masks[outline]
    done = trim(crop.values, mask, way)
    at = tuple(crop.centers[mask.labels[tuple(crop.centers.T)] > 0].T)
    heights = done.intensities[at]
    inner = (mask.labels > 0) & (mask.labels != LABEL_NO_REGION)
    return (
        float((heights >= 1.0).sum()),
        float(len(heights)),
        done.clip_value,
        crop.ventricles_ml,
        done.saturated_share,
        float((heights - np.median(done.intensities[inner])).sum()),
    )


def crops(folder: Path, repeats: int) -> Iterator[Crop]:
    """Crops of every anatomy in turn."""
    rng = np.random.default_rng(SEED)
    for path in anatomy_files(folder):
        anatomy = load_anatomy(path)
        for _ in range(repeats):
            yield draw_crop(anatomy, rng)


def main() -> int:
    """Print one line for each way to trim."""
    folder, repeats = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ways = [
        (outline, TrimSettings(over=over, headroom=headroom, fraction=fraction))
        for outline, over, headroom, fraction in product(
            ("true", "atlas"), get_args(Over), (1.0, 1.25, 1.5), (0.01, 0.005)
        )
    ]
    tables = np.array([[outcome(crop, *way) for way in ways] for crop in crops(folder, repeats)])
    sys.stdout.write(f"{tables.shape[0]} crops, {tables[:, 0, 1].sum():.0f} lesions, seed {SEED}\n")
    sys.stdout.write(
        "outline over headroom fraction saturated r(clip,ventr.) spread(clip) mask saturated height\n"
    )
    for (outline, way), table in zip(ways, np.moveaxis(tables, 1, 0), strict=True):
        lesions, clip = table[:, 1].sum(), table[:, 2]
        sys.stdout.write(
            f"{outline:7} {way.over:4} {way.headroom:8.2f} {way.fraction:8.3f} "
            f"{table[:, 0].sum() / lesions:9.3f} {np.corrcoef(clip, table[:, 3])[0, 1]:14.2f} "
            f"{clip.std() / clip.mean():12.2f} {table[:, 4].mean():14.4f} {table[:, 5].sum() / lesions:6.2f}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
