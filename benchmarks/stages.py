"""Show each stage's share of one scan on one core, its target, and how far it is from the machine's limit.

Run as ``python benchmarks/stages.py [SCANS]``, where SCANS is whatever ``epvs-cohort run`` takes; without it
``--heads`` full-size heads (408 x 490 x 238 voxels, 95 MB of int16 as gzip) are simulated. Every scan goes through
the very functions of a run, in this process, ``--repeats`` times into a fresh store; a stage's figure is the median
over scans of the fastest repeat, in seconds of processor time, which other work on the machine disturbs least.
Start-up (imports, elastix, the model) is shown on its own: a run pays it once a process.

The limits are measured in the same process: a plain copy for memory, a float32 matrix product for arithmetic, the
fastest inflater at hand for gzip. How each follows from the scan stands in ``limits.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from limits import Limit, Machine, Prepared, inflate_seconds, limits_of, measure_machine
from stage_clock import PLACES, REST, StageClock

from epvs_cohort.cli.simulate import parse_voxel
from epvs_cohort.cohort.infer_task import Ready, infer
from epvs_cohort.cohort.order import RunOrder
from epvs_cohort.cohort.prepare_task import prepare
from epvs_cohort.cohort.run import RunRequest, make_ready
from epvs_cohort.data.parts import Parts
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.roi_bundle import load_roi_pair
from epvs_cohort.protocol import Protocol, RoiSettings
from epvs_cohort.records import Scan
from epvs_cohort.simulate.cohort import DEFAULT_VOXEL_MM, SimulateOptions, simulate_cohort

IMPORTED_S = time.process_time()

log = logging.getLogger("stages")

SEED = 71
RoiMethod = Literal["network", "atlas"]
#: Targets in seconds of one core; of read and gunzip it is the limit itself.
TARGETS: dict[str, tuple[tuple[str, ...], float]] = {
    "registration and ROI": (("rigid registration", "looks by networks", "outline"), 3.0),
    "resample, mask, trim": (("resample, mask, trim",), 0.4),
    "inference": (("inference",), 1.0),
    "detection": (("detection",), 0.3),
    "writing": (("writing",), 0.05),
    "one scan": ((*PLACES, REST), 5.5),
}


@dataclass(frozen=True)
class Measured:
    """One scan: seconds by stage, limits, and seconds by inflater."""

    key: str
    seconds: dict[str, float]
    limits: dict[str, Limit]
    inflate: dict[str, float]


def measure_scan(scan: Scan, order: RunOrder, repeats: int, machine: Machine) -> Measured:
    """Put one scan through a run's own functions; each repeat prepares, counts and commits it anew."""
    clocks = []
    for _ in range(repeats):
        work = Path(tempfile.mkdtemp(dir=order.prepare.store.parent))
        fresh = replace(order, prepare=replace(order.prepare, store=work / "store"))
        store, clock = PreparedStore(fresh.prepare.store), StageClock()
        with clock.running():
            reference = prepare(scan, fresh.prepare, {})
            (row,) = infer([Ready(scan, reference.fingerprint)], fresh)
            if isinstance(row, Exception):
                raise row
            Parts(work / "parts").write([row])
        clocks.append(clock.seconds)
    folder = store.folder(scan.key)
    written = sum(file.stat().st_size for file in folder.iterdir())
    architecture = load_bundle(order.infer.model).card.architecture
    roi = order.prepare.protocol.roi
    looks = load_roi_pair(roi.head_model, roi.near_model) if order.prepare.roi_model_id else None
    prepared = Prepared(store.load(scan.key).volume, written)
    return Measured(
        key=scan.key,
        seconds={stage: min(clock.get(stage, 0.0) for clock in clocks) for stage in (*PLACES, REST)},
        limits=limits_of(scan.path, prepared, architecture, machine, looks),
        inflate=inflate_seconds(scan.path),
    )


def medians(found: list[Measured]) -> dict[str, float]:
    """Median over scans of the seconds of each stage."""
    return {stage: float(np.median([each.seconds[stage] for each in found])) for stage in (*PLACES, REST)}


