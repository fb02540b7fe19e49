"""Pictures of the whole cohort as PNG files: every scan at the anterior commissure, and the density of its lesions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image as Pillow
from PIL import ImageDraw

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import decisions_in
from epvs_cohort.data.pictures import decode, heat_colours, write
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.report.cohort_content import kept_lesions
from epvs_cohort.report.cohort_maps import DensityPlane, density_caption, density_planes
from epvs_cohort.report.cohort_mosaic import THUMB, ac_picture
from epvs_cohort.report.cohort_payload import Reviewed, review
from epvs_cohort.report.figures import write_png
from epvs_cohort.report.measure_words import number

#: Scans beside and above one another on a page; two lines of words stand under each.
ACROSS, DOWN = 10, 12
_LINES: Final = 30
_GROUND: Final = (24, 24, 24)
_FLAGGED: Final = (240, 178, 90)
_MARGIN, _LEFT, _TOP, _BOTTOM = 12, 62, 34, 48
#: Letters that fit under a small picture.
_LETTERS: Final = 17


def write_cohort_figures(folder: Path, cohort: Cohort, store: Path) -> list[Path]:
    """Write the overview mosaic and the map of lesions of a run.

    Parameters
    ----------
    folder : Path
        Created where missing.
    cohort : Cohort
    store : Path
        Prepared volumes with their pictures.

    Returns
    -------
    list of Path
        ``cohort.scans-001.png`` and so on, flagged scans first, and ``cohort.lesions.png``; what has nothing to show
        is not written.
    """
    reviewed = review(cohort, decisions_in(cohort.scans))
    written = [
        write_png(folder / f"cohort.scans-{n:03d}.png", page)
        for n, page in enumerate(_mosaics(reviewed, PreparedStore(store)), start=1)
    ]
    points, n_scans = kept_lesions(reviewed)
    planes = density_planes(points, n_scans)
    if planes is not None:
        page = _density(planes, density_caption(len(points), n_scans))
        written.append(write_png(folder / "cohort.lesions.png", page))
    return written


def _mosaics(reviewed: Reviewed, store: PreparedStore) -> Iterator[Pillow.Image]:
    """Pages of small pictures, of scans that are flagged or far from the others first, then by name."""
    scans = reviewed.cohort.scans
    first = [look.row for look in reviewed.looks]
    flagged = [row for row in range(len(scans)) if reviewed.flags[row] and row not in set(first)]
    rows = list(dict.fromkeys([*first, *flagged, *range(len(scans))]))
    tiles: list[Pillow.Image] = []
    for row in rows:
        picture = ac_picture(store.pictures(str(scans["scan"].iloc[row])))
        if picture is not None:
            tiles.append(_tile(decode(picture), scans.iloc[row], flagged=bool(reviewed.flags[row])))
        if len(tiles) == ACROSS * DOWN:
            yield _page(tiles)
            tiles = []
    if tiles:
        yield _page(tiles)


def _tile(slice_: Pillow.Image, scan: pd.Series[Any], *, flagged: bool) -> Pillow.Image:
    tile = Pillow.new("RGB", (THUMB[0], THUMB[1] + _LINES), _GROUND)
    tile.paste(slice_.convert("RGB").resize(THUMB, Pillow.Resampling.LANCZOS))
    if flagged:
        ImageDraw.Draw(tile).rectangle((0, 0, THUMB[0] - 1, THUMB[1] - 1), outline=_FLAGGED, width=2)
    key = str(scan["scan"])
    name = key if len(key) <= _LETTERS else f"{key[: _LETTERS - 1]}…"
    count = "not counted" if pd.isna(scan["count"]) else f"count {float(scan['count']):.1f}"
    write(tile, name, (2, THUMB[1] + 1), size=11)
    write(tile, f"flagged, {count}" if flagged else count, (2, THUMB[1] + 15), size=11)
    return tile


def _page(tiles: Sequence[Pillow.Image]) -> Pillow.Image:
    width, height = THUMB[0] + 4, THUMB[1] + _LINES + 4
    rows = -(-len(tiles) // ACROSS)
    page = Pillow.new("RGB", (2 * _MARGIN + ACROSS * width, _TOP + rows * height + _MARGIN), _GROUND)
    write(page, "Scans at the anterior commissure, those to look at first before the others", (_MARGIN, 8))
    for n, tile in enumerate(tiles):
        page.paste(tile, (_MARGIN + n % ACROSS * width, _TOP + n // ACROSS * height))
    return page


def _density(planes: Sequence[DensityPlane], caption: str) -> Pillow.Image:
    height = _TOP + max(plane.picture.height for plane in planes) + _BOTTOM
    width = sum(plane.picture.width + _LEFT for plane in planes) + _MARGIN
    page = Pillow.new("RGB", (width, height + 120), _GROUND)
    left = 0
    for plane in planes:
        _draw_plane(page, plane, left + _LEFT)
        left += plane.picture.width + _LEFT
    top = max(plane.top for plane in planes)
    _draw_key(page, top, height + 6)
    for n, words in enumerate(textwrap.wrap(caption, 140)):
        write(page, words, (_LEFT, height + 50 + 20 * n), size=13)
    return page


def _draw_plane(page: Pillow.Image, plane: DensityPlane, left: int) -> None:
    """One plane with its name, its axes and their unit."""
    picture = plane.picture
    page.paste(picture, (left, _TOP))
    write(page, plane.title, (left, 10), size=14)
    for at, mm in plane.ticks_across:
        write(page, number(mm), (round(left + at) - 8, _TOP + picture.height + 4), size=12)
    for at, mm in plane.ticks_up:
        write(page, number(mm), (left - 28, round(_TOP + at) - 7), size=12)
    write(page, plane.across, (left + picture.width // 2 - 70, _TOP + picture.height + 24), size=13)
    side = Pillow.new("RGB", (picture.height, 20), _GROUND)
    write(side, plane.up, (picture.height // 2 - 60, 2), size=13)
    page.paste(side.rotate(90, expand=True), (left - 54, _TOP))


def _draw_key(page: Pillow.Image, top: float, y: int) -> None:
    steps = 192
    draw = ImageDraw.Draw(page)
    for n, (r, g, b) in enumerate(heat_colours(np.linspace(0.0, 1.0, steps)).astype(int)):
        draw.line((_LEFT + n, y, _LEFT + n, y + 14), fill=(int(r), int(g), int(b)))
    write(page, "0", (_LEFT, y + 18), size=12)
    write(page, number(float(f"{top:.3g}")), (_LEFT + steps - 24, y + 18), size=12)
    write(page, "lesions per 100 scans and cm²", (_LEFT + steps + 12, y), size=13)
