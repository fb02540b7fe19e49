"""Measure the outline of the basal ganglia by the networks beside that by the atlas, on simulated whole heads.

Run ``python benchmarks/outlines.py --anatomies FOLDER``, where the folder holds whole-head label maps of people with
FreeSurfer numbers. People 12 to 14 in order of name, whom the networks that ship never saw, are measured, unless
``--people`` names others. ``--models HEAD NEAR`` names networks of one's own, folders that ``epvs-cohort train-roi``
wrote; with - for HEAD there is no coarse look, and the pose is searched for as the atlas way does. With several pairs
each person is measured by the first that was neither trained nor tuned on that person: together they cross-validate.
A person whom every pair knows is refused; what a bundle without the record
``recipe.json`` was trained on cannot be known, and is taken to be others.

Heads have the voxels, contrasts, ventricles, noise and motion of ``epvs-cohort simulate`` and are turned by up to 10
degrees and shifted by up to 8 mm on each axis. Both ways register and outline the same heads, one after the other, on
one thread. Printed for each way: Dice of the merged basal ganglia on the prepared grid; the part of the true basal
ganglia within the dilated mask; what part of that mask is ventricle, fluid or cortex, beside what it would be of the
true outline's mask; the error of the volume; how many slices off the slice of the anterior commissure lies; seconds of
a core from the voxels of the scan to the outline.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from outline_cases import Case, simulated_case, true_classes, true_region

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.errors import RegistrationError, RoiError
from epvs_cohort.geometry import Grid, centered_grid
from epvs_cohort.head_classes import HeadClass
from epvs_cohort.model.bundle_files import bundle_folder
from epvs_cohort.model.roi_bundle import (
    HEAD_MODEL,
    NEAR_MODEL,
    load_roi_bundle,
    load_roi_pair,
    roi_bundles_dir,
)
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.elastix import Volume, to_itk
from epvs_cohort.prepare.label_fit import fit_labels
from epvs_cohort.prepare.mask import soft_mask
from epvs_cohort.prepare.register import ROI_CENTER_MM, Rigid, register_rigid, similarity_part
from epvs_cohort.prepare.roi import Outline, outline_roi
from epvs_cohort.prepare.scan import ac_slice
from epvs_cohort.prepare.segmented import Found, Looks, find, find_near, outline_segmented
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import Image, Scan
from epvs_cohort.simulate.settings import file_hashes
from epvs_cohort.simulate.workers import in_order
from epvs_cohort.train.roi_samples import choose_people
from epvs_cohort.train.roi_start import people_known_to

log = logging.getLogger("outlines")

Way = Literal["network", "atlas"]
WAYS: tuple[Way, ...] = ("network", "atlas")
#: Networks for the whole head and for the part around the basal ganglia: names or folders.
Models = tuple[str, str]
SHIPPED: Models = (HEAD_MODEL, NEAR_MODEL)
#: In place of a network for the whole head.
NO_LOOK = "-"

#: Never used for training or tuning.
SEED = 52000
#: Tissue that has no business within the mask.
FOREIGN = (HeadClass.LATERAL_VENTRICLES, HeadClass.THIRD_VENTRICLE, HeadClass.CSF, HeadClass.CORTEX)
#: What a way must reach: measure, how heads are taken together, aim, whether more is better.
AIMS = (
    ("dice", "mean", 0.85, True),
    ("dice", "min", 0.75, True),
    ("covered", "mean", 0.99, True),
    ("foreign", "mean", 0.20, False),
    ("volume_error", "mean", 0.10, False),
)


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    people: tuple[Path, ...]
    models: tuple[Models, ...]
    ways: tuple[Way, ...]
    heads: int
    seed: int
    voxel_mm: tuple[float, float, float]
    n_procs: int
    out: Path | None


@dataclass(frozen=True)
class Order:
    """One head to simulate and to outline."""

    person: Path
    number: int
    models: Models | None
    options: Options


@dataclass(frozen=True)
class Measured:
    """One outline of one head; the defaults are those of a way that outlined nothing."""

    person: str
    head: int
    way: str
    dice: float = 0.0
    covered: float = 0.0
    foreign: float = math.nan
    foreign_at_best: float = math.nan
    volume_error: float = 1.0
    volume_ratio: float = 0.0
    ac_slices: float = math.nan
    pose_seconds: float = math.nan
    outline_seconds: float = math.nan
    failed: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, outline, compare, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(arguments)
    models = models_of(options)
    orders = [
        Order(person, number, models.get(person), options)
        for person in options.people
        for number in range(options.heads)
    ]
    rows: list[Measured] = []
    for found in in_order(measure, orders, min(options.n_procs, len(orders))):
        rows += found
        for row in found:
            log.info("%s", _line(row))
    table = pd.DataFrame([asdict(row) for row in rows])
    if options.out is not None:
        about = {"seed": options.seed, "heads": options.heads, "models": model_ids(options)}
        records = json.loads(table.to_json(orient="records"))
        options.out.write_text(json.dumps({**about, "outlines": records}, indent=1) + "\n")
    print(markdown(table))


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--anatomies", type=Path, required=True, help="folder of label maps")
    add("--people", default="12-14", help="who is measured: numbers in order of name, or names")
    add("--models", nargs=2, action="append", metavar=("HEAD", "NEAR"), help="networks; repeatable")
    add("--ways", default=",".join(WAYS), help="network, atlas or both")
    add("--heads", type=int, default=8, help="heads of each person")
    add("--seed", type=int, default=SEED)
    add("--voxel", default="0.49,0.49,0.8", help="edges of a voxel in mm")
    add("--n-procs", type=int, default=1)
    add("--out", type=Path, help="file for the figures of each head, JSON")
    given = parser.parse_args(arguments)
    ways = tuple(way for way in WAYS if way in given.ways.split(","))
    if not ways or set(given.ways.split(",")) - set(WAYS):
        parser.error(f"--ways {given.ways}: {' and '.join(WAYS)} are legal")
    edges = [float(edge) for edge in given.voxel.split(",")]
    return Options(
        people=choose_people(given.anatomies, given.people),
        models=tuple((head, near) for head, near in given.models or [SHIPPED]),
        ways=ways,
        heads=given.heads,
        seed=given.seed,
        voxel_mm=(edges[0], edges[1], edges[2]),
        n_procs=given.n_procs,
        out=given.out,
    )


def models_of(options: Options) -> dict[Path, Models]:
    """For each person the first pair that does not know that person."""
    if "network" not in options.ways:
        return {}
    chosen: dict[Path, Models] = {}
    for person in options.people:
        own = file_hashes([person])[person.name]
        strangers = [
            pair
            for pair in options.models
            if not any(own in known_to(model) for model in pair if model != NO_LOOK)
        ]
        if not strangers:
            raise SystemExit(
                f"{person}: every pair of --models was trained or tuned on this person; none can be judged"
            )
        chosen[person] = strangers[0]
    return chosen


def known_to(model: str) -> set[str]:
    """Hashes of the label maps that a model was trained and tuned on, as far as it is recorded."""
    return people_known_to(bundle_folder(model, roi_bundles_dir()))


def model_ids(options: Options) -> list[dict[str, str]]:
    """What each pair of networks is."""
    if "network" not in options.ways:
        return []
    return [
        {
            "head": head if head == NO_LOOK else load_roi_bundle(head).model_id,
            "near": load_roi_bundle(near).model_id,
        }
        for head, near in options.models
    ]


@cache
def _looks(models: Models) -> Looks:
    pair = load_roi_pair(None if models[0] == NO_LOOK else models[0], models[1])
    return Looks(Segmenter(pair.head, threads=1).segment, Segmenter(pair.near, threads=1).segment_around)


def _load(models: Models | None) -> None:
    """Load what a process loads once, so that no way is charged with it."""
    to_itk(Volume(np.zeros((2, 2, 2), dtype=np.float32), load_atlas().grid.affine))
    if models is not None:
        _looks(models)


def measure(order: Order) -> list[Measured]:
    """Outline one head in each way and compare with the truth."""
    torch.set_num_threads(1)
    options = order.options
    _load(order.models)
    case = simulated_case(order.person, options.seed, order.number, options.voxel_mm)
    return [measured_way(case, order, way) for way in options.ways]


def measured_way(case: Case, order: Order, way: Way) -> Measured:
    """One outline of a head against the truth; a way that gives up outlines nothing."""
    name, scan = order.person.name.split(".")[0], Scan("head", Path("head.nii.gz"))
    protocol = Protocol()
    start = time.process_time()
    try:
        if way == "network":
            assert order.models is not None
            coarsely = order.models[0] != NO_LOOK
            rigid, outline, seconds = outlined_by_networks(
                case.image, protocol, _looks(order.models), coarsely=coarsely
            )
        else:
            rigid = register_rigid(case.image, protocol.registration, load_atlas())
            seconds = time.process_time() - start
            by_atlas = protocol.model_copy(update={"roi": RoiSettings(method="atlas")})
            outline = outline_roi(scan, case.image, rigid, by_atlas, load_atlas())
    except (RegistrationError, RoiError) as error:
        return Measured(name, order.number, way, failed=str(error))
    total = time.process_time() - start
    grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, outline.center_mm)
    return Measured(
        name,
        order.number,
        way,
        **agreement(case, rigid, outline, grid, protocol),
        ac_slices=slices_off(case, scan, outline),
        pose_seconds=seconds,
        outline_seconds=total - seconds,
    )


def outlined_by_networks(
    image: Image, protocol: Protocol, looks: Looks, *, coarsely: bool
) -> tuple[Rigid, Outline, float]:
    """Pose, outline, and the seconds of the pose alone; the rest is the networks'."""
    atlas = load_atlas()
    found = find_near(image, find(image, looks, atlas), looks, atlas) if coarsely else None
    start = time.process_time()
    near = None if found is None else similarity_part(found.fit.affine)
    rigid = register_rigid(image, protocol.registration, atlas, near)
    seconds = time.process_time() - start
    if found is None:
        head = looks.near(image, np.linalg.inv(rigid.rigid_from_native), ROI_CENTER_MM)
        found = Found(head, fit_labels(head, atlas))
    return rigid, outline_segmented(image, rigid, found, protocol, atlas), seconds


