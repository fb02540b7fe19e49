"""How many scans must a study count? Train on 25 to 200 simulated scans with a reader's counts, and test.

Run ``python benchmarks/learning_curve.py --anatomies FOLDER --work FOLDER``, where the first folder holds the
whole-head label maps of 14 people: 1 to 9, in order of name, are the study, 12 to 14 the test. Both are drawn on the
prepared grid (``epvs-cohort simulate --prepared --kind training``: the count goes with nothing but lesions).

Each point is one ``epvs-cohort train`` on the counts of the simulated reader A, who misses faint lesions: of random
weights (recipe ``one-by-one``, on a GPU ``paper``) and from a bundled model (``--init``, recipe ``fine-tune``). A fifth
of the counted people is put aside for early stopping, as a study would. ``--hydranet`` adds both with sums over sets of
scans. Once, of random weights, the counts are shuffled among the scans: what is then learned must be nothing.

Random weights take hours of a CPU on the real grid. There these trainings see the same people on a grid that is
``--coarser`` times as coarse along each axis, and are tested on it: the finest lesions blur away, so their curve is of
another, harder task. The shuffled counts say something only beside the true ones of as many scans.

Every network counts the same test volumes, and ICC(A,1) against the truth is given with its 95 % bootstrap interval
over people. Finished points in ``--work`` are kept, and an interrupted training goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from learning_curve_table import drawing_of, table_of
from simulated_data import (
    HELD_OUT,
    TRAINING,
    Wanted,
    coarse_protocol,
    is_held_out,
    people_of,
    simulated,
    simulation,
)
from trainings import switches, train_once

import epvs_cohort
from epvs_cohort.compare.agreement import count_figures, icc_agreement
from epvs_cohort.compare.bootstrap import bootstrap
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import PredictionError
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import Device, Predictor, best_device
from epvs_cohort.protocol import named_file

log = logging.getLogger("learning_curve")

SEED = 41000
BOOTSTRAP_SEED = 1
#: Reader whose counts the study has.
READER = "A"
#: On a CPU random weights learn on voxels so many times as long.
COARSER = 2


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    anatomies: Path | None
    sizes: tuple[int, ...]
    minutes: float
    random_minutes: float
    test: int
    seed: int
    work: Path
    init: str
    coarser: int
    hydranet: int | None
    device: Device
    threads: int
    n_procs: int
    out: Path


@dataclass(frozen=True)
class Point:
    """One training: ``start`` is a key of `learning_curve_table.WORDS`."""

    start: str
    scans: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.start}-{self.scans}"

    @property
    def is_random(self) -> bool:
        """Whether the first weights are random."""
        return self.start in ("scratch", "hydra-scratch", "shuffled")


@dataclass(frozen=True)
class Material:
    """The study's scans and the test volumes on one grid, with true counts and those of the reader."""

    study: Path
    protocol: Path | None
    store: PreparedStore
    keys: list[str]
    truth: list[float]
    reader: list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, train each point, test, print, draw."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    fine = data_of(1, options)
    results = [tested(Point("untrained", 0), options.init, fine, options)]
    for point in points_of(options):
        material = data_of(options.coarser, options) if point.is_random else fine
        bundle = trained(point, material, options)
        results.append(tested(point, str(bundle), material, options))
        log.info("%s: ICC(A,1) %.3f", point.name, results[-1]["icc"]["value"])
        write(options, fine, results)
    print(options.out.with_suffix(".md").read_text())


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--anatomies", type=Path, help="folder of the label maps of 14 people")
    add("--sizes", default="25,50,100,200", help="numbers of counted scans")
    add("--minutes", type=float, default=10.0, help="of training steps, for each point")
    add("--random-minutes", type=float, help="the same for points of random weights (as --minutes)")
    add("--test", type=int, default=60, help="test volumes")
    add("--seed", type=int, default=SEED)
    add("--work", type=Path, required=True, help="folder of volumes and models; kept")
    add("--init", default="gp-unet-sim", help="bundle that the other half of the points starts from")
    add("--coarser", type=int, help="voxels of trainings of random weights (2 on a CPU, 1 on a GPU)")
    add("--hydranet", type=int, nargs="?", const=4, help="also with sums over sets of so many scans (4)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, default=1, help="of the training")
    add("--n-procs", type=int, default=2, help="volumes simulated at the same time")
    add("--out", type=Path, default=Path("learning_curve.json"), help="with .md and .svg beside it")
    given = parser.parse_args(arguments)
    device: Device = best_device() if given.device == "auto" else given.device
    return Options(
        anatomies=given.anatomies,
        sizes=tuple(sorted(int(size) for size in given.sizes.split(","))),
        minutes=given.minutes,
        random_minutes=given.random_minutes or given.minutes,
        test=given.test,
        seed=given.seed,
        work=given.work,
        init=given.init,
        coarser=given.coarser or (COARSER if device == "cpu" else 1),
        hydranet=given.hydranet,
        device=device,
        threads=given.threads,
        n_procs=given.n_procs,
        out=given.out,
    )


@cache
def data_of(coarser: int, options: Options) -> Material:
    """The study's scans and the test on a grid so many times as coarse."""
    ending = "" if coarser == 1 else f"-{coarser}"
    study, tests = options.work / f"study{ending}", options.work / f"test{ending}"
    protocol = None if coarser == 1 else coarse_protocol(coarser, options.work)
    people = people_of(options.anatomies, TRAINING, options.work / "people-study")
    others = people_of(options.anatomies, HELD_OUT, options.work / "people-test")
    wanted = Wanted(
        scans=max(options.sizes),
        seed=options.seed,
        people=people,
        kind="training",
        prepared=True,
        protocol=protocol and str(protocol),
        n_procs=options.n_procs,
    )
    simulated(study, wanted)
    simulated(tests, replace(wanted, scans=options.test, seed=options.seed + 1, people=others))
    truth = pd.read_csv(tests / "counts.csv").set_index("scan")["count"]
    reader = readings(tests).set_index("scan")["count"]
    keys = [str(key) for key in truth.index]
    return Material(
        study,
        protocol,
        PreparedStore(tests / "prepared"),
        keys,
        [float(truth[key]) for key in keys],
        [float(reader[key]) for key in keys],
    )


def readings(folder: Path) -> pd.DataFrame:
    """Columns scan and count of the reader."""
    table = pd.read_csv(folder / "counts_rater.csv")
    return table.loc[table["reader"] == READER, ["scan", "count"]]


def points_of(options: Options) -> list[Point]:
    """All trainings; those from the bundle first."""
    starts = ["init", "scratch"]
    if options.hydranet is not None:
        starts += ["hydra-init", "hydra-scratch"]
    points = [Point(start, size) for start in starts for size in options.sizes]
    return [*points, Point("shuffled", max(options.sizes))]


def trained(point: Point, material: Material, options: Options) -> Path:
    """Folder of the bundle of a point, trained unless it is there."""
    start = "init" if point.start.endswith("init") else "scratch"
    recipe = recipe_for(start, options.device)
    if point.start.startswith("hydra"):
        recipe = str(recipe_of_sets(recipe, options))
    asked = switches(
        [
            ("--counts", counts_table(point, material.study, options)),
            ("--protocol", material.protocol),
            ("--recipe", recipe),
            ("--init", options.init if start == "init" else None),
            ("--max-minutes", options.random_minutes if point.is_random else options.minutes),
            ("--seed", options.seed),
            ("--device", options.device),
            ("--threads", options.threads),
        ]
    )
    return train_once(options.work / "models" / point.name, material.study, asked)


def counts_table(point: Point, study: Path, options: Options) -> Path:
    """The reader's counts of the study's first scans; shuffled among them where that is the point."""
    table = readings(study).sort_values("scan").head(point.scans).reset_index(drop=True)
    if point.start == "shuffled":
        order = np.random.default_rng(options.seed).permutation(len(table))
        table["count"] = table["count"].to_numpy()[order]
    path = options.work / "counts" / f"{point.name}.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    return path


def recipe_for(start: str, device: Device) -> str:
    """Recipe of a training from a bundle or from random weights.

    >>> recipe_for("scratch", "cpu"), recipe_for("init", "cpu")
    ('one-by-one', 'fine-tune')
    """
    if start == "init":
        return "fine-tune"
    return "one-by-one" if device == "cpu" else "paper"


def recipe_of_sets(name: str, options: Options) -> Path:
    """A recipe whose loss sees sums of counts, one set a step (Hydranet, Dubost 2019)."""
    text = named_file("recipes", name).read_text()
    for setting, value in (("set_size", str(options.hydranet)), ("batch", "1"), ("name", f'"{name}-sets"')):
        text, found = re.subn(rf"(?m)^{setting} = .*$", f"{setting} = {value}", text)
        if found != 1:
            raise SystemExit(f"recipe {name}: {setting} stands there {found} times, once is needed")
    path = options.work / f"{name}-sets.toml"
    path.write_text(text)
    return path


def tested(point: Point, bundle: str, test: Material, options: Options) -> dict[str, Any]:
    """Figures of a bundle on the test volumes; kept for the bundle that they are of."""
    model = load_bundle(bundle)
    kept = options.work / "tested" / f"{point.name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["model_id"] == model.model_id and found["test_scans"] == len(test.keys):
            return found
    predictor = Predictor(model, options.device, threads=options.threads)
    estimate = np.array([_count(predictor, test.store, key) for key in test.keys])
    truth, reader = np.array(test.truth), np.array(test.reader)
    result = {
        "start": point.start,
        "scans": point.scans,
        "model_id": model.model_id,
        "test_scans": len(test.keys),
        **asdict(count_figures(truth, estimate)),
        "icc": _icc(test.keys, truth, estimate),
        "icc_reader": _icc(test.keys, reader, estimate),
        "training": _training(Path(bundle)),
    }
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(result) + "\n")
    return result


