"""Measure rigid pose and atlas outline on whole heads simulated from label maps.

Run as ``python benchmarks/registration.py ANATOMIES [POSES [SEED]]``, where ANATOMIES is a folder of whole-head label
maps with FreeSurfer numbers and POSES how often each head is turned (up to 30 degrees about any axis) and shifted (up
to 40 mm); 2 unless given. The default SEED is the one the settings were chosen on: give another to judge them.
Contrasts are drawn between PD and T2 rows, with a bias field and Rician noise, at 1 mm.

Printed for each head: the largest distance over the basal ganglia between the pose found for a turned copy and the
pose found for the head as it is, composed with the turn (aim: at most 1 mm); Dice of the merged outline (aim: 0.70 on
average); share of the true basal ganglia within the dilated mask (aim: 97 % on average); share of ventricle, CSF and
cortex in it (aim: at most 25 % on average); seconds of CPU of the rigid stage and of the outline.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid, rigid_about
from epvs_cohort.prepare.mask import soft_mask
from epvs_cohort.prepare.register import Rigid, register_rigid
from epvs_cohort.prepare.roi import ASEG_REGIONS, outline_roi
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Image, Scan

#: Medians relative to white matter of three real scans: T2 (TE 49 ms), PD, T2.
CONTRASTS: dict[tuple[int, ...], tuple[float, float, float]] = {
    (4, 43, 5, 44, 14, 15, 24, 30, 62, 72): (2.46, 1.48, 2.66),
    (3, 42, 8, 47): (1.43, 1.18, 1.32),
    (11, 50, 26, 58): (1.09, 1.28, 1.52),
    (12, 51): (0.69, 1.13, 0.94),
    (13, 52): (0.70, 0.95, 0.60),
    (10, 49): (0.86, 1.16, 1.09),
    (17, 53, 18, 54, 136, 137, 163, 164): (1.2, 1.2, 1.2),
    (2, 41, 7, 46, 16, 28, 60, 85, 25, 57): (1.0, 1.0, 1.0),
}
NOT_GREY_OR_WHITE = (4, 43, 5, 44, 14, 15, 24, 3, 42)
NOISE, BIAS, UNITS = 0.08, 0.1, 300.0
SEED = 5


@dataclass(frozen=True)
class Person:
    labels: npt.NDArray[np.int16]
    affine: FloatArray

    def points(self, *numbers: int) -> FloatArray:
        return apply_affine(self.affine, np.argwhere(np.isin(self.labels, numbers)))


@dataclass(frozen=True)
class Result:
    dice: float
    covered: float
    outside: float
    seconds: float


def read_person(path: Path) -> Person:
    image = nib.load(path)
    return Person(np.asarray(image.dataobj).astype(np.int16), np.asarray(image.affine, dtype=np.float64))


def scan_person(person: Person, pose: FloatArray, seed: int, noise_seed: int) -> Image:
    """Image of a posed head; the same ``seed`` gives the same contrast, ``noise_seed`` its own noise."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet((1.0, 1.0, 1.0))
    value = rng.uniform(0.15, 1.6, int(person.labels.max()) + 1)
    value[0] = 0.0
    for numbers, row in CONTRASTS.items():
        value[[n for n in numbers if n < len(value)]] = float(weights @ row)
    bright = ndimage.gaussian_filter(value[person.labels].astype(np.float32), 0.45)
    corners = apply_affine(pose, apply_affine(person.affine, np.argwhere(person.labels > 0)[::97]))
    low, high = corners.min(axis=0) - 4, corners.max(axis=0) + 4
    size = np.ceil(high - low).astype(int)
    grid = centered_grid((int(size[0]), int(size[1]), int(size[2])), (1.0, 1.0, 1.0), (low + high) / 2)
    back = np.linalg.inv(person.affine) @ np.linalg.inv(pose) @ grid.affine
    out = ndimage.affine_transform(bright, back[:3, :3], back[:3, 3], output_shape=grid.shape, order=1)
    for axis in range(3):
        line = np.linspace(-1, 1, grid.shape[axis], dtype=np.float32)
        tilt, bend = rng.uniform(-BIAS, BIAS, 2)
        out *= np.exp(tilt * line + bend * line**2).reshape([-1 if a == axis else 1 for a in range(3)])
    noise = np.random.default_rng(noise_seed)
    real, imaginary = (NOISE * noise.standard_normal(grid.shape, dtype=np.float32) for _ in range(2))
    return Image((UNITS * np.hypot(out + real, imaginary)).astype(np.float32), grid.affine)


