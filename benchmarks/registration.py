"""Measure rigid pose and atlas outline on whole heads simulated from label maps.

Run as ``python benchmarks/registration.py ANATOMIES [POSES [SEED]] [--networks]``, where ANATOMIES is a folder of
whole-head label maps with FreeSurfer numbers and POSES how often each head is turned (up to 30 degrees about any axis)
and shifted (up to 40 mm); 2 unless given. The default SEED is the one the settings were chosen on: give another to
judge them. Contrasts are drawn between PD and T2 rows, with a bias field and Rician noise, at 1 mm. With ``--networks``
the two networks that ship look first, and the registration starts from what they found; heads that they were trained
on (1 to 9 in order of name) say little of the networks, but much of the registration. ``--people`` names heads, such
as 1-11.

Printed for each head: the largest distance over the basal ganglia between the pose found for a turned copy and the
pose found for the head as it is, composed with the turn (aim: at most 1 mm); Dice of the merged outline (aim: 0.70 on
average); share of the true basal ganglia within the dilated mask (aim: 97 % on average); share of ventricle, CSF and
cortex in it (aim: at most 25 % on average); seconds of CPU of the pose, the networks' looks within it, and of the
outline.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid, rigid_about
from epvs_cohort.model.roi_bundle import load_roi_pair
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.mask import soft_mask
from epvs_cohort.prepare.register import Rigid, register_rigid, similarity_part
from epvs_cohort.prepare.roi import ASEG_REGIONS, Outline, outline_roi
from epvs_cohort.prepare.segmented import Found, Looks, find, find_near, outline_segmented
from epvs_cohort.protocol import Protocol, RoiSettings
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


@dataclass(frozen=True)
class Outlined:
    """One head's pose and outline, and the seconds of CPU of both."""

    rigid: Rigid
    outline: Outline
    seconds: tuple[float, float]


@cache
def _looks() -> Looks:
    pair = load_roi_pair()
    return Looks(Segmenter(pair.head, threads=1).segment, Segmenter(pair.near, threads=1).segment_around)


def posed(image: Image, protocol: Protocol, looks: Looks | None) -> tuple[Rigid, Found | None]:
    """Pose of a head, and what the networks found in it where they look first."""
    atlas = load_atlas()
    if looks is None:
        return register_rigid(image, protocol.registration, atlas), None
    found = find_near(image, find(image, looks, atlas), looks, atlas)
    return register_rigid(image, protocol.registration, atlas, similarity_part(found.fit.affine)), found


def outlined(image: Image, protocol: Protocol, looks: Looks | None) -> Outlined:
    """Pose and outline of a head."""
    start = time.process_time()
    rigid, found = posed(image, protocol, looks)
    middle = time.process_time()
    if found is None:
        by_atlas = protocol.model_copy(update={"roi": RoiSettings(method="atlas")})
        outline = outline_roi(Scan("head", Path("head.nii.gz")), image, rigid, by_atlas, load_atlas())
    else:
        outline = outline_segmented(image, rigid, found, protocol, load_atlas())
    return Outlined(rigid, outline, (middle - start, time.process_time() - middle))


def outline_errors(person: Person, head: Outlined, protocol: Protocol) -> Result:
    """Compare the outline on the prepared grid with the person's own labels."""
    outline, rigid = head.outline, head.rigid
    grid: Grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, outline.center_mm)
    found = outline.labels_on(grid)
    back = np.linalg.inv(person.affine) @ np.linalg.inv(rigid.rigid_from_native) @ grid.affine
    true = ndimage.affine_transform(
        person.labels, back[:3, :3], back[:3, 3], output_shape=grid.shape, order=0
    )
    region = np.isin(true, list(ASEG_REGIONS))
    everywhere = np.ones(grid.shape, dtype=np.bool_)
    reach = outline.reach_on(grid) if outline.reach_on else None
    mask = soft_mask(found, grid.spacing_mm, protocol.roi, everywhere, reach).labels > 0
    shared = ((found > 0) & region).sum()
    return Result(
        dice=float(2 * shared / ((found > 0).sum() + region.sum())),
        covered=float(mask[region].mean()),
        outside=float(np.isin(true[mask], NOT_GREY_OR_WHITE).mean()),
    )


def measure(path: Path, number: int, options: argparse.Namespace) -> tuple[float, ...]:
    """Worst pose error in mm, Dice, coverage, foreign share, seconds of pose and outline."""
    person, protocol, seed = read_person(path), Protocol(), options.seed
    looks = _looks() if options.networks else None
    region = person.points(*ASEG_REGIONS)[::5]
    rng = np.random.default_rng((seed, number))
    head = outlined(scan_person(person, np.eye(4), seed + number, 1000 * number), protocol, looks)
    expected = apply_affine(head.rigid.rigid_from_native, region)
    worst = 0.0
    for turn in range(1, options.poses + 1):
        pose = random_pose(rng, region.mean(axis=0))
        again, _ = posed(scan_person(person, pose, seed + number, 1000 * number + turn), protocol, looks)
        error = np.linalg.norm(apply_affine(again.rigid_from_native @ pose, region) - expected, axis=1)
        worst = max(worst, float(error.max()))
    result = outline_errors(person, head, protocol)
    return worst, result.dice, result.covered, result.outside, *head.seconds


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description="Rigid pose and outline on heads simulated from label maps.")
    parser.add_argument("anatomies", type=Path, help="folder of label maps")
    parser.add_argument("poses", nargs="?", type=int, default=2, help="how often each head is turned (2)")
    parser.add_argument("seed", nargs="?", type=int, default=SEED)
    parser.add_argument("--networks", action="store_true", help="the networks that ship look first")
    parser.add_argument("--people", default="1-", help="numbers in order of name (all)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a head and the means."""
    options = parse(arguments)
    torch.set_num_threads(1)
    first, _, last = options.people.partition("-")
    chosen = slice(int(first) - 1, int(last) if last else None)
    paths = sorted(options.anatomies.glob("*.nii.gz"))
    print("head              pose_mm   dice  covered  foreign   pose_s  outline_s")
    rows = []
    for number, path in list(enumerate(paths, start=1))[chosen]:
        rows.append(measure(path, number, options))
        print(f"{path.name.split('.')[0]:16s}", _line(rows[-1]), flush=True)
    print("mean            ", _line(tuple(np.mean(rows, axis=0))))
    print(f"worst pose {max(row[0] for row in rows):.2f} mm")


def _line(row: tuple[float, ...]) -> str:
    pose, dice, covered, outside, rigid, outline = row
    return f"{pose:8.2f} {dice:6.3f} {covered:8.3f} {outside:8.3f} {rigid:8.2f} {outline:10.2f}"


if __name__ == "__main__":
    main()
