"""Measure a model on whole heads of people that no network was trained or tuned on, simulated, counted and compared.

Run ``python benchmarks/heldout.py --anatomies FOLDER --work FOLDER``, where the first folder holds the whole-head
label maps of 14 people with FreeSurfer numbers: only files 12 to 14, in order of name, are used. Without it the one
bundled label map is used, from which networks may have been trained: then the figures are no held-out ones.

Whole heads are simulated with a second visit each (``epvs-cohort simulate --kind evaluation --rescan``), counted as
``epvs-cohort run`` counts them, and compared with the truth: counts (ICC(A,1) with 95 % bootstrap intervals over
people, for each person's anatomy, errors by thirds of the count), simulated readers, second visits, and lesions
(centres within 3 voxels of the prepared grid, one to one, the threshold from the network's own count). With
``--ventricles`` the same people are simulated again without lesions: what the count then follows is no lesion.

What is finished in ``--work`` is kept, so that a second start goes on, and another ``--model`` finds the scans ready.
Scans that are flagged are counted; those that fail are named, and their lesions count as missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from heldout_counts import count_measures, reader_measures, rescan_measures, ventricle_measures
from heldout_lesions import Job, LesionTruth, lesion_measures
from heldout_table import aims_of, markdown
from simulated_data import HELD_OUT, Wanted, is_held_out, people_of, simulated, simulation

import epvs_cohort
from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.protocol import Protocol, load_protocol
from epvs_cohort.records import AcSlice
from epvs_cohort.simulate.cohort import rescan_folder

log = logging.getLogger("heldout")

#: Never used for training or tuning.
SEED = 31000
PROTOCOLS = {"roi": "rotterdam-basal-ganglia", "ac_slice": "rotterdam-ac-slice"}
COUNTS = {"roi": "counts.csv", "ac_slice": "counts_ac_slice.csv"}


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    anatomies: Path | None
    scans: int
    seed: int
    voxel: tuple[float, float, float]
    work: Path
    protocol: Protocol
    n_procs: int
    rescan: bool
    second_visits: int | None
    ventricles: bool
    out: Path


@dataclass(frozen=True)
class Counted:
    """A simulated data set and what a run made of it."""

    folder: Path
    cohort: Cohort
    store: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, count, compare, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    people = people_of(options.anatomies, HELD_OUT, options.work / "people")
    folder = options.work / "scans"
    wanted = Wanted(
        scans=options.scans,
        seed=options.seed,
        people=people,
        voxel_mm=options.voxel,
        rescan=options.rescan,
        n_procs=options.n_procs,
    )
    simulated(folder, wanted)
    first = counted(folder, options, "first")
    frame = truth_frame(first, options)
    figures: dict[str, Any] = {"about": about(options, first, people), "counts": count_measures(frame)}
    if options.protocol.count_target == "roi":
        figures["readers"] = reader_measures(frame, pd.read_csv(folder / "counts_rater.csv"))
    if options.rescan:
        again = counted(rescan_folder(folder), options, "second", options.second_visits)
        asked = frame.sort_values("scan").head(options.second_visits or len(frame))
        figures["rescan"] = rescan_measures(asked, counts_of(again.cohort))
    jobs = lesion_jobs(first, frame, options)
    figures["lesions"] = lesion_measures(jobs, list(frame["subject"]), options.n_procs, options.seed)
    if options.ventricles:
        bare = options.work / "scans-no-lesions"
        simulated(bare, replace(wanted, rescan=False, lesions=False))
        without = counted(bare, options, "no-lesions")
        figures["ventricles"] = ventricle_measures(
            counts_of(without.cohort), ventricles_of(bare, without.cohort)
        )
    figures = known(figures)
    figures["aims"] = aims_of(figures)
    figures["scans"] = json.loads(frame.to_json(orient="records"))
    options.out.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    text = markdown(figures)
    options.out.with_suffix(".md").write_text(text)
    print(text)


def known(figures: Any) -> Any:
    """The same with None for what is not defined, such as a sensitivity without lesions."""
    if isinstance(figures, dict):
        return {name: known(each) for name, each in figures.items()}
    if isinstance(figures, list):
        return [known(each) for each in figures]
    return None if isinstance(figures, float) and np.isnan(figures) else figures


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--anatomies", type=Path, help="folder of the label maps of 14 people")
    add("--scans", type=int, default=200)
    add("--seed", type=int, default=SEED)
    add(
        "--voxel",
        default="0.49,0.49,0.8",
        help="edges of a voxel in mm; coarser ones only try the command out",
    )
    add("--work", type=Path, required=True, help="folder of scans, tables and prepared volumes; kept")
    add("--model", help="name of a bundled model, or folder of another; the protocol's where not given")
    add("--target", choices=sorted(PROTOCOLS), default="roi")
    add("--protocol", help="name or file; that of the target where not given")
    add("--n-procs", type=int, default=2)
    add("--no-rescan", action="store_true", help="no second visit")
    add("--second-visits", type=int, help="count those of the first so many people; all where not given")
    add("--ventricles", action="store_true", help="also the same people without lesions")
    add(
        "--out", type=Path, help="heldout-TARGET.json where not given; the same name with .md holds the table"
    )
    given = parser.parse_args(arguments)
    protocol = load_protocol(given.protocol or PROTOCOLS[given.target])
    if protocol.count_target != given.target:
        parser.error(f"protocol {protocol.name!r} counts {protocol.count_target}, --target is {given.target}")
    if given.model is not None:
        protocol = protocol.model_copy(update={"model": given.model})
    i, j, k = (float(edge) for edge in given.voxel.split(","))
    return Options(
        anatomies=given.anatomies,
        scans=given.scans,
        seed=given.seed,
        voxel=(i, j, k),
        work=given.work,
        protocol=protocol,
        n_procs=given.n_procs,
        rescan=not given.no_rescan,
        second_visits=given.second_visits,
        ventricles=given.ventricles,
        out=given.out or Path(f"heldout-{given.target}.json"),
    )


def counted(folder: Path, options: Options, name: str, limit: int | None = None) -> Counted:
    """Count a data set, or its first scans, as ``epvs-cohort run`` does, going on where an earlier start stopped."""
    model_id = load_bundle(options.protocol.model).model_id
    results = options.work / f"results-{options.protocol.protocol_id}-{model_id}"
    results.mkdir(exist_ok=True)
    store = options.work / "stores" / f"{name}-{options.protocol.prepare_id}"
    request = RunRequest(
        scans=folder,
        out=results / f"{name}.parquet",
        protocol=options.protocol,
        store=store,
        discover=DiscoverOptions(limit=limit),
        cluster=ClusterChoice(n_procs=options.n_procs),
    )
    log.info("counting %s", folder)
    return Counted(folder, run_cohort(request), store)


def truth_frame(first: Counted, options: Options) -> pd.DataFrame:
    """One row a scan: truth, estimate (not a number where it failed), status, subject, anatomy."""
    truth = pd.read_csv(first.folder / COUNTS[options.protocol.count_target])
    scans = first.cohort.scans[["scan", "subject", "status", "count", "flags", "error_message"]]
    frame = truth.rename(columns={"count": "truth"}).merge(
        scans.rename(columns={"count": "estimate"}), on="scan", how="left", validate="one_to_one"
    )
    if missing := list(frame.loc[frame["status"].isna(), "scan"]):
        raise SystemExit(f"{first.folder}: scans without a row in the table of counts: {missing}")
    frame["flags"] = [list(flags) if flags is not None else [] for flags in frame["flags"]]
    anatomies = by_subject(first.folder, "anatomy")
    frame["anatomy"] = [str(anatomies[str(subject)]) for subject in frame["subject"]]
    return frame


def by_subject(folder: Path, column: str) -> dict[str, Any]:
    """A column of ``participants.tsv`` by subject."""
    table = pd.read_csv(folder / "participants.tsv", sep="\t")
    return dict(zip(table["participant_id"].str.removeprefix("sub-"), table[column], strict=True))


def counts_of(cohort: Cohort) -> pd.Series[float]:
    """Estimates by scan; not a number where it failed."""
    return pd.Series(cohort.scans["count"].to_numpy(dtype=np.float64), index=cohort.scans["scan"])


def ventricles_of(folder: Path, cohort: Cohort) -> pd.Series[float]:
    """Volume of the lateral ventricles in mL by scan."""
    size = by_subject(folder, "ventricle_ml")
    subjects = [str(subject) for subject in cohort.scans["subject"]]
    return pd.Series([size[subject] for subject in subjects], index=cohort.scans["scan"])


def lesion_jobs(first: Counted, frame: pd.DataFrame, options: Options) -> list[Job]:
    """What is to be measured of each scan."""
    points = pd.read_csv(first.folder / "points.csv")
    by_scan = {str(scan): own for scan, own in points.groupby("scan")}
    jobs = []
    for scan, subject, status in zip(frame["scan"], frame["subject"], frame["status"], strict=True):
        own = by_scan.get(str(scan), points.iloc[:0])
        crossing = own[own["in_ac_slice"] == 1]
        participant = f"sub-{subject}"
        path = first.folder / "derivatives/truth" / participant / "anat" / f"{participant}_desc-truth.json"
        place = json.loads(path.read_text())["ac_slice"]
        truth = LesionTruth(
            own[["x_mm", "y_mm", "z_mm"]].to_numpy(dtype=np.float64),
            crossing[["ac_x_mm", "ac_y_mm", "ac_z_mm"]].to_numpy(dtype=np.float64),
            None if place is None else AcSlice(**place),
        )
        counted_here = str(status) != "failed"
        jobs.append(
            Job(str(scan), first.store, options.protocol.model, options.protocol, truth, counted_here)
        )
    return jobs


def about(options: Options, first: Counted, people: Path | None) -> dict[str, Any]:
    """What the figures are of."""
    bundle, drawn = load_bundle(options.protocol.model), simulation(first.folder)
    return {
        "held_out": is_held_out(drawn, people),
        "people": sorted(drawn["settings"]["anatomies"]),
        "scans": options.scans,
        "seed": options.seed,
        "voxel_mm": list(options.voxel),
        "images_id": drawn["images_id"],
        "settings_id": drawn["settings_id"],
        "model": bundle.card.name,
        "model_id": bundle.model_id,
        "count_target": options.protocol.count_target,
        "method": first.cohort.about["method"],
        "protocol": options.protocol.name,
        "protocol_id": options.protocol.protocol_id,
        "program_version": epvs_cohort.__version__,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