def table_of(found: list[Measured]) -> str:
    """Stages in Markdown, with shares, limits and distance from them."""
    seconds = medians(found)
    total = sum(seconds.values())
    lines = [
        "| stage | s | share | limit s | by | times the limit |",
        "|---|---|---|---|---|---|",
    ]
    for stage, took in seconds.items():
        known = [each.limits[stage] for each in found if stage in each.limits]
        cells = "– | – | –"
        if known:
            least = float(np.median([limit.seconds for limit in known]))
            cells = f"{least:.4f} | {known[0].by} | {took / least:.1f}"
        lines.append(f"| {stage} | {took:.3f} | {took / total:.0%} | {cells} |")
    lines.append(f"| one scan | {total:.3f} | 100% | | | |")
    return "\n".join(lines)


def targets_of(found: list[Measured]) -> str:
    """Targets in Markdown: reached or missed."""
    seconds = medians(found)
    lines = ["| | s | target | |", "|---|---|---|---|"]
    for name, (stages, target) in TARGETS.items():
        took = sum(seconds[stage] for stage in stages)
        lines.append(f"| {name} | {took:.2f} | {target:g} | {'met' if took <= target else 'missed'} |")
    return "\n".join(lines)


def inflaters_of(found: list[Measured]) -> str:
    """Seconds of each inflater that is at hand, for the whole file in memory."""
    names = [name for name in found[0].inflate if all(name in each.inflate for each in found)]
    told = [f"{name} {np.median([each.inflate[name] for each in found]):.3f} s" for name in names]
    return "gunzip alone: " + (", ".join(told) if told else "the scans are not gzip files")


def order_for(scans: Path, work: Path, method: RoiMethod | None) -> tuple[tuple[Scan, ...], RunOrder]:
    """Scans and order of a run with the default protocol, but for the way to the region, that does everything anew."""
    protocol = Protocol() if method is None else Protocol(roi=RoiSettings(method=method))
    ready = make_ready(RunRequest(scans, work / "counts.parquet", protocol=protocol, overwrite=True))
    return ready.discovery.scans, ready.order


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description="Each stage's share of one scan on one core.")
    parser.add_argument("scans", nargs="?", type=Path, help="folder or manifest (simulated heads)")
    parser.add_argument("--heads", type=int, default=3, help="simulated where SCANS is not given (3)")
    parser.add_argument("--voxel", type=parse_voxel, default=DEFAULT_VOXEL_MM, help="of simulated heads, mm")
    parser.add_argument(
        "--roi", choices=("network", "atlas"), help="way to the region (the default protocol's)"
    )
    parser.add_argument("--limit", type=int, help="the first so many scans")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON with seconds and limits of every scan")
    return parser.parse_args(arguments)


def measure_all(options: argparse.Namespace, work: Path) -> tuple[list[Measured], Machine, float]:
    """Measure every scan; also the machine, and the seconds of start-up."""
    scans = options.scans
    if scans is None:
        scans = work / "scans"
        simulate_cohort(scans, SimulateOptions(scans=options.heads, seed=SEED, voxel_mm=options.voxel))
    chosen, order = order_for(scans, work, options.roi)
    machine = measure_machine()
    # The first scan pays for what is loaded on demand, and goes through once more with the others.
    first = sum(measure_scan(chosen[0], order, 1, machine).seconds.values())
    found = []
    for scan in chosen[: options.limit]:
        found.append(measure_scan(scan, order, options.repeats, machine))
        log.info("%s: %.2f s", scan.key, sum(found[-1].seconds.values()))
    return found, machine, IMPORTED_S + first - sum(found[0].seconds.values())


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        found, machine, start_up = measure_all(options, Path(work))
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"{len(found)} scans, {options.repeats} repeats, one core; load of the machine {load:.1f}; "
        f"copy {machine.copy_bytes_per_s / 1e9:.1f} GB/s, {machine.flop_per_s / 1e9:.0f} Gflop/s; "
        f"start-up of a process {start_up:.1f} s\n\n"
    )
    sys.stdout.write(f"{table_of(found)}\n\n{inflaters_of(found)}\n\n{targets_of(found)}\n")
    if options.out:
        options.out.write_text(json.dumps(report_of(found, machine), indent=1))
    return 0


def report_of(found: list[Measured], machine: Machine) -> dict[str, object]:
    """All figures, for other programs."""
    return {
        "machine": {"copy_bytes_per_s": machine.copy_bytes_per_s, "flop_per_s": machine.flop_per_s},
        "seconds": {each.key: each.seconds for each in found},
        "limits": {
            each.key: {stage: limit.seconds for stage, limit in each.limits.items()} for each in found
        },
        "inflate": {each.key: each.inflate for each in found},
    }


if __name__ == "__main__":
    raise SystemExit(main())
