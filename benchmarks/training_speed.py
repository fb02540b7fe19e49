"""Time training on counted scans against a plain loop with the same network and batch, in the same run.

Run ``python benchmarks/training_speed.py``; neither ITK nor Dask is needed. A few volumes are simulated on the
prepared grid, of the one bundled label map, with the mask that its basal ganglia give, and put into a prepared store.

* *Ours* is what ``epvs-cohort train SCANS`` does (`train.counted.train_counted`): volumes read from the store.
* *Plain* is what a laboratory would write: the whole crop as contiguous float32 tensors that are in memory already, the
  whole batch through the network at once, squared error, the same optimizer and the same random transformations.

Both run in a process of their own, in turns, and the first step of each turn is not timed. Printed are scans a second,
the median over the turns, and the ratio (aim on a CPU: at least 3). On a GPU the plain loop's convolutions use TF32,
which is torch's default.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.model.predict import bfloat16_is_fast, needed_box
from epvs_cohort.protocol import GridSettings, Protocol
from epvs_cohort.train.augment import augment
from epvs_cohort.train.counted import CountedOrder, train_counted
from epvs_cohort.train.loop import RunSettings, new_network
from epvs_cohort.train.objective import squared_error
from epvs_cohort.train.optimizers import clip_gradients, optimizer_named, parameter_groups, set_rate
from epvs_cohort.train.recipe import ScanRecipe, load_recipe
from epvs_cohort.train.samples import Sample, Split
from epvs_cohort.train.scan_state import TrainState
from epvs_cohort.train.scenes import Order, volumes_of

log = logging.getLogger("training_speed")

#: Ours ends with a validation and an export, which are not timed; two volumes are the fewest.
N_VALIDATION = 2
AIM = 3.0
WAYS = ("plain", "ours")
#: Seconds of processor time are of all threads together, so that with several threads only the ratio means something.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Options:
    """What both loops are given."""

    shape: tuple[int, int, int]
    widths: tuple[int, ...]
    batch: int
    steps: int
    turns: int
    threads: int
    devices: tuple[str, ...]
    recipe: str
    clock: str

    @property
    def protocol(self) -> Protocol:
        """The default one, on another grid where one is asked for."""
        return Protocol(grid=GridSettings(shape=self.shape))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make volumes, run both loops in turns, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = parse(arguments)
    options = options_of(given)
    if given.way is not None:
        print(json.dumps(timed(given.way, given.device, given.store, options)))
        return
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "prepared"
        facts = draw(store, options)
        text = sys.argv[1:] if arguments is None else list(arguments)
        found = {device: turns_of(device, store, options, text) for device in options.devices}
    print(table_of(found, facts, options))
    if given.out is not None:
        record = {
            "volumes": facts,
            "batch": options.batch,
            "threads": options.threads,
            "scans_per_second": found,
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--shape", default="168,128,84", help="voxels of a volume; a smaller one only tries the command out")
    add("--widths", default="8,16,32", help="feature maps of each level")
    add("--batch", type=int, default=4, help="scans in a step")
    add("--steps", type=int, default=3, help="timed steps of a turn")
    add("--turns", type=int, default=3)
    add("--quick", action="store_true", help="one turn of one step")
    add("--threads", type=int, default=_cores())
    add("--device", choices=["cpu", "cuda"], help="only this one; else the CPU, and a GPU where there is one")
    add(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="processor: for a machine that does other work too",
    )
    add("--recipe", default="paper", help="optimizer and transformations")
    add("--out", type=Path, help="file for the figures")
    add("--way", choices=WAYS, help=argparse.SUPPRESS)
    add("--store", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def options_of(given: argparse.Namespace) -> Options:
    """The command line, checked."""
    i, j, k = (int(side) for side in given.shape.split(","))
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return Options(
        shape=(i, j, k),
        widths=tuple(int(width) for width in given.widths.split(",")),
        batch=given.batch,
        steps=1 if given.quick else given.steps,
        turns=1 if given.quick else given.turns,
        threads=given.threads,
        devices=devices if given.device is None else (given.device,),
        recipe=given.recipe,
        clock=given.clock,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw(store: Path, options: Options) -> dict[str, Any]:
    """Simulate the volumes of one batch and those of a validation."""
    seeds = tuple((7, n) for n in range(options.batch + N_VALIDATION))
    drawn = volumes_of(Order(None, seeds, options.protocol))
    for each in drawn:
        provenance = Provenance(each.volume.key, options.protocol.prepare_id, "simulated", "", "", {}, 0.0)
        PreparedStore(store).save(each.volume, provenance)
    counts = {each.volume.key: each.count for each in drawn}
    (store / "counts.json").write_text(json.dumps(counts))
    labels = [each.volume.labels for each in drawn]
    architecture = Architecture(widths=options.widths)
    boxes = [each[needed_box(each, architecture)].size for each in labels]
    return {
        "shape": list(options.shape),
        "mask_share": float(np.mean([(each > 0).mean() for each in labels])),
        "box_share": float(np.mean(boxes)) / float(np.prod(options.shape)),
    }


def turns_of(device: str, store: Path, options: Options, arguments: list[str]) -> dict[str, list[float]]:
    """Scans a second of each way in each turn."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.turns):
        # The first of a turn finds the machine cooler or warmer: it is another one each time.
        for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
            command = [sys.executable, str(Path(__file__).resolve()), *arguments]
            command += ["--way", way, "--device", device, "--store", str(store)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1])["scans_per_second"])
            log.info("%s, turn %d, %s: %.4f scans/s", device, turn + 1, way, found[way][-1])
    return found


