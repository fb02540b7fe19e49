"""What the tests of the command compare share: a small cohort with known lesions, and its arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from epvs_cohort.geometry import apply_affine
from tests.train.blobs import NATIVE, SHAPE, SPACING, Blobs, blobs, save

PROTOCOL = f"""
name = "small"
[grid]
shape = {list(SHAPE)}
spacing_mm = {list(SPACING)}
"""
RECIPE = """
supervision = "scans"
name = "tiny"
epochs = 12
validate_every = 10
batch = 4
optimizer = "adamw"
learning_rate = 2e-2
final_learning_rate = 1e-3
schedule = "cosine"
norm_volumes = 4
[architecture]
widths = [4, 6]
convs_per_level = 1
[augment]
interpolate = 0.0
shift_voxels = 1
"""


def make_cohort(folder: Path, n_scans: int, recipe: str = RECIPE) -> Path:
    """Scans of as many people with 0 to 9 blobs each, prepared, counted and marked; protocol and recipe."""
    rng = np.random.default_rng(5)
    numbers = rng.integers(0, 10, n_scans)
    drawn: list[Blobs] = [blobs(f"sub-{n:02d}_PDw", int(k), 50 + n) for n, k in enumerate(numbers)]
    save(folder / "cohort" / "prepared", drawn)
    counts = "".join(f"{each.volume.key},{len(each.centers)}\n" for each in drawn)
    (folder / "counts.csv").write_text(f"scan,count\n{counts}")
    lines = ["scan,lesion,x_mm,y_mm,z_mm"]
    for each in drawn:
        for n, (x, y, z) in enumerate(apply_affine(NATIVE, each.centers)):
            lines.append(f"{each.volume.key},{n + 1},{x},{y},{z}")
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    (folder / "small.toml").write_text(PROTOCOL)
    (folder / "tiny.toml").write_text(recipe)
    return folder


def of(cohort: Path, out: str, *more: object) -> list[object]:
    return [
        "compare", cohort / "cohort", "--counts", cohort / "counts.csv", "--points", cohort / "points.csv",
        "--out", cohort / out, "--protocol", cohort / "small.toml", "--recipe", cohort / "tiny.toml",
        "--device", "cpu", "--threads", 1, "--n-procs", 1, *more,
    ]  # fmt: skip
