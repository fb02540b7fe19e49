"""Set ``epvs-cohort run`` beside the script that a laboratory would write, on the same scans in the same run.

Run as ``python benchmarks/against_lab.py [SCANS]``, where SCANS is a table with the columns scan, path and, where
outlines were drawn, mask; without it ``--heads`` full-size heads are simulated, with the true outline as the mask of
the check. Measured, by the clock and from the start of each command to its end:

* the laboratory's script on two cores (`lab_script.py`), one scan after another;
* ``epvs-cohort run --n-procs 2`` and ``--n-procs 1``, each into a fresh output.

Aims: 20 times the scans an hour, and 0.9 of perfect scaling from one process to two. Then both count the same scans
once more with the same outline (``--check``), and counts must agree within 0.2 and 95 % of the lesions that match must
lie within one voxel: first with the very pose that the laboratory's script found, which compares all but the
registration, then each with a full-resolution rigid registration of its own, which never ends in quite the same pose.
Of the two the first decides. What is missed is printed as missed, and the exit code
is 1 where the check fails. Clock times mean nothing on a machine that does other work, so its load is printed, and a
run that began on a busy machine says so in its first line; processor seconds are given beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

import epvs_cohort.prepare.scan as scan_module
from epvs_cohort.cli.simulate import parse_voxel
from epvs_cohort.cohort.infer_task import Ready, infer
from epvs_cohort.cohort.prepare_task import prepare
from epvs_cohort.cohort.run import RunRequest, make_ready
from epvs_cohort.compare.matching import match_lesions
from epvs_cohort.prepare.register import Rigid
from epvs_cohort.simulate.cohort import DEFAULT_VOXEL_MM, SimulateOptions, simulate_cohort

LAB = Path(__file__).with_name("lab_script.py")
SEED = 71
AIM_RATIO, AIM_SCALING, AIM_COUNT, AIM_NEAR = 20.0, 0.9, 0.2, 0.95
#: Lesions this near to one another may be the same; a voxel's longest edge is what they must not be apart.
MATCH_MM, VOXEL_MM = 3.0, 0.8
BUSY_LOAD = 0.5
#: The laboratory's rigid registration: full resolution, pose alone.
PAPER_PROTOCOL = "[registration]\nresolution_mm = 0.0\n"


@dataclass(frozen=True)
class Taken:
    """What one command took."""

    scans: int
    clock_s: float
    processor_s: float

    @property
    def per_hour(self) -> float:
        """Scans an hour by the clock."""
        return 3600.0 * self.scans / self.clock_s


@dataclass(frozen=True)
class Agreement:
    """How two ways of counting the same scans agree."""

    scans: int
    within: int
    worst: float
    lesions: tuple[int, int]
    matched: int
    near: int

    @property
    def holds(self) -> bool:
        """Whether every count agrees and nearly all matched lesions lie in one place."""
        return self.within == self.scans and self.near >= AIM_NEAR * self.matched


def timed(command: list[str], scans: int, **environment: str) -> Taken:
    """Run a command to its end, start-up included; its output goes to standard error."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=sys.stderr, env={**os.environ, **environment})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(scans, clock, used)


def lab(table: Path, out: Path, scans: int) -> Taken:
    """Time the laboratory's script."""
    return timed([sys.executable, str(LAB), str(table), str(out)], scans)


def ours(table: Path, out: Path, procs: int, protocol: Path | None = None) -> Taken:
    """Time ``epvs-cohort run`` into a fresh output."""
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "epvs_cohort", "run", str(table), "--n-procs", str(procs)]
    command += ["--out", str(out / "counts.parquet")]
    command += [] if protocol is None else ["--protocol", str(protocol)]
    return timed(command, len(pd.read_csv(table)))


def ours_in_pose(table: Path, poses: Path, out: Path) -> None:
    """Count scans in poses that are given, by a run's own functions; tables of counts and lesions."""
    out.mkdir(parents=True)
    given = json.loads(poses.read_text())
    ready = make_ready(RunRequest(table, out / "run.parquet", overwrite=True))
    counts, lesions = [], []
    for scan in ready.discovery.scans:
        pose = Rigid(np.linalg.inv(np.array(given[scan.key])), ())
        with patch.object(scan_module, "register_rigid", lambda *_, pose=pose: pose):
            reference = prepare(scan, ready.order.prepare, {})
        (row,) = infer([Ready(scan, reference.fingerprint)], ready.order)
        if isinstance(row, Exception):
            raise row
        counts.append({"scan": scan.key, "count": row["count"]})
        lesions += [{"scan": scan.key, **lesion} for lesion in row["lesions"]]
    pd.DataFrame(counts).to_parquet(out / "counts.parquet")
    pd.DataFrame(lesions, columns=["scan", "x_mm", "y_mm", "z_mm"]).to_parquet(out / "counts.lesions.parquet")


def agreement(theirs: Path, mine: Path) -> Agreement:
    """Compare the laboratory's two tables with those of a run."""
    counts = pd.read_csv(theirs / "counts.csv").merge(
        pd.read_parquet(mine / "counts.parquet")[["scan", "count"]], on="scan", suffixes=("_lab", "_ours")
    )
    apart = np.abs(counts["count_lab"] - counts["count_ours"]).fillna(np.inf)
    lab_table = pd.read_csv(theirs / "lesions.csv")
    our_table = pd.read_parquet(mine / "counts.lesions.parquet")
    matched = near = 0
    for scan in counts["scan"]:
        pairs = match_lesions(_points(lab_table, scan), _points(our_table, scan), MATCH_MM)
        matched += len(pairs.distance)
        near += int((pairs.distance <= VOXEL_MM).sum())
    return Agreement(
        scans=len(counts),
        within=int((apart <= AIM_COUNT).sum()),
        worst=float(apart.max()),
        lesions=(len(lab_table), len(our_table)),
        matched=matched,
        near=near,
    )


