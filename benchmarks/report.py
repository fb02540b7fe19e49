"""Make reports of made-up cohorts, and open them in Chromium: seconds, memory, sizes of the files.

Run ``python benchmarks/report.py FOLDER [SCANS ...]``. Tables are as a run writes them, with 46 quality measures;
pictures are noise of the sizes that a run stores. Each report is made in a process of its own, whose highest memory is
told; the page is opened as a file, and timed until its overview is there, then until the table is there and sorted, and
until a scan's pictures and the cohort are shown.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from epvs_cohort.data.cohort_tables import read_cohort
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.picture_layers import LAYERS
from epvs_cohort.data.pictures import encode
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.report.cohort_report import ReportRequest, files_folder, write_report
from tests.report.made_up import MadeUp, write_made_up

log = logging.getLogger("report")

#: Aims for 5,000 scans on two cores.
LIMIT_MAKE_S = 300.0
LIMIT_OPEN_S = 3.0
SCANS = (500, 5000)
#: Picture to its size in pixels and about its bytes, as a run stored them of simulated whole heads.
STORED = {
    "roi.webp": ((1074, 394), 27_000),
    "roi_plain.webp": ((537, 197), 10_000),
    "registration.webp": ((1074, 394), 42_000),
    "registration_plain.webp": ((537, 197), 10_000),
    "lesions_ac.webp": ((1010, 1184), 82_000),
    "lesions_most.webp": ((1010, 1156), 28_000),
    "layer_0_heat.webp": ((168, 128), 500),
    "layer_0_lines.webp": ((504, 384), 1_000),
    **{f"slice_{k:03d}.webp": ((168, 128), 6_300) for k in range(29, 34)},
}
_QUIET = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
)


def noise_picture(size: tuple[int, int], wanted: int, seed: int) -> bytes:
    """Smooth noise whose WebP is about as large as wanted."""
    rng = np.random.default_rng(seed)
    best = b""
    for grain in (64, 32, 24, 16, 12, 8, 6, 4, 3, 2):
        small = rng.integers(0, 255, (max(size[1] // grain, 1), max(size[0] // grain, 1)), dtype=np.uint8)
        best = encode(Pillow.fromarray(small).resize(size).convert("RGB"), quality=60)
        if len(best) >= wanted:
            break
    return best


def fill_store(store: PreparedStore, keys: list[str]) -> int:
    """Write the same few sets of pictures for all scans; returns the bytes of one scan."""
    sets = []
    for seed in range(8):
        pictures = {name: noise_picture(size, wanted, seed) for name, (size, wanted) in STORED.items()}
        view = {
            "title": "AC",
            "slice": 31,
            "size": [168, 128],
            "under": "slice_031.webp",
            "lesions": [[1, 60, 40]],
        }
        names = {"heat": "layer_0_heat.webp", "lines": "layer_0_lines.webp"}
        layers = {"slices": [view | names], "planes": None}
        sets.append(pictures | {LAYERS: json.dumps(layers).encode()})
    for n, key in enumerate(keys):
        store.folder(key).mkdir(parents=True, exist_ok=True)
        store.add_pictures(key, sets[n % len(sets)])
    return sum(map(len, sets[0].values()))


def make(folder: Path) -> None:
    """Make the report of one cohort, and print seconds and highest memory as JSON."""
    out = folder / "counts.parquet"
    began = time.perf_counter()
    cohort = read_cohort(out)
    write_report(cohort, ReportRequest(out, folder / "report.html", OutputPaths.of(out).store))
    seconds = time.perf_counter() - began
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"seconds": seconds, "mib": mib}) + "\n")


def opened(page: Path) -> dict[str, float]:
    """Seconds until the page is ready, its table is there and sorted, a scan's pictures and the cohort are shown."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_QUIET))
        shown = browser.new_page()
        shown.goto("about:blank")
        began = time.perf_counter()
        shown.goto(page.as_uri())
        shown.wait_for_selector("html[data-ready]")
        found = {"open": time.perf_counter() - began}
        began = time.perf_counter()
        shown.goto(page.as_uri() + "#scans")
        shown.wait_for_selector("#grid .tabulator-row")
        found["table"] = time.perf_counter() - began
        began = time.perf_counter()
        shown.locator("button[data-column=count]").click()
        shown.wait_for_selector("[aria-sort=descending] button[data-column=count]")
        found["sort"] = time.perf_counter() - began
        began = time.perf_counter()
        shown.locator("#grid [role=rowheader] a").first.click()
        shown.wait_for_selector("#scan-body .layers img")
        found["scan"] = time.perf_counter() - began
        began = time.perf_counter()
        shown.goto(page.as_uri() + "#cohort")
        shown.wait_for_selector("#cohort:not([hidden]) .mosaic li")
        found["mosaic"] = time.perf_counter() - began
        browser.close()
    return found


def measure(folder: Path, scans: int) -> None:
    """Make and open the report of a made-up cohort, and log what it took."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cohort = write_made_up(folder / "counts.parquet", MadeUp(scans=scans, pictures=False, more_measures=33))
    keys = cohort.scans.loc[cohort.scans["status"] != "failed", "scan"].tolist()
    each = fill_store(PreparedStore(OutputPaths.of(folder / "counts.parquet").store), keys)
    command = [sys.executable, __file__, "--make", str(folder)]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    page = folder / "report.html"
    files = [path.stat().st_size for path in files_folder(page).iterdir()]
    log.info("%d scans, pictures of %.0f kB a scan", scans, each / 1e3)
    log.info(
        "  made in %.1f s (aim %.0f), highest memory %.0f MiB", made["seconds"], LIMIT_MAKE_S, made["mib"]
    )
    log.info(
        "  page %.1f MB, %d files beside it, %.0f MB together, the largest %.1f MB",
        page.stat().st_size / 1e6, len(files), sum(files) / 1e6, max(files) / 1e6,
    )  # fmt: skip
    times = opened(page)
    log.info(
        "  opened in %.2f s (aim %.0f), the table in %.2f s, sorted in %.2f s, a scan in %.2f s, the cohort in %.2f s",
        times["open"], LIMIT_OPEN_S, times["table"], times["sort"], times["scan"], times["mosaic"],
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]))
    elif len(sys.argv) < 2:
        raise SystemExit("python benchmarks/report.py FOLDER [SCANS ...]")
    else:
        for number in map(int, sys.argv[2:] or SCANS):
            measure(Path(sys.argv[1]) / f"{number}", number)
