"""Compare the paper's six methods on whole heads of people that no network was trained or tuned on, simulated.

Run ``python benchmarks/heldout_methods.py --anatomies FOLDER --work FOLDER``, where the first folder holds the
whole-head label maps of 14 people with FreeSurfer numbers. Files 1 to 11, in order of name, teach the network without
upsampling path that methods (b) and (d) need (recipe ``regression-sim``); the bundled ``gp-unet-sim``, whose recipe is
the same but for that path, learned from the same people. Files 12 to 14 test: the scans are those of
``benchmarks/heldout.py``, and with the same ``--work`` nothing is made twice. Then ``epvs-cohort compare`` measures all
six methods on all of them; its table, differences, curves and pictures lie in ``comparison`` within the folder of work.
(f) takes the weight of the bundled model, tuned on windows of people 10 and 11.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from heldout import SEED
from simulated_data import HELD_OUT, TRAINING, VALIDATION, Wanted, people_of, simulated

from epvs_cohort.cli.options import DEFAULT_PROTOCOL
from epvs_cohort.model.bundle_files import CARD_FILE
from epvs_cohort.protocol import load_protocol

log = logging.getLogger("methods")

FULL, COARSE = "gp-unet-sim", "regression-sim"
#: People that both networks are trained and tuned on.
KNOWN = slice(TRAINING.start, VALIDATION.stop)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, train, compare, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = parse(arguments)
    work: Path = given.work
    work.mkdir(parents=True, exist_ok=True)
    edges = [float(edge) for edge in given.voxel.split(",")]
    scans = work / "scans"
    simulated(
        scans,
        Wanted(
            scans=given.scans,
            seed=SEED,
            people=people_of(given.anatomies, HELD_OUT, work / "people"),
            voxel_mm=(edges[0], edges[1], edges[2]),
            n_procs=given.n_procs,
        ),
    )
    coarse = trained(given, work)
    split = work / "all-test.csv"
    pd.read_csv(scans / "counts.csv")[["scan"]].assign(split="test").to_csv(split, index=False)
    out = work / "comparison"
    store = work / "stores" / f"first-{load_protocol(DEFAULT_PROTOCOL).prepare_id}"
    called(
        *(
            "compare",
            str(scans),
            "--counts",
            str(scans / "counts.csv"),
            "--points",
            str(scans / "points.csv"),
        ),
        *("--model", FULL, "--model", str(coarse), "--split", str(split), "--store", str(store)),
        *("--n-procs", str(given.n_procs), "--device", "cpu", "--out", str(out)),
    )
    print((out / "table.md").read_text())
    people = pd.read_csv(scans / "participants.tsv", sep="\t", dtype={"participant_id": str})
    print(by_anatomy(pd.read_parquet(out / "scans.parquet"), people))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--anatomies", type=Path, help="folder of the label maps of 14 people; without it nobody is held out")
    add("--work", type=Path, required=True, help="folder of scans, models and tables; kept")
    add("--scans", type=int, default=200)
    add("--voxel", default="0.49,0.49,0.8", help="edges of a voxel in mm; coarser ones only try it out")
    add("--model", type=Path, help="a bundle of the recipe regression-sim, in place of training one")
    add("--max-minutes", type=float, help="time for its training; without it the recipe's")
    add("--n-procs", type=int, default=2)
    return parser.parse_args(arguments)


def trained(given: argparse.Namespace, work: Path) -> Path:
    """Folder of the network without upsampling path, trained unless it is there."""
    folder: Path = given.model or work / COARSE
    if (folder / CARD_FILE).is_file():
        log.info("%s: already trained", folder)
        return folder
    people = people_of(given.anatomies, KNOWN, work / "people-known")
    command = ["train", "--recipe", COARSE, "--out", str(folder), "--n-procs", str(given.n_procs)]
    command += ["--threads", "1", "--device", "cpu"]
    command += ["--anatomies", str(people)] if people is not None else []
    command += ["--max-minutes", str(given.max_minutes)] if given.max_minutes else []
    # A training that was cut off goes on where it was.
    called(*command, *(["--resume"] if (folder / "checkpoint.pt").is_file() else []))
    return folder


def called(*words: str) -> None:
    """Run the program; flagged scans are no reason to stop."""
    log.info("epvs-cohort %s", " ".join(words))
    # Standard output is for the figures.
    done = subprocess.run([sys.executable, "-m", "epvs_cohort", *words], stdout=sys.stderr)
    if done.returncode not in (0, 4):
        raise SystemExit(done.returncode)


def by_anatomy(scans: pd.DataFrame, people: pd.DataFrame) -> str:
    """Markdown of each method's sensitivity, pooled over the lesions of each label map's scans."""
    subject = people["participant_id"].str.removeprefix("sub-")
    rows = scans.merge(people.assign(subject=subject)[["subject", "anatomy", "ventricle_ml"]], on="subject")
    pooled = rows.groupby(["anatomy", "method"])[["matched", "true"]].sum()
    rates = (100.0 * pooled["matched"] / pooled["true"]).unstack("method")
    once = rows.drop_duplicates("scan").groupby("anatomy")["ventricle_ml"].agg(["size", "median"])
    lines = [
        "TPR (%), all lesions of a label map's scans pooled",
        "",
        "| label map | scans | ventricles, mL | " + " | ".join(f"({each})" for each in rates.columns) + " |",
        "|---" * (len(rates.columns) + 3) + "|",
    ]
    for name, row in rates.iterrows():
        size, volume = once.loc[name]
        values = " | ".join(f"{value:.1f}" for value in row)
        lines.append(f"| {name} | {size:.0f} | {volume:.0f} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