def _count(predictor: Predictor, store: PreparedStore, key: str) -> float:
    (prediction,) = predictor.predict([store.load(key).volume])
    if isinstance(prediction, PredictionError):
        raise prediction
    return prediction.count


def _icc(keys: list[str], first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    pairs = np.stack([first, second], axis=1)
    return asdict(bootstrap(keys, lambda rows: icc_agreement(pairs[rows]), seed=BOOTSTRAP_SEED))


def _training(bundle: Path) -> dict[str, Any] | None:
    """Steps, minutes and why it ended, as the training itself recorded it."""
    record = bundle / "recipe.json"
    if not record.exists():
        return None
    found: dict[str, Any] = json.loads(record.read_text())
    return {**found.get("done", {}), "scans": found.get("scans")}


def write(options: Options, fine: Material, results: list[dict[str, Any]]) -> None:
    """All that is known so far: figures, table and drawing."""
    drawn = simulation(fine.study)
    record = {
        "images_id": drawn["images_id"],
        "held_out": is_held_out(
            simulation(options.work / "test"), options.anatomies and options.work / "people-test"
        ),
        "seed": options.seed,
        "minutes": options.minutes,
        "random_minutes": options.random_minutes,
        "coarser": options.coarser,
        "reader": READER,
        "device": options.device,
        "threads": options.threads,
        "init": options.init,
        "people": sorted(drawn["settings"]["anatomies"]),
        "program_version": epvs_cohort.__version__,
        "points": results,
    }
    options.out.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    options.out.with_suffix(".md").write_text(table_of(record))
    options.out.with_suffix(".svg").write_text(drawing_of(results, options.coarser))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
