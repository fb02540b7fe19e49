"""Pictures of a run as PNG files: what the report shows of each scan and of the cohort, for those who want files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image as Pillow
from PIL import ImageDraw

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.picture_layers import stored_layers
from epvs_cohort.data.pictures import SKY, decode, write
from epvs_cohort.data.store import folder_name

#: Stored picture to the sentence above it, for scans of earlier versions, whose layers are not stored.
PARTS: Final = {
    "roi.webp": "Outline of the basal ganglia, and the box that the network sees",
    "registration.webp": "Template over the scan: its edges should follow brain, white matter and ventricles",
    "lesions_ac.webp": "Slice of the anterior commissure and its neighbours: scan, and heatmap with lesions",
    "lesions_most.webp": "Slices with most lesions: what the network sees, and heatmap with lesions",
}
SLICES: Final = "Slice of the anterior commissure with its neighbours, and slices with most lesions"
PLANES: Final = "Three planes through the region: vermilion is what the network sees"
REGISTRATION: Final = "Registration: the template's edges on the scan"
LEGEND: Final = (
    "Radiological convention: R is the person's right. Heat runs from dark to bright. Grey outline: mask; "
    "green: lesion; numbered circle: its centre lies within 1.5 slices."
)
#: Widest page in pixels; wider pictures are shrunk to it.
PAGE_WIDTH: Final = 1100
_MARGIN: Final = 12
_TITLE_HEIGHT: Final = 30
#: Slices side by side.
_ACROSS: Final = 2
_GROUND: Final = (24, 24, 24)


def write_figures(folder: Path, key: str, pictures: Mapping[str, bytes]) -> list[Path]:
    """Compose what the report shows of one scan to one page and write it as PNG.

    Parameters
    ----------
    folder : Path
        Created where missing.
    key : str
        Scan key: title of the page, and, made safe, its file name.
    pictures : mapping of str to bytes
        File name to encoded picture, as the store holds them.

    Returns
    -------
    list of Path
        The file written; empty where there is no picture to show.
    """
    layers = stored_layers(pictures)
    shown = _flat(pictures) if layers is None else _layered(layers, pictures)
    if not shown:
        return []
    return [write_png(folder / f"{folder_name(key)}.png", _compose(key, shown))]


def write_png(path: Path, page: Pillow.Image) -> Path:
    """Write a picture whole, and the folder it lies in where that is missing."""
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
    return path


def _flat(pictures: Mapping[str, bytes]) -> list[tuple[str, Pillow.Image]]:
    return [(title, _fitted(decode(pictures[name]))) for name, title in PARTS.items() if name in pictures]


def _layered(layers: Mapping[str, Any], pictures: Mapping[str, bytes]) -> list[tuple[str, Pillow.Image]]:
    """What the view of a scan shows, in its order, with everything turned on."""
    width = (PAGE_WIDTH - (_ACROSS - 1) * _MARGIN) // _ACROSS
    slices = [_slice(view, pictures, width) for view in layers["slices"]]
    shown = [(SLICES, _tiled(slices))] if slices else []
    if layers["planes"]:
        shown.append((PLANES, _stack(layers["planes"], pictures, PAGE_WIDTH, 9.0)))
    if "registration.webp" in pictures:
        shown.append((REGISTRATION, _fitted(decode(pictures["registration.webp"]))))
    return shown


def _slice(view: Mapping[str, Any], pictures: Mapping[str, bytes], width: int) -> Pillow.Image:
    """One slice with everything on it, and what it is."""
    numbers = [str(number) for number, *_ in view["lesions"]]
    listed = f"lesions {', '.join(numbers)}" if numbers else "no lesion"
    panel = _stack(view, pictures, width, 5.0)
    write(panel, f"{view['title']}, slice {view['slice']}: {listed}", (6, 4))
    return panel


def _stack(view: Mapping[str, Any], pictures: Mapping[str, bytes], width: int, radius: float) -> Pillow.Image:
    """Layers over one another as the page lays them, and the numbered lesions."""
    scale = width / view["size"][0]
    size = (width, round(view["size"][1] * scale))
    panel = decode(pictures[view["under"]]).convert("RGB").resize(size, Pillow.Resampling.BICUBIC)
    for name in (view.get("outline"), view["heat"], view.get("lines")):
        if name is not None and name in pictures:
            layer = decode(pictures[name]).convert("RGBA").resize(size, Pillow.Resampling.BILINEAR)
            panel.paste(layer, (0, 0), layer)
    draw = ImageDraw.Draw(panel)
    for number, x, y in view["lesions"]:
        at, around = (x * scale, y * scale), radius * scale
        draw.ellipse((at[0] - around, at[1] - around, at[0] + around, at[1] + around), outline=SKY, width=2)
        write(panel, str(number), (round(at[0] + around), round(at[1] - 2 * around)), size=16)
    return panel


def _tiled(panels: Sequence[Pillow.Image]) -> Pillow.Image:
    width, height = panels[0].width, max(panel.height for panel in panels)
    rows = -(-len(panels) // _ACROSS)
    sheet = Pillow.new("RGB", (PAGE_WIDTH, rows * (height + _MARGIN) - _MARGIN), _GROUND)
    for n, panel in enumerate(panels):
        sheet.paste(panel, (n % _ACROSS * (width + _MARGIN), n // _ACROSS * (height + _MARGIN)))
    return sheet


def _fitted(picture: Pillow.Image) -> Pillow.Image:
    if picture.width <= PAGE_WIDTH:
        return picture
    height = round(picture.height * PAGE_WIDTH / picture.width)
    return picture.resize((PAGE_WIDTH, height), Pillow.Resampling.LANCZOS)


def _compose(key: str, shown: list[tuple[str, Pillow.Image]]) -> Pillow.Image:
    height = 2 * _TITLE_HEIGHT + sum(picture.height + _TITLE_HEIGHT + _MARGIN for _, picture in shown)
    page = Pillow.new("RGB", (PAGE_WIDTH + 2 * _MARGIN, height + _MARGIN), _GROUND)
    write(page, key, (_MARGIN, 6), size=20)
    write(page, LEGEND, (_MARGIN, _TITLE_HEIGHT + 6), size=13)
    top = 2 * _TITLE_HEIGHT
    for title, picture in shown:
        write(page, title, (_MARGIN, top + 8), size=15)
        page.paste(picture.convert("RGB"), (_MARGIN, top + _TITLE_HEIGHT))
        top += picture.height + _TITLE_HEIGHT + _MARGIN
    return page
