"""What each named setting of training on counted scans is worth: one recipe, changed in one place at a time.

Run ``python benchmarks/training_settings.py --anatomies FOLDER --work FOLDER``, where the first folder holds the
whole-head label maps of 14 people: 1 to 9, in order of name, train, 10 and 11 validate, the rest is never read. Volumes
are simulated straight on the prepared grid, with their true counts (``epvs-cohort simulate --prepared``), and each
network is trained from random weights by ``epvs-cohort train``, with the same volumes, seed and time. The recipe is
``one-by-one`` with three levels in place of its two, and counted is the slice of the anterior commissure, as the
paper's readers did: within minutes of a CPU the paper's recipe, and counts of the whole region, which are rows of their
own, may teach nothing yet that others could be compared with.

On a CPU the grid is taken twice as coarse along each axis (``--voxel-factor``): a volume costs about a seventh, and an
order of the settings shows within minutes, though the finest lesions blur away. ``--voxel-factor 1`` is the real grid.

Validation scans choose the weights that are kept, so all figures are a little too good; that goes for each row alike.
Finished rows in ``--work`` are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from simulated_data import TRAINING, VALIDATION, Wanted, coarse_protocol, people_of, simulated, simulation
from trainings import switches, toml_of, train_once

import epvs_cohort
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import best_device
from epvs_cohort.protocol import CountTarget
from epvs_cohort.simulate.anatomy import anatomy_files, stem
from epvs_cohort.train.recipe import ScanRecipe, load_recipe

log = logging.getLogger("training_settings")

SEED = 51000
BASE = "one-by-one"
#: Of every row, unless it says otherwise: as in the recipe `paper` and the bundled models.
WIDTHS = (8, 16, 32)

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """What a row says, what it changes in the recipe, and of what its counts are."""

    words: str
    changes: Changes
    target: CountTarget = "ac_slice"


#: As in the recipe `paper`.
ADADELTA: Changes = {
    "optimizer": "adadelta",
    "learning_rate": 1.0,
    "final_learning_rate": 1.0,
    "schedule": "constant",
    "last_layer_rate": 0.1,
    "weight_decay": 0.0,
    "gradient_norm": None,
}

ROWS: Mapping[str, Row] = {
    "base": Row(
        "counts of the slice, pooled in it: sum, 8/16/32, batch norm, AdamW, one scan a step, squared error",
        {},
    ),
    "mean": Row("mean pooling", {"architecture": {"pooling": "mean"}}),
    "max": Row("max pooling (the paper's example)", {"architecture": {"pooling": "max"}}),
    "crop": Row(
        "pooling over the whole crop (the paper's)",
        {"architecture": {"pool_within": "crop"}, "pool_in_slice": False},
    ),
    "free": Row(
        "last layer free, with a bias (the paper's Eq. 2), and no sparse start",
        {"architecture": {"last_layer": "free"}},
    ),
    "narrow": Row("widths 4/8/16", {"architecture": {"widths": [4, 8, 16]}}),
    "wide": Row("widths 16/32/64", {"architecture": {"widths": [16, 32, 64]}}),
    "shallow": Row("two levels, 8/16: the recipe `one-by-one`", {"architecture": {"widths": [8, 16]}}),
    "deep": Row("four levels, 8/16/32/64", {"architecture": {"widths": [8, 16, 32, 64]}}),
    "one-conv": Row("one convolution a level", {"architecture": {"convs_per_level": 1}}),
    "no-norm": Row("no batch norm, and no sparse start", {"batch_norm": False}),
    "four": Row("four scans a step", {"batch": 4}),
    "adadelta": Row("Adadelta as in the recipe `paper`, one scan a step", ADADELTA),
    "paper": Row("Adadelta, four scans a step: the recipe `paper`", {**ADADELTA, "batch": 4}),
    "poisson": Row("Poisson loss", {"loss": "poisson"}),
    "negative-binomial": Row("negative binomial loss", {"loss": "negative_binomial"}),
    "sets": Row("sums over sets of 4 scans (Hydranet)", {"set_size": 4}),
    "in-mask": Row("the same counts of the slice, pooled in the whole mask", {"pool_in_slice": False}),
    "whole": Row("counts of the whole region, pooled in the mask", {}, "roi"),
}


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    anatomies: Path | None
    scans: int
    minutes: float
    factor: int
    rows: tuple[str, ...]
    seed: int
    work: Path
    device: str
    threads: int
    n_procs: int
    out: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, train each row, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    protocol = coarse_protocol(options.factor, options.work)
    scans = simulated_scans(options, protocol)
    results = []
    for name in options.rows:
        results.append(row_of(name, trained(name, scans, protocol, options)))
        write(options, scans, results)
    print(options.out.with_suffix(".md").read_text())


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--anatomies", type=Path, help="folder of the label maps of 14 people")
    add("--scans", type=int, default=300, help="volumes, of all 11 people")
    add("--minutes", type=float, default=6.0, help="of training steps, for each row")
    add("--voxel-factor", type=int, default=2, help="edge of a voxel, in those of the protocol")
    add("--rows", default=",".join(ROWS), help="which, by name")
    add("--seed", type=int, default=SEED)
    add("--work", type=Path, required=True, help="folder of volumes and models; kept")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=int, default=1, help="of the training")
    add("--n-procs", type=int, default=2, help="volumes simulated at the same time")
    add(
        "--out",
        type=Path,
        default=Path("training_settings.json"),
        help="the same name with .md holds the table",
    )
    given = parser.parse_args(arguments)
    rows = tuple(given.rows.split(","))
    if unknown := [name for name in rows if name not in ROWS]:
        parser.error(f"--rows {', '.join(unknown)}: legal are {', '.join(ROWS)}")
    return Options(
        anatomies=given.anatomies,
        scans=given.scans,
        minutes=given.minutes,
        factor=given.voxel_factor,
        rows=rows,
        seed=given.seed,
        work=given.work,
        device=best_device() if given.device == "auto" else given.device,
        threads=given.threads,
        n_procs=given.n_procs,
        out=given.out,
    )


def simulated_scans(options: Options, protocol: Path) -> Path:
    """Folder of the prepared volumes of all people, and the list of those that validate."""
    both = slice(TRAINING.start, VALIDATION.stop)
    folder = options.work / f"scans-{options.factor}"
    people = people_of(options.anatomies, both, options.work / "people")
    wanted = Wanted(
        scans=options.scans,
        seed=options.seed,
        people=people,
        kind="training",
        prepared=True,
        protocol=str(protocol),
        n_procs=options.n_procs,
    )
    simulated(folder, wanted)
    table = pd.read_csv(folder / "participants.tsv", sep="\t")
    if people is None:
        # The bundled map is everybody's; every fifth validates, so that the command can be tried.
        validating = table["participant_id"].iloc[::5]
    else:
        names = [stem(path) for path in anatomy_files(people)[VALIDATION]]
        validating = table.loc[table["anatomy"].isin(names), "participant_id"]
    (options.work / "validation.txt").write_text("\n".join(validating + "_PDw") + "\n")
    return folder


def recipe_file(name: str, options: Options) -> Path:
    """The base recipe with the changes of a row."""
    base = load_recipe(BASE)
    if not isinstance(base, ScanRecipe):
        raise SystemExit(f"recipe {BASE}: trains on {base.supervision}, counted scans are needed")
    settings = base.model_dump(mode="json", exclude_none=True)
    settings["architecture"]["widths"] = list(WIDTHS)
    for key, value in ROWS[name].changes.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    # TOML has no null: a setting that is none is left out.
    settings = {key: value for key, value in settings.items() if value is not None}
    settings["name"] = f"{BASE}-{name}"
    path = options.work / f"recipe-{name}.toml"
    path.write_text(toml_of(settings))
    return path


def trained(name: str, scans: Path, protocol: Path, options: Options) -> Path:
    """Folder of the bundle of a row, trained unless it is there."""
    counts = "counts_ac_slice.csv" if ROWS[name].target == "ac_slice" else "counts.csv"
    asked = switches(
        [
            ("--counts", scans / counts),
            ("--count-target", ROWS[name].target),
            ("--recipe", recipe_file(name, options)),
            ("--protocol", protocol),
            ("--validation", options.work / "validation.txt"),
            ("--max-minutes", options.minutes),
            ("--seed", options.seed),
            ("--device", options.device),
            ("--threads", options.threads),
        ]
    )
    return train_once(options.work / f"models-{options.factor}" / name, scans, asked)


def row_of(name: str, bundle: Path) -> dict[str, Any]:
    """Figures of a row, as its own card and record tell them."""
    card = load_bundle(str(bundle)).card
    record = json.loads((bundle / "recipe.json").read_text())
    return {"row": name, "changed": ROWS[name].words, **card.validation, **record["done"]}


def write(options: Options, scans: Path, results: list[dict[str, Any]]) -> None:
    """All that is known so far."""
    record = {
        "images_id": simulation(scans)["images_id"],
        "scans": options.scans,
        "voxel_factor": options.factor,
        "minutes": options.minutes,
        "device": options.device,
        "threads": options.threads,
        "seed": options.seed,
        "held_out": options.anatomies is not None,
        "program_version": epvs_cohort.__version__,
        "rows": results,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table_of(record))


def table_of(record: Mapping[str, Any]) -> str:
    """Markdown table of the rows."""
    people = "two people not trained on" if record["held_out"] else "**the same person's map: NOT held out**"
    lines = [
        f"{record['scans']} simulated volumes, difficulty `{record['images_id']}`, voxels {record['voxel_factor']} "
        f"times the protocol's along each axis, seed {record['seed']}; at most {record['minutes']:g} minutes of "
        f"training for each row ({record['device']}, threads {record['threads']}), from random weights; validated on "
        f"volumes of {people}. No figure here is an accuracy on scans of people.",
        "",
        "| setting | ICC(A,1) | r | MSE | MAE | steps |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        numbers = f"{row['icc']:.3f} | {row['r']:.3f} | {row['mse']:.1f} | {row['mae']:.2f} | {row['steps']}"
        lines.append(f"| {row['changed']} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