def random_pose(rng: np.random.Generator, center: FloatArray) -> FloatArray:
    """Turn of 10 to 30 degrees about a random axis and a shift of 10 to 40 mm."""
    axis, shift = rng.standard_normal(3), rng.standard_normal(3)
    shift *= rng.uniform(10, 40) / np.linalg.norm(shift)
    # A turn about any axis: tilt the frame so that the axis is z, turn, tilt back.
    polar, around = np.arccos(axis[2] / np.linalg.norm(axis)), np.arctan2(axis[1], axis[0])
    tilt = rigid_about((0, 0, 0), (0.0, polar, around), (0, 0, 0))
    turn = rigid_about((0, 0, 0), (0.0, 0.0, np.radians(rng.uniform(10, 30))), (0, 0, 0))
    pose = tilt @ turn @ np.linalg.inv(tilt)
    pose[:3, 3] = center + shift - pose[:3, :3] @ center
    return pose


def outline_errors(person: Person, image: Image, rigid: Rigid, protocol: Protocol) -> Result:
    """Compare the atlas outline on the prepared grid with the person's own labels."""
    start = time.process_time()
    outline = outline_roi(Scan("head", Path("head.nii.gz")), image, rigid, protocol, load_atlas())
    seconds = time.process_time() - start
    grid: Grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, outline.center_mm)
    found = outline.labels_on(grid)
    back = np.linalg.inv(person.affine) @ np.linalg.inv(rigid.rigid_from_native) @ grid.affine
    true = ndimage.affine_transform(
        person.labels, back[:3, :3], back[:3, 3], output_shape=grid.shape, order=0
    )
    region = np.isin(true, list(ASEG_REGIONS))
    everywhere = np.ones(grid.shape, dtype=np.bool_)
    mask = soft_mask(found, grid.spacing_mm, protocol.roi, everywhere).labels > 0
    shared = ((found > 0) & region).sum()
    return Result(
        dice=float(2 * shared / ((found > 0).sum() + region.sum())),
        covered=float(mask[region].mean()),
        outside=float(np.isin(true[mask], NOT_GREY_OR_WHITE).mean()),
        seconds=seconds,
    )


def measure(path: Path, number: int, poses: int, seed: int) -> tuple[float, ...]:
    """Worst pose error in mm, Dice, coverage, foreign share, seconds of rigid stage and outline."""
    person, protocol, atlas = read_person(path), Protocol(), load_atlas()
    region = person.points(*ASEG_REGIONS)[::5]
    rng = np.random.default_rng((seed, number))
    unposed = scan_person(person, np.eye(4), seed + number, 1000 * number)
    start = time.process_time()
    rigid = register_rigid(unposed, protocol.registration, atlas)
    seconds = time.process_time() - start
    expected = apply_affine(rigid.rigid_from_native, region)
    worst = 0.0
    for turn in range(1, poses + 1):
        pose = random_pose(rng, region.mean(axis=0))
        posed = scan_person(person, pose, seed + number, 1000 * number + turn)
        again = register_rigid(posed, protocol.registration, atlas)
        error = np.linalg.norm(apply_affine(again.rigid_from_native @ pose, region) - expected, axis=1)
        worst = max(worst, float(error.max()))
    result = outline_errors(person, unposed, rigid, protocol)
    return worst, result.dice, result.covered, result.outside, seconds, result.seconds


def main() -> None:
    """Print one line a head and the means."""
    paths = sorted(Path(sys.argv[1]).glob("*.nii.gz"))
    poses = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else SEED
    print("head              pose_mm   dice  covered  foreign  rigid_s  outline_s")
    rows = []
    for number, path in enumerate(paths, start=1):
        rows.append(measure(path, number, poses, seed))
        print(f"{path.name.split('.')[0]:16s}", _line(rows[-1]), flush=True)
    print("mean            ", _line(tuple(np.mean(rows, axis=0))))
    print(f"worst pose {max(row[0] for row in rows):.2f} mm")


def _line(row: tuple[float, ...]) -> str:
    pose, dice, covered, outside, rigid, outline = row
    return f"{pose:8.2f} {dice:6.3f} {covered:8.3f} {outside:8.3f} {rigid:8.2f} {outline:10.2f}"


if __name__ == "__main__":
    main()
