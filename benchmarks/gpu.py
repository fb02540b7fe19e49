"""Scans a second on a GPU by batch size, and how near that is to what the device can do.

Neither ITK nor Dask is needed. Run as ``python benchmarks/gpu.py [--device cuda]`` (with ``--device cpu`` and a small
``--shape`` it shows that it works). Volumes of the prepared grid with a mask of two ellipsoids are made once and kept
in a prepared store.

* *In memory*: convolutions, pooling and heat of batches that lie on the device, bfloat16 and channels last, for the
  bundled network and for one of the paper's size (32, 64 and 128 feature maps, random weights); against plain float32,
  contiguous, one volume at a time, without TF32. The share of the peak is of this device's bfloat16 matrix product,
  measured in the same process.
* *From disk*: `model.predict.Predictor` on volumes read from the store with their checksums, by threads that read
  ahead (``--readers``); the trace of `torch.profiler` (``--trace FILE``, for a browser's about:tracing) shows what
  overlaps. Reading overlaps with computing; a batch's transfer does not overlap with its own computing.
* *Training*: forward, backward and the optimizer's step at the paper's size, from which an epoch of 1289 follows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from epvs_cohort.data.store import PreparedStore, Provenance
from epvs_cohort.geometry import Grid
from epvs_cohort.model.bundle import Bundle, load_bundle
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.model.predict import Predictor
from epvs_cohort.records import MniMap, Prediction, PreparedVolume

BUNDLED = "gp-unet-sim"
PAPER_WIDTHS, EPOCH = (32, 64, 128), 1289
AIM_PER_S, AIM_EPOCH_S = 100.0, 60.0
SPACING = (0.49, 0.49, 0.8)


@dataclass(frozen=True)
class Rate:
    """Scans a second of one way, and operations a second."""

    network: str
    way: str
    batch: int
    per_s: float
    flop_per_s: float


def volume(key: str, shape: tuple[int, int, int], seed: int) -> PreparedVolume:
    """Noise within two ellipsoids, a fifth of the grid as in prepared scans."""
    rng = np.random.default_rng(seed)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    mask = np.zeros(shape, dtype=bool)
    for middle in (0.3, 0.7):
        far = ((i / shape[0] - middle) / 0.16) ** 2 + ((j / shape[1] - 0.5) / 0.37) ** 2
        mask |= far + ((k / shape[2] - 0.5) / 0.38) ** 2 < 1
    affine = np.diag([*SPACING, 1.0])
    return PreparedVolume(
        key=key,
        intensities=np.where(mask, rng.random(shape, dtype=np.float32), np.float32(0)),
        labels=mask.astype(np.uint8),
        regions={1: "left putamen"},
        native_from_grid=affine,
        rigid_from_native=np.eye(4),
        mni=MniMap(affine, np.zeros((2, 2, 2, 3)), shape),
        native=Grid(shape, affine),
        ac=None,
        quality=(),
    )


def timed(work: Callable[[], object], device: torch.device, least_s: float) -> float:
    """Seconds of one call, over at least ``least_s`` after one that is not counted."""
    work()
    _settle(device)
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < least_s:
        work()
        _settle(device)
        calls += 1
    return (time.perf_counter() - began) / calls


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def flop_of(network: GpUnet, shape: tuple[int, int, int]) -> float:
    """Operations of the convolutions over one volume."""
    from limits import convolution_flop

    return convolution_flop(network.architecture, shape)


def peak_flop(device: torch.device, least_s: float) -> float:
    """bfloat16 matrix product of the device, operations a second."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.ones(size, size, dtype=torch.bfloat16, device=device)
    return 2.0 * size**3 / timed(lambda: a @ a, device, least_s)


def in_memory(name: str, network: GpUnet, options: argparse.Namespace) -> list[Rate]:
    """Rates of plain float32 and of bfloat16 by batch size, on volumes that lie on the device."""
    device = torch.device(options.device)
    flop = flop_of(network, options.shape)
    network = network.to(device).eval().requires_grad_(False)
    inside = torch.from_numpy(volume("mask", options.shape, 0).mask)[None, None].to(device)
    rates = []
    ways: list[tuple[str, int]] = [("plain float32", 1), *(("bfloat16", batch) for batch in options.batches)]
    for way, batch in ways:
        half = way == "bfloat16"
        layout = torch.channels_last_3d if half else torch.contiguous_format
        placed = network.to(memory_format=layout)
        given = torch.rand(batch, 1, *options.shape, device=device).contiguous(memory_format=layout)

        @torch.inference_mode()
        def count(placed: GpUnet = placed, given: torch.Tensor = given, way: str = way) -> object:
            autocast = (
                torch.autocast(device.type, dtype=torch.bfloat16) if way == "bfloat16" else nullcontext()
            )
            with autocast:
                features = placed.features(given)
            return placed.count((features * inside).sum(dim=(2, 3, 4)).float()), placed.heatmap(features)

        seconds = timed(count, device, options.seconds)
        rates.append(Rate(name, way, batch, batch / seconds, flop * batch / seconds))
    return rates


def stored(options: argparse.Namespace, folder: Path) -> PreparedStore:
    """A store with so many volumes."""
    store = PreparedStore(folder)
    for number in range(options.volumes):
        made = Provenance("f" * 16, "p" * 16, "/scan.nii", "{}", "0" * 64, {}, 1.0)
        store.save(volume(f"v{number:04d}", options.shape, number), made)
    return store