def timed(way: str, device: str, store: Path, options: Options) -> dict[str, float]:
    """One turn of one way, in this process."""
    seconds = (ours if way == "ours" else plain)(device, store, options)
    return {"scans_per_second": options.batch * options.steps / seconds}


def recipe_of(options: Options) -> ScanRecipe:
    """The recipe with the sizes asked for, and nothing in it that takes time besides steps."""
    recipe = load_recipe(options.recipe)
    if not isinstance(recipe, ScanRecipe) or recipe.architecture is None:
        raise SystemExit(
            f"recipe {options.recipe}: one that trains counted scans of random weights is needed"
        )
    architecture = recipe.architecture.model_copy(update={"widths": options.widths})
    return recipe.model_copy(
        update={
            "architecture": architecture,
            "batch": options.batch,
            "set_size": 1,
            "norm_volumes": 1,
            "frozen_norm_from": 1.0,
            "validate_every": 10**9,
        }
    )


def samples_of(store: Path) -> list[Sample]:
    """The volumes with their counts, the last of them for validation."""
    counts = json.loads((store / "counts.json").read_text())
    folder = PreparedStore(store).folder
    return [Sample(key, str(n), folder(key), float(counts[key]), 1) for n, key in enumerate(counts)]


def ours(device: str, store: Path, options: Options) -> float:
    """Seconds of the timed steps of ``epvs-cohort train``: one batch is one epoch."""
    samples = samples_of(store)
    marks: list[float] = []

    def watch(state: TrainState) -> None:
        _wait(device)
        marks.append(CLOCKS[options.clock]())

    with tempfile.TemporaryDirectory() as name:
        run = RunSettings(
            out=Path(name) / "model",
            checkpoint_minutes=1e9,
            device="cuda" if device == "cuda" else "cpu",
            epochs=options.steps + 1,
            threads=options.threads,
        )
        split = Split(tuple(samples[: options.batch]), tuple(samples[options.batch :]))
        train_counted(CountedOrder(split, recipe_of(options), options.protocol, run), watch)
    return marks[-1] - marks[0]


def plain(device: str, store: Path, options: Options) -> float:
    """Seconds of the timed steps of the plain loop."""
    torch.set_num_threads(options.threads)
    recipe, samples = recipe_of(options), samples_of(store)[: options.batch]
    volumes = [PreparedStore(store).load(sample.key).volume for sample in samples]
    intensities = torch.from_numpy(np.stack([volume.intensities for volume in volumes])[:, None])
    mask = torch.from_numpy(np.stack([volume.mask for volume in volumes])[:, None])
    truth = torch.tensor([sample.count for sample in samples], device=device)
    architecture = recipe.architecture or Architecture()
    network: GpUnet = new_network(architecture, 1, batch_norm=recipe.batch_norm).to(device).train()
    optimizer = optimizer_named(recipe.optimizer, parameter_groups(network, recipe.weight_decay))
    set_rate(optimizer, recipe.learning_rate)
    generator = torch.Generator(device).manual_seed(1)
    marks: list[float] = []
    for _ in range(options.steps + 1):
        given = augment(intensities.to(device), mask.to(device), recipe.augment, generator)
        optimizer.zero_grad(set_to_none=True)
        loss = squared_error(network(*given), truth).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(network.parameters(), recipe.gradient_norm)
        optimizer.step()
        _wait(device)
        marks.append(CLOCKS[options.clock]())
    return marks[-1] - marks[0]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def table_of(found: dict[str, dict[str, list[float]]], facts: dict[str, Any], options: Options) -> str:
    """Markdown table of the medians."""
    lines = [
        f"Volumes of {' x '.join(str(n) for n in facts['shape'])} voxels, {facts['mask_share']:.0%} in the mask, "
        f"{facts['box_share']:.0%} in the box that it needs; widths {'/'.join(str(w) for w in options.widths)}, batch "
        f"{options.batch}, {options.turns} turns of {options.steps} steps, {options.threads} threads, "
        f"{options.clock} time, torch {torch.__version__}.",
        "",
        "| device | plain, scans/s | ours, scans/s | ratio |",
        "|---|---|---|---|",
    ]
    for device, ways in found.items():
        slow, fast = median(ways["plain"]), median(ways["ours"])
        name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        half = ", bfloat16" if bfloat16_is_fast("cuda" if device == "cuda" else "cpu") else ""
        verdict = (
            ""
            if device == "cuda"
            else f" ({'reached' if fast / slow >= AIM else 'MISSED'}: at least {AIM:g})"
        )
        lines.append(f"| {name}{half} | {slow:.4f} | {fast:.4f} | {fast / slow:.2f}{verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
