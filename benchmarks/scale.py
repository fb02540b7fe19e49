"""Show how the engine's memory and time grow with the number of scans, on tiny stand-ins for prepared volumes.

Run as ``python benchmarks/scale.py [--sizes 1000,10000,100000]``. Each scan is a file of a kilobyte whose prepared
volume (8 x 8 x 8 voxels) already lies in the store, so that what is left of a scan is the engine itself: the real Dask
scheduler, both kinds of task, prediction by a network of one feature map, detection, and the commit in parts. For each
size two processes of their own run the cohort: the first does 99 % of it, the second goes on with the rest and reads
the tables. Making the stand-ins is not timed.

Told for each size: peak memory of the process that holds driver and scheduler; clock time and that process's own
processor time a scan (the engine's share: workers are other processes); time to go on with 99 % done; files in the
store a scan and part files; time of `read_cohort` and of a few pandas queries. Clock times need an idle machine; its
load is printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from epvs_cohort.cohort.cluster import ClusterChoice
from epvs_cohort.cohort.order import PrepareOrder
from epvs_cohort.cohort.prepare_task import _provenance
from epvs_cohort.cohort.run import RunRequest, execute, make_ready
from epvs_cohort.data.cohort_tables import Cohort, read_cohort
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.geometry import Grid
from epvs_cohort.model.bundle import ModelCard, Requirements, save_bundle
from epvs_cohort.model.bundle_files import NO_HASH
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import GridSettings, Protocol, RoiSettings
from epvs_cohort.records import AcSlice, MniMap, PreparedVolume, QcValue, Scan

log = logging.getLogger("scale")

SHAPE, DONE = (8, 8, 8), 0.99
#: Aims: MiB of the driver, ms of engine a scan, seconds to go on and to read, files a scan.
AIM_MIB, AIM_MS, AIM_RESUME_S, AIM_READ_S, AIM_FILES = 1024.0, 5.0, 60.0, 3.0, 5.0
#: Measures a volume has beside those that detection adds; as many as preparation gives.
MEASURES = 40


def tiny_protocol(work: Path) -> Protocol:
    """Protocol of the tiny grid, with a bundle that fits it."""
    protocol = tiny_protocol_of(work)
    architecture = Architecture(widths=(1,), convs_per_level=1)
    card = ModelCard(
        name="tiny",
        architecture=architecture,
        count_target="roi",
        requires=Requirements.of(protocol),
        trained_on="nothing: random weights to measure the engine with",
        supervision="none",
        weights_sha256=NO_HASH,
    )
    torch.manual_seed(1)
    save_bundle(work / "tiny", card, GpUnet(architecture), "Random weights to measure the engine with.\n")
    return protocol


def tiny_volume(key: str, seed: int) -> PreparedVolume:
    """A prepared volume with a few bright voxels."""
    rng = np.random.default_rng(seed)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return PreparedVolume(
        key=key,
        intensities=rng.random(SHAPE, dtype=np.float32) ** 4,
        labels=np.ones(SHAPE, dtype=np.uint8),
        regions={1: "left putamen"},
        native_from_grid=affine,
        rigid_from_native=np.eye(4),
        mni=MniMap(affine, np.zeros((2, 2, 2, 3)), SHAPE),
        native=Grid(SHAPE, affine),
        ac=AcSlice(2, 4),
        quality=tuple(QcValue(f"measure_{n}", float(rng.random()), "") for n in range(MEASURES)),
    )


def make_cohort(work: Path, size: int) -> Path:
    """Files, prepared volumes and a manifest of so many scans; return the manifest."""
    protocol = tiny_protocol(work)
    order, store = PrepareOrder(protocol, work / "store"), PreparedStore(work / "store")
    rows = []
    for number in range(size):
        folder = work / "scans" / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        path = folder / f"s{number:06d}.nii"
        voxels = np.full(SHAPE, number % 30000, dtype=np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
        scan = Scan(f"s{number:06d}", path)
        store.save(tiny_volume(scan.key, number), _provenance(scan, order, None))
        rows.append({"scan": scan.key, "path": path, "age": 45 + number % 40, "scanner_site": number % 4})
    pd.DataFrame(rows).to_csv(work / "scans.csv", index=False)
    return work / "scans.csv"


def run_once(work: Path, limit: int | None, procs: int) -> dict[str, float]:
    """Run in this very process, which holds driver and scheduler; what it took."""
    request = RunRequest(
        work / "scans.csv",
        work / "counts.parquet",
        protocol=tiny_protocol_of(work),
        store=work / "store",
        discover=DiscoverOptions(limit=limit),
        cluster=ClusterChoice(n_procs=procs),
    )
    clock, own = time.perf_counter(), time.process_time()
    ready = make_ready(request)
    planned = time.perf_counter() - clock
    execute(ready)
    return {
        "todo": len(ready.plan.todo),
        "failed_or_missing": float(_unfinished(read_cohort(work / "counts.parquet"), ready.discovery.scans)),
        "clock_s": time.perf_counter() - clock,
        "plan_s": planned,
        "driver_s": time.process_time() - own,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
    }


def _unfinished(cohort: Cohort, scans: tuple[Scan, ...]) -> int:
    return len(scans) - int((cohort.scans["status"] != "failed").sum())


def tiny_protocol_of(work: Path) -> Protocol:
    """The protocol that `make_cohort` prepared under."""
    return Protocol(
        grid=GridSettings(shape=SHAPE, spacing_mm=(2.0, 2.0, 2.0)),
        # Nothing is outlined, and no worker need load networks for it.
        roi=RoiSettings(method="atlas"),
        model=str(work / "tiny"),
    )


def read_times(work: Path) -> dict[str, float]:
    """Seconds of `read_cohort` and of the queries that an analysis begins with."""
    began = time.perf_counter()
    cohort = read_cohort(work / "counts.parquet")
    read = time.perf_counter() - began
    began = time.perf_counter()
    counted = cohort.scans[cohort.scans["status"] != "failed"]
    counted.groupby(pd.cut(counted["age"], [0, 55, 65, 75, 120]), observed=True)["count"].describe()
    cohort.lesions.groupby(["region", "hemisphere"])[["mni_x_mm", "mni_y_mm", "mni_z_mm"]].agg(
        ["size", "mean"]
    )
    cohort.qc.pivot_table(index="scan", columns="measure", values="value").corr()
    return {"read_s": read, "queries_s": time.perf_counter() - began, "lesions": float(len(cohort.lesions))}


def child(arguments: list[str]) -> dict[str, float]:
    """Run a step in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(size: int, work: Path, procs: int) -> dict[str, float]:
    """All figures of one size."""
    make_cohort(work, size)
    most = max(int(DONE * size), 1)
    first = child(["--step", "run", "--work", str(work), "--limit", str(most), "--procs", str(procs)])
    parts = len(list((work / "counts.parts").glob("*.parquet")))
    rest = child(["--step", "run", "--work", str(work), "--procs", str(procs)])
    if first["todo"] != most or rest["todo"] != size - most or rest["failed_or_missing"]:
        raise SystemExit(f"{size}: not every scan was counted once: {first}, {rest}")
    folders = [entry for entry in os.scandir(work / "store") if entry.is_dir()]
    files = max(len(os.listdir(entry.path)) for entry in folders)
    return {
        "scans": size,
        "peak_mib": max(first["peak_mib"], rest["peak_mib"]),
        "clock_ms": 1000 * first["clock_s"] / most,
        "engine_ms": 1000 * first["driver_s"] / most,
        "resume_s": rest["clock_s"],
        "files": files,
        "parts": parts,
        **child(["--step", "read", "--work", str(work)]),
    }