def read_ahead(store: PreparedStore, keys: list[str], readers: int, most: int) -> Iterator[PreparedVolume]:
    """Volumes in order, read by threads, at most so many ahead."""
    with ThreadPoolExecutor(readers) as pool:
        waiting = [pool.submit(store.load, key) for key in keys[:most]]
        for number in range(len(keys)):
            taken = waiting.pop(0).result().volume
            if number + most < len(keys):
                waiting.append(pool.submit(store.load, keys[number + most]))
            yield taken


def from_disk(bundle: Bundle, store: PreparedStore, options: argparse.Namespace) -> float:
    """Scans a second of the program's predictor on volumes from the store."""
    predictor = Predictor(bundle, options.device, precision="bfloat16")
    keys, batch = list(store.keys()), max(options.batches)
    predictor.predict([store.load(keys[0]).volume])
    waiting: list[PreparedVolume] = []
    counted, began = 0, time.perf_counter()
    for number, each in enumerate(read_ahead(store, keys, options.readers, 2 * batch), start=1):
        waiting.append(each)
        if len(waiting) == batch or number == len(keys):
            answers = predictor.predict(waiting)
            counted += sum(isinstance(answer, Prediction) for answer in answers)
            waiting = []
    seconds = time.perf_counter() - began
    if counted != len(keys):
        raise SystemExit(f"{len(keys) - counted} of {len(keys)} volumes were not counted")
    return counted / seconds


def training(options: argparse.Namespace) -> float:
    """Scans a second of training at the paper's size."""
    device = torch.device(options.device)
    network = GpUnet(Architecture(widths=options.widths)).to(device).train()
    network = network.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device.type == "cuda")
    batch = options.training_batch
    given = torch.rand(batch, 1, *options.shape, device=device)
    given = given.contiguous(memory_format=torch.channels_last_3d)
    inside = torch.from_numpy(volume("mask", options.shape, 0).mask)[None, None].to(device)
    inside = inside.expand(batch, -1, -1, -1, -1)
    target = torch.full((batch,), 5.0, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = torch.nn.functional.mse_loss(network(given, inside), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return batch / timed(step, device, options.seconds)


def report(rates: list[Rate], peak: float, disk: float, trained: float) -> str:
    """All of it in Markdown."""
    lines = ["| network | | batch | scans a second | times plain | Tflop/s | of the peak |", "|---" * 7 + "|"]
    for rate in rates:
        plain = next(each for each in rates if each.network == rate.network)
        lines.append(
            f"| {rate.network} | {rate.way} | {rate.batch} | {rate.per_s:.1f} | {rate.per_s / plain.per_s:.1f} | "
            f"{rate.flop_per_s / 1e12:.2f} | {rate.flop_per_s / peak:.1%} |"
        )
    epoch = EPOCH / trained
    lines += ["", "| | found | aim | |", "|---|---|---|---|"]
    lines.append(
        f"| bundled network, volumes on disk, scans a second | {disk:.1f} | {AIM_PER_S:g} | {_met(disk, AIM_PER_S)} |"
    )
    lines.append(
        f"| an epoch of {EPOCH} at the paper's size, s | {epoch:.0f} | {AIM_EPOCH_S:g} | {_met(AIM_EPOCH_S, epoch)} |"
    )
    return "\n".join(lines)


def _met(large: float, small: float) -> str:
    return "met" if large >= small else "missed"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description="Speed of the networks on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", type=_numbers, help="of the volumes (the bundled model's)")
    parser.add_argument("--batches", type=_numbers, default=(1, 2, 4, 8, 16, 32))
    parser.add_argument("--widths", type=_numbers, default=PAPER_WIDTHS)
    parser.add_argument("--training-batch", type=int, default=4)
    parser.add_argument("--volumes", type=int, default=512, help="on disk")
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="at least so long for each figure")
    parser.add_argument("--trace", type=Path, help="write the profiler's trace of reading and counting")
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    return parser.parse_args(arguments)


def bundle_for(options: argparse.Namespace) -> Bundle:
    """The bundled model; on another grid its card is told so, as speed alone is asked for here."""
    bundle = load_bundle(BUNDLED)
    required = bundle.card.requires
    grid = required.grid.model_copy(update={"shape": options.shape})
    card = bundle.card.model_copy(update={"requires": required.model_copy(update={"grid": grid})})
    return Bundle(card, bundle.network)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    options = parse(arguments)
    options.shape = options.shape or load_bundle(BUNDLED).card.requires.grid.shape
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bundle, device = bundle_for(options), torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        store = stored(options, Path(folder))
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
        with profile(activities=activities) if options.trace else nullcontext() as tracer:
            disk = from_disk(bundle, store, options)
        if options.trace and tracer is not None:
            tracer.export_chrome_trace(str(options.trace))
    peak = peak_flop(device, options.seconds)
    trained = training(options)
    rates = in_memory("paper's size", GpUnet(Architecture(widths=options.widths)), options)
    rates += in_memory("bundled", load_bundle(BUNDLED).network, options)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    sys.stdout.write(f"{name}; bfloat16 matrix product {peak / 1e12:.1f} Tflop/s\n\n")
    sys.stdout.write(report(rates, peak, disk, trained) + "\n")
    if options.out:
        figures = {
            "device": name,
            "peak_flop_per_s": peak,
            "from_disk_per_s": disk,
            "training_per_s": trained,
        }
        options.out.write_text(json.dumps({**figures, "rates": [vars(rate) for rate in rates]}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
