"""Pictures of a simulated cohort: each scan around the anterior commissure, plain and with its true lesions."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.pictures import (
    SKY,
    YELLOW,
    ac_grid_slice,
    grey_panel,
    letter,
    side_by_side,
    upright,
    window,
    write,
)
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.geometry import FloatArray, apply_affine, spacing_of
from epvs_cohort.prepare.mask import dilate_mm
from epvs_cohort.simulate.bids import STATEMENT
from epvs_cohort.simulate.prepared_cohort import STORE_FOLDER

PAGE: Final = "figures.html"
FOLDER: Final = "figures"

#: Pictures show these heights in mm about the slice of the anterior commissure, from top to bottom.
HEIGHTS_MM: Final = (3.0, 0.0, -3.0)
#: Grey levels run from 0 to this quantile of the mask.
WHITE_QUANTILE: Final = 0.995
#: Border in mm around the basal ganglia that pictures of whole heads show, and the mask's reach beyond them.
_BORDER_MM: Final = 14.0
_MASK_MM: Final = 2.0
_PIXEL_MM: Final = 0.2

_STYLE: Final = """body{background:#181818;color:#eee;font:15px/1.5 sans-serif;margin:2em}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(30em,1fr));gap:1.5em}
figure{margin:0}img{width:100%}figcaption{padding:.3em 0}"""

FloatVolume = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """What the pictures of one scan are made of.

    Attributes
    ----------
    values : ndarray, shape (I, J, K)
        Axes run right, to the front and up, about.
    mask : ndarray, shape (I, J, K), bool
        Where the grey levels are settled.
    native_from_voxel : ndarray, shape (4, 4)
    ac_k : int or None
        Slice nearest the anterior commissure; None where the scan does not show it.
    """

    values: FloatVolume
    mask: BoolArray
    native_from_voxel: FloatArray
    ac_k: int | None


def write_simulated_page(out: Path) -> Path:
    """Draw the pictures of a simulated data set and the page that shows them; one scan is held at a time.

    Parameters
    ----------
    out : Path
        Data set as `simulate_cohort` wrote it. Pictures go to ``figures``, the page is ``figures.html``.

    Returns
    -------
    Path
        The page.
    """
    points = _points_by_scan(out / "points.csv")
    (out / FOLDER).mkdir(exist_ok=True)
    entries = []
    for scan in _column(out / "counts.csv", "scan"):
        own = points.get(scan, [])
        in_slice = sum(row["in_ac_slice"] == "1" for row in own)
        caption = f"{scan}: {len(own)} lesions, {in_slice} in the slice of the anterior commissure"
        picture = f"{FOLDER}/{scan}.png"
        write_whole(out / picture, encode_png(scan_picture(view_of(out, scan), own)))
        entries.append(
            f'<figure><img loading="lazy" src="{quote(picture)}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    page = out / PAGE
    write_whole(page, _page(out.resolve().name, entries).encode())
    return page


def view_of(out: Path, scan: str) -> View:
    """View of one scan of a simulated data set, a whole head or a prepared volume."""
    if (out / STORE_FOLDER).is_dir():
        volume = PreparedStore(out / STORE_FOLDER).load(scan).volume
        return View(volume.intensities, volume.mask, volume.native_from_grid, ac_grid_slice(volume))
    participant = scan.split("_")[0]
    truth = out / "derivatives" / "truth" / participant / "anat"
    image = nib.as_closest_canonical(nib.load(out / participant / "anat" / f"{scan}.nii.gz"))
    outlined = nib.as_closest_canonical(nib.load(truth / f"{participant}_desc-regions_dseg.nii.gz"))
    regions = np.asarray(outlined.dataobj) > 0
    affine = np.asarray(image.affine, dtype=np.float64)
    spacing = spacing_of(affine)
    box = _grown_box(regions, [round(_BORDER_MM / step) for step in spacing])
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, [part.start for part in box])
    values = np.asarray(image.dataobj[box], dtype=np.float32)
    return View(values, dilate_mm(regions[box], spacing, _MASK_MM), moved, _ac_k(truth, participant, moved))


def scan_picture(view: View, points: list[Mapping[str, str]]) -> Pillow.Image:
    """Slices about the anterior commissure from top to bottom, each plain and beside it with the true lesions.

    Parameters
    ----------
    points : list of mapping
        Rows of ``points.csv``, native RAS mm.
    """
    top = white_level(view.values, view.mask)
    step = spacing_of(view.native_from_voxel)[2]
    middle = view.values.shape[2] // 2 if view.ac_k is None else view.ac_k
    rows = []
    for height in HEIGHTS_MM:
        k = int(np.clip(middle + round(height / step), 0, view.values.shape[2] - 1))
        plain, marked = slice_panel(view, k, top), slice_panel(view, k, top)
        name = "AC" if view.ac_k is not None else "middle"
        write(plain, name if height == 0 else f"{name} {height:+.0f} mm", (6, 4))
        _mark(marked, view, k, points)
        rows.append(side_by_side([plain, marked]))
    return side_by_side(rows, down=True)


def white_level(values: FloatVolume, mask: BoolArray) -> float:
    """Value shown as white: the 99.5 % quantile within the mask, at least a little above 0."""
    inside = values[mask]
    return max(float(np.quantile(inside, WHITE_QUANTILE)) if inside.size else float(values.max()), 1e-6)


def slice_panel(view: View, k: int, top: float) -> Pillow.Image:
    """One axial slice as a panel, five pixels a millimetre."""
    spacing = spacing_of(view.native_from_voxel)
    size = tuple(round(n * s / _PIXEL_MM) for n, s in zip(view.values.shape[:2], spacing[:2], strict=True))
    grey = window(upright(view.values[:, :, k]).astype(np.float64), 0.0, top)
    panel = grey_panel(grey, (size[0], size[1]))
    letter(panel, 2)
    return panel


def encode_png(picture: Pillow.Image) -> bytes:
    """PNG bytes of a picture."""
    buffer = io.BytesIO()
    picture.convert("L" if _is_grey(picture) else "RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def _is_grey(picture: Pillow.Image) -> bool:
    pixels = np.asarray(picture.convert("RGB"))
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def _mark(panel: Pillow.Image, view: View, k: int, points: list[Mapping[str, str]]) -> None:
    """Circle the lesions that reach the slice; those of the AC slice in another colour."""
    draw = ImageDraw.Draw(panel)
    width, height, _ = view.values.shape
    step = spacing_of(view.native_from_voxel)[2]
    to_voxel = np.linalg.inv(view.native_from_voxel)
    for row in points:
        of_slice = k == view.ac_k and row["in_ac_slice"] == "1"
        # Slices of a prepared volume are oblique to the native one, so its part within that may lie off this one.
        names = ("ac_x_mm", "ac_y_mm", "ac_z_mm") if of_slice else ("x_mm", "y_mm", "z_mm")
        i, j, at = apply_affine(to_voxel, [float(row[name]) for name in names])
        if abs(at - k) * step > (step if of_slice else float(row["length_mm"]) / 2.0):
            continue
        x, y = (width - 0.5 - i) / width * panel.width, (height - 0.5 - j) / height * panel.height
        reach = (float(row["radius_mm"]) + 1.0) / _PIXEL_MM
        box = (x - reach, y - reach, x + reach, y + reach)
        draw.ellipse(box, outline=SKY if of_slice else YELLOW, width=2)


def _ac_k(truth: Path, participant: str, native_from_voxel: FloatArray) -> int | None:
    """Slice of the crop through the true anterior commissure."""
    known = _json(truth / f"{participant}_desc-truth.json")
    if known["ac_slice"] is None:
        return None
    return round(float(apply_affine(np.linalg.inv(native_from_voxel), known["ac_mm"])[2]))


def _json(path: Path) -> dict[str, npt.ArrayLike]:
    content: dict[str, npt.ArrayLike] = json.loads(path.read_bytes())
    return content


def _grown_box(region: BoolArray, reach: list[int]) -> tuple[slice, slice, slice]:
    spans = []
    for axis in range(3):
        at = np.flatnonzero(region.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(at[0]), int(at[-1])) if at.size else (0, region.shape[axis] - 1)
        spans.append(slice(max(low - reach[axis], 0), min(high + reach[axis] + 1, region.shape[axis])))
    return spans[0], spans[1], spans[2]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _column(path: Path, name: str) -> list[str]:
    return [row[name] for row in _rows(path)]


def _points_by_scan(path: Path) -> dict[str, list[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in _rows(path):
        found.setdefault(row["scan"], []).append(row)
    return found


def _page(name: str, entries: list[str]) -> str:
    title = html.escape(f"Simulated cohort {name}")
    legend = (
        f"{STATEMENT} Left the scan, right the same with its true lesions: blue, cut by the slice of the anterior "
        "commissure (AC); yellow, reaching another shown slice. Radiological convention: R is the person's right."
    )
    body = "\n".join(entries)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1><p>{html.escape(legend)}</p>\n"
        f"<main>\n{body}\n</main></body></html>\n"
    )