def table_of(found: list[dict[str, float]]) -> str:
    """Figures in Markdown, aims beside them."""
    rows: dict[str, tuple[str, str]] = {
        "peak_mib": ("driver and scheduler, peak MiB", f"{AIM_MIB:.0f}, and flat within 10 %"),
        "engine_ms": ("engine a scan, ms of its processor time", f"{AIM_MS:g}"),
        "clock_ms": ("whole run a scan, ms by the clock", ""),
        "resume_s": ("to go on with 99 % done, s", f"{AIM_RESUME_S:g}"),
        "files": ("files a scan in the store, at most", f"{AIM_FILES:g}"),
        "parts": ("part files after the run", "bounded"),
        "read_s": ("`read_cohort`, s", f"{AIM_READ_S:g}"),
        "queries_s": ("three pandas queries, s", ""),
    }
    head = "| | " + " | ".join(f"{each['scans']:,.0f}" for each in found) + " | aim |"
    lines = [head, "|---" * (len(found) + 2) + "|"]
    for name, (label, aim) in rows.items():
        cells = " | ".join(f"{each[name]:,.{0 if each[name] >= 100 else 1}f}" for each in found)
        lines.append(f"| {label} | {cells} | {aim} |")
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command; --step is what it calls itself with."""
    parser = argparse.ArgumentParser(description="Memory and time of the engine as the cohort grows.")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    parser.add_argument("--step", choices=("run", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="folder that the stand-ins are made in (a temporary one)")
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or take one step of one size."""
    options = parse(arguments)
    if options.step:
        step = run_once(options.work, options.limit, options.procs) if options.step == "run" else None
        sys.stdout.write(json.dumps(step if step is not None else read_times(options.work)) + "\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = []
    for size in (int(text) for text in options.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            found.append(measure(size, Path(work), options.procs))
        log.info("%s", found[-1])
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"{os.cpu_count()} cores, load {load:.1f}, {options.procs} processes\n\n{table_of(found)}\n"
    )
    if options.out:
        options.out.write_text(json.dumps({"load": load, "found": found}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
