"""Run the benchmarks that fit into twenty minutes of two idle cores, and write their figures into one table.

``make bench`` runs this. Every row has what was found, the aim and the ratio of the two, above 1 where the aim is met;
each benchmark's own table, with all that does not fit a row, is printed as it comes and lies beside the table of all.
A figure by the clock from a busy machine means nothing, so the load before each benchmark is in the table too.
`gpu.py` runs where torch finds a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import against_lab
import gpu
import numpy as np
import scale
import stages
import torch

HERE = Path(__file__).parent
#: Benchmark to its options, in full and in the small form that only shows that it works.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "stages": (("--heads", "3"), ("--heads", "1", "--voxel", "2,2,2", "--repeats", "1")),
    "against_lab": (
        ("--heads", "4", "--check", "2"),
        ("--heads", "1", "--voxel", "2,2,2", "--check", "1"),
    ),
    "scale": (("--sizes", "1000,4000"), ("--sizes", "12,40", "--procs", "1")),
    "gpu": ((), ("--device", "cpu", "--shape", "16,16,16", "--volumes", "2", "--seconds", "0.01")),
}
#: Of these a check may fail: then the exit code is 1, and the figures are there all the same.
CHECKED = ("against_lab",)


@dataclass(frozen=True)
class Row:
    """One figure; ``least`` where it must be at least the aim, else at most."""

    name: str
    found: float
    aim: float
    unit: str
    least: bool = False

    @property
    def ratio(self) -> float:
        """Above 1 where the aim is met with room."""
        return self.found / self.aim if self.least else self.aim / max(self.found, 1e-9)


def run(name: str, options: tuple[str, ...], out: Path) -> tuple[dict[str, Any], float]:
    """Run one benchmark; its figures and the load of the machine before it."""
    load = os.getloadavg()[0]
    command = [sys.executable, str(HERE / f"{name}.py"), *options, "--out", str(out / f"{name}.json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in ((0, 1) if name in CHECKED else (0,)):
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
    (out / f"{name}.md").write_text(done.stdout)
    sys.stdout.write(f"## {name}\n\n{done.stdout}\n")
    sys.stdout.flush()
    figures: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return figures, load


def rows_of(name: str, figures: dict[str, Any]) -> list[Row]:
    """Figures of one benchmark that have an aim."""
    return {"stages": _stages, "against_lab": _lab, "scale": _scale, "gpu": _gpu}[name](figures)


def _stages(figures: dict[str, Any]) -> list[Row]:
    scans = list(figures["seconds"].values())
    found = []
    for label, (parts, aim) in stages.TARGETS.items():
        seconds = sum(float(np.median([each[part] for each in scans])) for part in parts)
        found.append(Row(f"one core: {label}", seconds, aim, "s"))
    return found


def _lab(figures: dict[str, Any]) -> list[Row]:
    script, two, one = (3600.0 * each["scans"] / each["clock_s"] for each in figures["taken"].values())
    checked = next(iter(figures["agreement"].values()))
    return [
        Row("times the laboratory's scans an hour", two / script, against_lab.AIM_RATIO, "", least=True),
        Row("of perfect scaling to two processes", two / (2 * one), against_lab.AIM_SCALING, "", least=True),
        Row("counted alike: worst difference of a count", checked["worst"], against_lab.AIM_COUNT, ""),
        Row(
            "counted alike: lesions within a voxel",
            checked["near"] / max(checked["matched"], 1),
            against_lab.AIM_NEAR,
            "",
            least=True,
        ),
    ]


def _scale(figures: dict[str, Any]) -> list[Row]:
    small, large = figures["found"][0], figures["found"][-1]
    size = f"{large['scans']:,.0f} scans"
    return [
        Row(f"{size}: driver, peak", large["peak_mib"], scale.AIM_MIB, "MiB"),
        Row(
            f"{size}: peak over that of {small['scans']:,.0f}", large["peak_mib"] / small["peak_mib"], 1.1, ""
        ),
        Row(f"{size}: engine a scan", large["engine_ms"], scale.AIM_MS, "ms"),
        Row(f"{size}: go on with 99 % done", large["resume_s"], scale.AIM_RESUME_S, "s"),
        Row(f"{size}: read_cohort", large["read_s"], scale.AIM_READ_S, "s"),
        Row("files a scan in the store", large["files"], scale.AIM_FILES, ""),
    ]


def _gpu(figures: dict[str, Any]) -> list[Row]:
    epoch = gpu.EPOCH / figures["training_per_s"]
    return [
        Row(
            "GPU: bundled, from disk, scans a second",
            figures["from_disk_per_s"],
            gpu.AIM_PER_S,
            "",
            least=True,
        ),
        Row(f"GPU: epoch of {gpu.EPOCH} at the paper's size", epoch, gpu.AIM_EPOCH_S, "s"),
    ]


def table_of(found: dict[str, tuple[list[Row], float]]) -> str:
    """All rows in Markdown."""
    lines = ["| | found | aim | ratio | | load before |", "|---|---|---|---|---|---|"]
    for rows, load in found.values():
        for row in rows:
            bound = "at least" if row.least else "at most"
            met = "met" if row.ratio >= 1.0 else "missed"
            lines.append(
                f"| {row.name} | {row.found:.3g} {row.unit} | {bound} {row.aim:g} {row.unit} | "
                f"{row.ratio:.2f} | {met} | {load:.1f} |"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run them all and write the table."""
    parser = argparse.ArgumentParser(description="All benchmarks in one table.")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder (out/bench)")
    parser.add_argument("--small", action="store_true", help="only show that each of them works")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in COMMANDS if name != "gpu" or options.small or torch.cuda.is_available()]
    found = {}
    for name in names:
        figures, load = run(name, COMMANDS[name][options.small], options.out)
        found[name] = rows_of(name, figures), load
    table = table_of(found)
    (options.out / "table.md").write_text(table + "\n")
    sys.stdout.write(f"## all\n\n{table}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
