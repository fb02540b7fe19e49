"""One page of pictures for each scan, as a PNG that a person opens."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image as Pillow

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.pictures import decode, write
from epvs_cohort.data.store import folder_name

#: Stored picture to the sentence above it, in the order of the page.
PARTS: Final = {
    "roi.webp": "Outline of the basal ganglia, and the box that the network sees",
    "registration.webp": "Template over the scan: its edges should follow brain, white matter and ventricles",
    "lesions_ac.webp": "Slice of the anterior commissure and its neighbours: scan, and heatmap with lesions",
    "lesions_most.webp": "Slices with most lesions: what the network sees, and heatmap with lesions",
}
LEGEND: Final = (
    "Radiological convention: R is the person's right. Heat runs from dark to bright. Grey outline: mask; "
    "green: lesion; numbered circle: its centre lies within 1.5 slices."
)
#: Widest page in pixels; wider pictures are shrunk to it.
PAGE_WIDTH: Final = 1100
_MARGIN: Final = 12
_TITLE_HEIGHT: Final = 30


def write_figures(folder: Path, key: str, pictures: Mapping[str, bytes]) -> list[Path]:
    """Compose the stored pictures of one scan to one page and write it as PNG.

    Parameters
    ----------
    folder : Path
        Created where missing.
    key : str
        Scan key: title of the page, and, made safe, its file name.
    pictures : mapping of str to bytes
        File name to encoded picture, as the store holds them; names not of ``PARTS`` are passed over.

    Returns
    -------
    list of Path
        The file written; empty where there is no picture to show.
    """
    shown = [(title, _fitted(decode(pictures[name]))) for name, title in PARTS.items() if name in pictures]
    if not shown:
        return []
    page = _compose(key, shown)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{folder_name(key)}.png"
    write_whole(path, buffer.getvalue())
    return [path]


def _fitted(picture: Pillow.Image) -> Pillow.Image:
    if picture.width <= PAGE_WIDTH:
        return picture
    height = round(picture.height * PAGE_WIDTH / picture.width)
    return picture.resize((PAGE_WIDTH, height), Pillow.Resampling.LANCZOS)


def _compose(key: str, shown: list[tuple[str, Pillow.Image]]) -> Pillow.Image:
    height = 2 * _TITLE_HEIGHT + sum(picture.height + _TITLE_HEIGHT + _MARGIN for _, picture in shown)
    page = Pillow.new("RGB", (PAGE_WIDTH + 2 * _MARGIN, height + _MARGIN), (24, 24, 24))
    write(page, key, (_MARGIN, 6), size=20)
    write(page, LEGEND, (_MARGIN, _TITLE_HEIGHT + 6), size=13)
    top = 2 * _TITLE_HEIGHT
    for title, picture in shown:
        write(page, title, (_MARGIN, top + 8), size=15)
        page.paste(picture.convert("RGB"), (_MARGIN, top + _TITLE_HEIGHT))
        top += picture.height + _TITLE_HEIGHT + _MARGIN
    return page