def _points(table: pd.DataFrame, scan: str) -> np.ndarray:
    chosen = table.loc[table["scan"] == scan, ["x_mm", "y_mm", "z_mm"]]
    return chosen.to_numpy(dtype=np.float64)


def simulated_table(work: Path, options: argparse.Namespace) -> Path:
    """Simulate heads; a table with their paths and true outlines."""
    folder = work / "scans"
    simulate_cohort(folder, SimulateOptions(scans=options.heads, seed=SEED, voxel_mm=options.voxel))
    rows = []
    for path in sorted(folder.glob("sub-*/anat/*.nii.gz")):
        person = path.parents[1].name
        truth = folder / "derivatives" / "truth" / person / "anat" / f"{person}_desc-regions_dseg.nii.gz"
        rows.append({"scan": path.name.removesuffix(".nii.gz"), "path": path, "mask": truth})
    pd.DataFrame(rows).to_csv(work / "with_masks.csv", index=False)
    return work / "with_masks.csv"


def times_of(taken: dict[str, Taken]) -> str:
    """Times in Markdown, with ratio and scaling."""
    lines = [
        "| | scans | clock s a scan | scans an hour | processor s a scan |",
        "|---|---|---|---|---|",
    ]
    for name, each in taken.items():
        lines.append(
            f"| {name} | {each.scans} | {each.clock_s / each.scans:.1f} | {each.per_hour:.0f} | "
            f"{each.processor_s / each.scans:.1f} |"
        )
    script, two, one = taken.values()
    ratio, scaling = two.per_hour / script.per_hour, two.per_hour / (2.0 * one.per_hour)
    lines += ["", "| | found | aim | |", "|---|---|---|---|"]
    lines.append(
        f"| times the laboratory's scans an hour | {ratio:.1f} | {AIM_RATIO:g} | {_met(ratio, AIM_RATIO)} |"
    )
    lines.append(
        f"| of perfect scaling, one process to two | {scaling:.2f} | {AIM_SCALING} | {_met(scaling, AIM_SCALING)} |"
    )
    lines.append(f"| processor time, laboratory over ours | {script.processor_s / two.processor_s:.1f} | | |")
    return "\n".join(lines)


def _met(found: float, aim: float) -> str:
    return "met" if found >= aim else "missed"


def checks_of(checks: dict[str, Agreement]) -> str:
    """Agreement in Markdown."""
    lines = [
        "| outline and pose | scans | counts within 0.2 | worst | lesions | matched | within a voxel | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in checks.items():
        lines.append(
            f"| {name} | {each.scans} | {each.within} | {each.worst:.2f} | {each.lesions[0]}, {each.lesions[1]} | "
            f"{each.matched} | {each.near} | {'holds' if each.holds else 'missed'} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description="epvs-cohort beside a laboratory's script.")
    parser.add_argument(
        "scans", nargs="?", type=Path, help="table with scan, path and mask (simulated heads)"
    )
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--voxel", type=parse_voxel, default=DEFAULT_VOXEL_MM, help="of simulated heads, mm")
    parser.add_argument("--check", type=int, default=4, help="scans that both count alike (4)")
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, work: Path) -> tuple[dict[str, Taken], dict[str, Agreement]]:
    """Times of the three commands, and agreement in the same and in each one's own way."""
    given = options.scans if options.scans is not None else simulated_table(work, options)
    table = pd.read_csv(given)
    plain, same, protocol = work / "scans.csv", work / "check.csv", work / "paper.toml"
    table[["scan", "path"]].to_csv(plain, index=False)
    protocol.write_text(PAPER_PROTOCOL)
    taken = {
        "laboratory's script, 2 cores": lab(plain, work / "lab", len(table)),
        "epvs-cohort, 2 processes": ours(plain, work / "two", 2),
        "epvs-cohort, 1 process": ours(plain, work / "one", 1),
    }
    checks = {}
    if options.check and "mask" in table:
        table.head(options.check).to_csv(same, index=False)
        lab(same, work / "lab-same", options.check)
        ours_in_pose(same, work / "lab-same" / "poses.json", work / "posed")
        checks["the same mask and pose"] = agreement(work / "lab-same", work / "posed")
        ours(same, work / "same", 2, protocol)
        checks["the same mask, each its own pose at full resolution"] = agreement(
            work / "lab-same", work / "same"
        )
    checks["each its own way to the region, and pose"] = agreement(work / "lab", work / "two")
    return taken, checks


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    options = parse(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        taken, checks = measure(options, Path(folder))
    busy = "; the machine was busy: quote no clock time of this run" if load > BUSY_LOAD else ""
    sys.stdout.write(f"{os.cpu_count()} cores, load before the start {load:.1f}{busy}\n\n")
    sys.stdout.write(f"{times_of(taken)}\n\n{checks_of(checks)}\n")
    if options.out:
        figures = {
            "load": load,
            "taken": {name: asdict(each) for name, each in taken.items()},
            "agreement": {name: asdict(each) for name, each in checks.items()},
        }
        options.out.write_text(json.dumps(figures, indent=1))
    return 0 if next(iter(checks.values())).holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