def agreement(case: Case, rigid: Rigid, outline: Outline, grid: Grid, protocol: Protocol) -> dict[str, float]:
    """Outline and mask on the prepared grid against the true labels there."""
    native_from_grid = np.linalg.inv(rigid.rigid_from_native) @ grid.affine
    true = true_classes(case, Grid(grid.shape, native_from_grid))
    region = true_region(case, Grid(grid.shape, native_from_grid))
    found = outline.labels_on(grid) > 0
    everywhere = np.ones(grid.shape, dtype=np.bool_)
    reach = outline.reach_on(grid) if outline.reach_on else None
    mask, best = (
        soft_mask(labels, grid.spacing_mm, protocol.roi, everywhere, own).labels > 0
        for labels, own in ((outline.labels_on(grid), reach), (region.astype(np.uint8), None))
    )
    shared, ratio = int((found & region).sum()), float(found.sum() / region.sum())
    return {
        "dice": 2.0 * shared / (int(found.sum()) + int(region.sum())),
        "covered": float(mask[region].mean()),
        "foreign": float(np.isin(true[mask], FOREIGN).mean()),
        "foreign_at_best": float(np.isin(true[best], FOREIGN).mean()),
        "volume_error": abs(ratio - 1.0),
        "volume_ratio": ratio,
    }


