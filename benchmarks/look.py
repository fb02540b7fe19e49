"""Show simulated basal ganglia beside those of real scans on one page, to judge whether they look alike.

Run as ``python benchmarks/look.py SIMULATED REAL... --out PAGE.html [--scans N]``, where SIMULATED is a data set of
whole heads that ``epvs-cohort simulate`` wrote, and each REAL is a scan. All are prepared alike and shown on the
prepared grid, in the slices at and 4 mm above and below the anterior commissure: as scanned, and masked as the
network sees them. Grey levels run from 0 to the 99.5 % quantile of the mask. Beside the pictures stand what can be
measured: medians of the structures relative to the putamen, and how rough the putamen is, as the spread of
differences between neighbours in the plane and across slices relative to its median. The pictures are written into
the page; it holds data of the real scans and belongs beside them.
"""

from __future__ import annotations

import argparse
import base64
import html
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.images import read_image
from epvs_cohort.data.pictures import ac_grid_slice, side_by_side, write
from epvs_cohort.data.sniff import stem_of
from epvs_cohort.errors import EpvsError
from epvs_cohort.model.roi_bundle import load_roi_pair
from epvs_cohort.model.segment import Segmenter
from epvs_cohort.prepare.resample import inverse, resample_cubic
from epvs_cohort.prepare.scan import prepare_scan
from epvs_cohort.prepare.segmented import Looks
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import LABEL_NO_REGION, Float32Array, PreparedVolume, Scan
from epvs_cohort.report.simulated import View, encode_png, slice_panel, white_level

HEIGHTS_MM = (4.0, 0.0, -4.0)
STRUCTURES = ("caudate", "putamen", "pallidum")
STYLE = """body{background:#181818;color:#eee;font:15px/1.5 sans-serif;margin:2em}
figure{margin:0 0 2em}img{width:100%;max-width:86em}td,th{padding:.1em .8em;text-align:right}"""


@dataclass(frozen=True)
class Looked:
    """One scan on the prepared grid: as scanned, and as prepared."""

    name: str
    values: Float32Array
    volume: PreparedVolume


def look_at(path: Path, name: str) -> Looked:
    """Prepare a scan, and resample it without the mask as well."""
    protocol, pair = Protocol(), load_roi_pair()
    looks = Looks(Segmenter(pair.head).segment, Segmenter(pair.near).segment_around)
    image = read_image(path, protocol.input)
    volume = prepare_scan(Scan(stem_of(path), path), image, protocol, looks)
    everywhere = np.ones(protocol.grid.shape, dtype=np.bool_)
    voxel_from_grid = inverse(image.affine) @ volume.native_from_grid
    return Looked(name, resample_cubic(image.data, voxel_from_grid, protocol.grid.shape, everywhere), volume)


def picture(looked: Looked) -> Pillow.Image:
    """Slices from left to right, as scanned above, as prepared below."""
    volume, at = looked.volume, ac_grid_slice(looked.volume)
    depth = looked.values.shape[2]
    middle = depth // 2 if at is None else at
    rows = []
    for values in (looked.values, volume.intensities):
        view = View(values, volume.mask, volume.native_from_grid, at)
        top = white_level(values, volume.mask)
        ks = [
            int(np.clip(middle + round(h / Protocol().grid.spacing_mm[2]), 0, depth - 1)) for h in HEIGHTS_MM
        ]
        panels = [slice_panel(view, k, top) for k in ks]
        for panel, height in zip(panels, HEIGHTS_MM, strict=True):
            write(panel, f"AC {height:+.0f} mm" if height else "AC", (6, 4))
        rows.append(side_by_side(panels))
    return side_by_side(rows, down=True)


def measures(looked: Looked) -> dict[str, float]:
    """Contrast and roughness, from voxels well inside the outlined structures."""
    volume = looked.volume
    of = {name: np.isin(volume.labels, _labels(volume, name)) for name in STRUCTURES}
    putamen = looked.values[of["putamen"]]
    middle = float(np.median(putamen))
    named = (volume.labels > 0) & (volume.labels != LABEL_NO_REGION)
    out = {f"{name}/putamen": float(np.median(looked.values[of[name]])) / middle for name in STRUCTURES}
    out["mask 99.5 %/putamen"] = white_level(looked.values, volume.mask) / middle
    out["spread in putamen"] = _spread(putamen) / middle
    for axis, name in enumerate("ijk"):
        both = of["putamen"] & np.roll(of["putamen"], 1, axis) & named
        steps = (looked.values - np.roll(looked.values, 1, axis))[both]
        out[f"step along {name}"] = _spread(steps) / middle
    return out


def _labels(volume: PreparedVolume, structure: str) -> list[int]:
    return [label for label, name in volume.regions.items() if name.endswith(structure)]


def _spread(values: Float32Array) -> float:
    """Standard deviation of a normal distribution with the same quartiles: lesions do not count."""
    low, high = np.percentile(values, [25.0, 75.0])
    return float(high - low) / 1.349


def scans(simulated: Path, real: list[Path], n: int) -> Iterator[tuple[Path, str]]:
    """Paths and titles, real ones first."""
    yield from ((path, f"real: {path.name}") for path in real)
    heads = sorted(simulated.glob("sub-*/anat/*.nii.gz"))[:n]
    yield from ((path, f"simulated: {stem_of(path)}") for path in heads)


def table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """The measures as HTML."""
    names = list(rows[0][1])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("scan", *names))
    lines = [
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{found[n]:.3f}</td>" for n in names) + "</tr>"
        for name, found in rows
    ]
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table>"


def main() -> int:
    """Write the page, and print the measures."""
    parser = argparse.ArgumentParser(description="Simulated beside real basal ganglia.")
    parser.add_argument("simulated", type=Path)
    parser.add_argument("real", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=4)
    chosen = parser.parse_args()
    figures, rows = [], []
    for path, name in scans(chosen.simulated, chosen.real, chosen.scans):
        try:
            looked = look_at(path, name)
        except EpvsError as error:
            sys.stdout.write(f"{name}: {error.message}\n")
            continue
        content = base64.b64encode(encode_png(picture(looked))).decode()
        title = html.escape(name)
        figures.append(
            f'<figure><figcaption>{title}</figcaption><img alt="{title}" src="data:image/png;base64,{content}">'
            "</figure>"
        )
        rows.append((name, measures(looked)))
        found = ", ".join(f"{key} {value:.3f}" for key, value in rows[-1][1].items())
        sys.stdout.write(f"{name}: {found}\n")
    if not rows:
        return 1
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Look</title><style>{STYLE}</style>'
        f"</head>\n<body><h1>Real and simulated basal ganglia</h1>\n{table(rows)}\n"
        + "\n".join(figures)
        + "</body></html>\n"
    )
    write_whole(chosen.out, page.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
