"""Time ``epvs-cohort simulate``: scans an hour, seconds of processor time each, and memory from first to last.

Run ``python benchmarks/simulation_speed.py [--heads 6] [--volumes 24] [--n-procs 2] [--anatomies DIR]``. Whole heads of
0.49 x 0.49 x 0.8 mm and prepared volumes are simulated into a temporary folder, as the command does. Starting up is
not timed: the clock starts when every process may have finished a scan. Two rates are printed: by the clock, which a
busy machine makes smaller, and by processor time, which is what so many idle cores would do. Memory is the largest sum
over all processes of what they hold (resident, shared pages counted in each), sampled five times a second: until the
clock starts, until half of the scans are done, and until the end. It grows until each process has seen each label map.
Aims, on two cores: 300 whole heads or 2,000 prepared volumes an hour, memory flat.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from epvs_cohort.cli.simulate import parse_voxel
from epvs_cohort.protocol import Protocol, load_protocol
from epvs_cohort.simulate.cohort import DEFAULT_VOXEL_MM, SimulateOptions, simulate_cohort

AIMS = {"whole heads": 300, "prepared volumes": 2000}
SAMPLE_SECONDS = 0.2
SEED = 1
MIB = 2**20

log = logging.getLogger("simulation_speed")


@dataclass(frozen=True)
class Mark:
    """How things stand after some scans: clock and processor seconds, and the peak of memory so far in MiB."""

    done: int
    clock: float
    processor: float
    peak_mib: float


@dataclass(frozen=True)
class Speed:
    """What one kind of scan took.

    Attributes
    ----------
    scans : int
        Timed.
    clock_seconds, processor_seconds : float
        For each of them; of processor time all processes together.
    peaks_mib : tuple of float
        Until the clock started, until half of the scans, until the end.
    """

    scans: int
    clock_seconds: float
    processor_seconds: float
    peaks_mib: tuple[float, float, float]


class Watch:
    """Processor time and memory of this process and all below it."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._peak = 0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Follow memory until the block ends."""
        thread = threading.Thread(target=self._sample)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def mark(self, done: int) -> Mark:
        """How things stand now."""
        processor = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                processor += times.user + times.system
        return Mark(done, time.perf_counter(), processor, self._peak / MIB)

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            held = 0
            for process in self._family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    held += process.memory_info().rss
            self._peak = max(self._peak, held)

    def _family(self) -> list[psutil.Process]:
        return [self._me, *self._me.children(recursive=True)]


def speed_of(out: Path, options: SimulateOptions) -> Speed:
    """Simulate a data set and tell what its scans took."""
    watch = Watch()
    marks: list[Mark] = []

    def note(done: int, asked: int) -> None:
        marks.append(watch.mark(done))
        log.info("%d of %d", done, asked)

    with watch.sampling():
        simulate_cohort(out, options, note)
    return between(marks, options.n_procs)


def between(marks: list[Mark], n_procs: int) -> Speed:
    """Seconds each between the mark after one scan a process and the last mark."""
    first, half, last = marks[n_procs - 1], marks[len(marks) // 2], marks[-1]
    scans = last.done - first.done
    return Speed(
        scans=scans,
        clock_seconds=(last.clock - first.clock) / scans,
        processor_seconds=(last.processor - first.processor) / scans,
        peaks_mib=(first.peak_mib, half.peak_mib, last.peak_mib),
    )


def table_of(found: dict[str, Speed], n_procs: int) -> str:
    """Markdown table."""
    cores = f"{n_procs} idle core" + ("s" if n_procs > 1 else "")
    lines = [
        f"| | scans timed | an hour, by the clock | an hour on {cores} | aim on 2 | processor s each | "
        "peak MiB: start, half, end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, speed in found.items():
        by_clock, idle = 3600.0 / speed.clock_seconds, 3600.0 * n_procs / speed.processor_seconds
        peaks = ", ".join(f"{peak:.0f}" for peak in speed.peaks_mib)
        lines.append(
            f"| {name} | {speed.scans} | {by_clock:.0f} | {idle:.0f} | {AIMS[name]} | "
            f"{speed.processor_seconds:.2f} | {peaks} |"
        )
    return "\n".join(lines)


def wanted(chosen: argparse.Namespace) -> dict[str, SimulateOptions]:
    """The data sets to time, by the name of their row."""
    protocol = Protocol() if chosen.protocol is None else load_protocol(chosen.protocol)
    people = {"seed": SEED, "kind": "training", "anatomies": chosen.anatomies, "n_procs": chosen.n_procs}
    return {
        "whole heads": SimulateOptions(scans=chosen.heads, voxel_mm=chosen.voxel, **people),
        "prepared volumes": SimulateOptions(scans=chosen.volumes, prepared=True, protocol=protocol, **people),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Speed and memory of the simulator.")
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--volumes", type=int, default=24)
    parser.add_argument("--n-procs", type=int, default=2)
    parser.add_argument("--anatomies", type=Path, help="folder of label maps (the bundled one)")
    parser.add_argument(
        "--voxel", type=parse_voxel, default=DEFAULT_VOXEL_MM, help="of whole heads, I,J,K in mm"
    )
    parser.add_argument("--protocol", help="grid of prepared volumes (the default protocol's)")
    chosen = parser.parse_args()
    if min(chosen.heads, chosen.volumes) <= chosen.n_procs or chosen.n_procs < 1:
        parser.error("more scans than processes are needed: the first one of each process is not timed")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, options in wanted(chosen).items():
            log.info("%s", name)
            found[name] = speed_of(Path(work) / name.split()[1], options)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(
        f"{os.cpu_count()} cores, load {load} (1, 5 and 15 minutes), {chosen.n_procs} processes\n"
    )
    sys.stdout.write(table_of(found, chosen.n_procs) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