def slices_off(case: Case, scan: Scan, outline: Outline) -> float:
    """Slices between the commissure's slice that was found and the true one; the scan's axial spacing apart."""
    found, true = ac_slice(scan, Image(case.head.data, case.head.grid.affine), outline), case.head.ac
    if found is None or true is None:
        return float("nan")
    return float(found.index - true.index)


def markdown(table: pd.DataFrame) -> str:
    """One row a measure, one column a way."""
    ways = [way for way in WAYS if way in set(table["way"])]
    lines = [f"| | {' | '.join(ways)} | aim |", "|---" * (len(ways) + 2) + "|"]

    def row(name: str, values: list[str], aim: str = "") -> None:
        lines.append(f"| {name} | {' | '.join(values)} | {aim} |")

    groups = {way: table[table["way"] == way] for way in ways}
    row("heads, of people", [f"{len(g)}, {g['person'].nunique()}" for g in groups.values()])
    row("without outline", [str(g["failed"].notna().sum()) for g in groups.values()])
    words = {"dice": "Dice", "covered": "covered", "foreign": "foreign", "volume_error": "error of volume"}
    for name, how, aim, more in AIMS:
        values = [f"{g[name].agg(how):.3f}" for g in groups.values()]
        row(f"{words[name]}, {'lowest' if how == 'min' else how}", values, f"{'≥' if more else '≤'} {aim:g}")
    row("foreign, mean, of the true outline", [f"{g['foreign_at_best'].mean():.3f}" for g in groups.values()])
    row("covered, lowest", [f"{g['covered'].min():.3f}" for g in groups.values()])
    row("found volume / true", [f"{g['volume_ratio'].mean():.3f}" for g in groups.values()])
    off = [g["ac_slices"].dropna() for g in groups.values()]
    row("commissure, slices off: mean ± SD", [f"{o.mean():+.2f} ± {o.std():.2f}" for o in off])
    total = [g["pose_seconds"] + g["outline_seconds"] for g in groups.values()]
    row("seconds of the pose", [f"{g['pose_seconds'].mean():.2f}" for g in groups.values()])
    row("seconds of the outline", [f"{g['outline_seconds'].mean():.2f}" for g in groups.values()])
    row("seconds together", [f"{t.mean():.2f}" for t in total])
    if len(ways) == 2:
        row("network / atlas, seconds", [f"{total[0].mean() / total[1].mean():.2f}", ""], "≤ 0.5")
    return "\n".join([*lines, "", people_table(table)]) + "\n"


def people_table(table: pd.DataFrame) -> str:
    """Dice of each person."""
    means = table.pivot_table(index="person", columns="way", values="dice", aggfunc=["mean", "min"])
    lines = ["| person | " + " | ".join(f"{way}, {how}" for how, way in means.columns) + " |"]
    lines.append("|---" * (len(means.columns) + 1) + "|")
    lines += [f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for name, row in means.iterrows()]
    return "\n".join(lines)


def _line(row: Measured) -> str:
    return (
        f"{row.person} {row.head} {row.way:8s} dice {row.dice:.3f} covered {row.covered:.3f} "
        f"foreign {row.foreign:.3f} volume {row.volume_ratio:.3f} slices {row.ac_slices:+.0f} "
        f"{row.pose_seconds:.2f} + {row.outline_seconds:.2f} s" + (f" {row.failed}" if row.failed else "")
    )


if __name__ == "__main__":
    main()
