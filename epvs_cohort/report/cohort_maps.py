"""Where the lesions of a cohort lie: their density over the template in three planes, and left against right."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image as Pillow
from scipy import ndimage, stats

from epvs_cohort.data.atlas import Atlas, load_atlas
from epvs_cohort.data.pictures import blend_heat, encode, grey_panel, heat_colours, upright, window
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.report.measure_words import number

#: Part of MNI space that is shown, in mm.
_LOW: Final = (-52, -46, -32)
_HIGH: Final = (52, 46, 42)
#: Standard deviation of the smoothing, in mm: about a lesion's own width.
SMOOTH_MM: Final = 2.0
#: Scans in which a hundred, and cm² in which a mm², stand for the unit of the maps.
_PER_100_SCANS_AND_CM2: Final = 100.0 * 100.0
_TIMES: Final = 3
_TICK_MM: Final = 20
_LEFT, _BOTTOM, _TOP, _GAP = 58, 44, 22, 22
_PLANES: Final = (
    (2, "axial", "x: right to left (mm)", "y: back to front (mm)"),
    (1, "coronal", "x: right to left (mm)", "z: down to up (mm)"),
    (0, "sagittal, both sides", "y: front to back (mm)", "z: down to up (mm)"),
)


@dataclass(frozen=True)
class DensityMap:
    """Lesions of a cohort over the template.

    Attributes
    ----------
    svg : Markup
    caption : str
    """

    svg: Markup
    caption: str


@dataclass(frozen=True)
class DensityPlane:
    """Density added up along one axis, over the template.

    Attributes
    ----------
    title : str
        Name of the plane and where it cuts the template.
    across, up : str
        Names of the axes with their unit.
    picture : Image
    ticks_across, ticks_up : tuple of (float, int)
        Pixel from the left or from the top, and the millimetre that lies there.
    top : float
        Lesions per 100 scans and cm² that the brightest colour stands for; the same for all planes.
    """

    title: str
    across: str
    up: str
    picture: Pillow.Image
    ticks_across: tuple[tuple[float, int], ...]
    ticks_up: tuple[tuple[float, int], ...]
    top: float


def density_planes(points_mm: FloatArray, n_scans: int) -> list[DensityPlane] | None:
    """Density of lesion centres in MNI space, added up across the head along each of three axes.

    Parameters
    ----------
    points_mm : ndarray, shape (N, 3)
        Centres in MNI152 RAS mm.
    n_scans : int
        Counted scans that they were found in, those without lesions included: the denominator.

    Returns
    -------
    list of DensityPlane or None
        None where there is no lesion or no scan.
    """
    if not len(points_mm) or not n_scans:
        return None
    density = _density(points_mm) / n_scans
    sums = [density.sum(axis=axis) * _PER_100_SCANS_AND_CM2 for axis, *_ in _PLANES]
    top = float(max(each.max() for each in sums))
    atlas = load_atlas()
    planes = []
    for (axis, name, across, up), summed in zip(_PLANES, sums, strict=True):
        fullest = int(np.argmax(density.sum(axis=tuple(other for other in range(3) if other != axis))))
        at = f"{'xyz'[axis]} = {_LOW[axis] + fullest} mm".replace("-", "−")
        picture = _picture(_plane(atlas, axis, fullest), summed / top)
        first, second = [other for other in range(3) if other != axis]
        ticks = (
            tuple((picture.width - _TIMES * (mm - _LOW[first] + 0.5), mm) for mm in _ticks(first)),
            tuple((picture.height - _TIMES * (mm - _LOW[second] + 0.5), mm) for mm in _ticks(second)),
        )
        planes.append(DensityPlane(f"{name}, {at}", across, up, picture, *ticks, top))
    return planes


def density_map(points_mm: FloatArray, n_scans: int) -> DensityMap | None:
    """The density in three planes as one picture of the page; None where there is no lesion or no scan."""
    planes = density_planes(points_mm, n_scans)
    if planes is None:
        return None
    panels, x = [], 0
    for plane in planes:
        panels.append(f'<g transform="translate({x} 0)">{_panel(plane)}</g>')
        x += _LEFT + plane.picture.width + _GAP
    height = _TOP + max(plane.picture.height for plane in planes) + _BOTTOM + 46
    top = planes[0].top
    words = (
        f"Density of {len(points_mm)} lesion centres of {n_scans} scans in MNI space, highest {number(top)}."
    )
    svg = (
        f'<svg class="chart maps" role="img" viewBox="0 0 {x} {height}" aria-label="{words}">'
        f"{''.join(panels)}{_key(top, height)}</svg>"
    )
    return DensityMap(Markup(svg), density_caption(len(points_mm), n_scans))


def density_caption(n_lesions: int, n_scans: int) -> str:
    """What is told under the maps."""
    return (
        f"{n_lesions} located lesions of {n_scans} counted and not rejected scans, those without lesions included. "
        f"Each map adds up along the axis it looks along, smoothed by {number(SMOOTH_MM)} mm, and lies over the "
        "template at the slice with most lesions. Radiological convention: the person's right is on the left."
    )


def _density(points_mm: FloatArray) -> FloatArray:
    edges = [np.arange(low, high + 1) - 0.5 for low, high in zip(_LOW, _HIGH, strict=True)]
    found, _ = np.histogramdd(points_mm, bins=edges)
    return np.asarray(ndimage.gaussian_filter(found, SMOOTH_MM, mode="constant"), dtype=np.float64)


def _plane(atlas: Atlas, axis: int, at: int) -> FloatArray:
    """Template across ``axis``, 1 mm, on the part of MNI space that is shown."""
    ranges = [np.arange(low, high) for low, high in zip(_LOW, _HIGH, strict=True)]
    ranges[axis] = np.array([_LOW[axis] + at])
    points = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)
    voxels = apply_affine(np.linalg.inv(atlas.grid.affine), points)
    cut = ndimage.map_coordinates(atlas.template, np.moveaxis(voxels, -1, 0), order=1)
    return np.asarray(np.squeeze(cut, axis=axis), dtype=np.float64)


def _picture(grey: FloatArray, share: FloatArray) -> Pillow.Image:
    width, height = (_TIMES * size for size in grey.shape)
    panel = grey_panel(window(np.asarray(upright(grey), dtype=np.float64), 0.0, 2.6), (width, height))
    blend_heat(panel, np.asarray(upright(share), dtype=np.float64))
    return panel


def _panel(plane: DensityPlane) -> str:
    width, height = plane.picture.size
    picture = base64.b64encode(encode(plane.picture, quality=80)).decode("ascii")
    parts = [
        f'<text class="name" x="{_LEFT}" y="14">{plane.title}</text>',
        f'<image x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}" href="data:image/webp;base64,{picture}"/>',
        f'<text class="name" x="{_LEFT + width / 2}" y="{_TOP + height + 38}" text-anchor="middle">'
        f"{plane.across}</text>",
        f'<text class="name" x="10" y="{_TOP + height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 10 {_TOP + height / 2})">{plane.up}</text>',
    ]
    for at, mm in plane.ticks_across:
        parts.append(
            f'<text x="{_LEFT + at}" y="{_TOP + height + 18}" text-anchor="middle">{number(mm)}</text>'
        )
    for at, mm in plane.ticks_up:
        parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + at + 4.5}" text-anchor="end">{number(mm)}</text>')
    return "".join(parts)


def _ticks(axis: int) -> range:
    return range(math.ceil(_LOW[axis] / _TICK_MM) * _TICK_MM, _HIGH[axis], _TICK_MM)


def _key(top: float, height: int) -> str:
    """Bar of colours with its ends and unit."""
    steps = 48
    colours = heat_colours(np.linspace(0.0, 1.0, steps)).astype(int)
    bars = "".join(
        f'<rect x="{_LEFT + 4 * n}" y="{height - 34}" width="4.5" height="12" fill="rgb({r},{g},{b})"/>'
        for n, (r, g, b) in enumerate(colours)
    )
    return (
        f'{bars}<text x="{_LEFT}" y="{height - 6}">0</text>'
        f'<text x="{_LEFT + 4 * steps}" y="{height - 6}" text-anchor="end">{number(float(f"{top:.3g}"))}</text>'
        f'<text class="name" x="{_LEFT + 4 * steps + 14}" y="{height - 23}">lesions per 100 scans and cm²</text>'
    )


def sides_sentence(scans: pd.DataFrame) -> str:
    """Say whether more lesions were located on one side, with an interval over scans."""
    known = scans.dropna(subset=["n_left", "n_right"])
    left, right = known["n_left"].to_numpy(dtype=np.float64), known["n_right"].to_numpy(dtype=np.float64)
    if len(known) < 2 or not (left + right).any():
        return "Too few lesions were located to compare the sides."
    gaps = left - right
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / math.sqrt(len(gaps)))
    mean = float(gaps.mean())
    verdict = "no more than chance may give"
    if abs(mean) > half:
        verdict = f"more on the {'left' if mean > 0 else 'right'} than chance gives"
    return (
        f"{int(left.sum())} lesions left, {int(right.sum())} right. Left minus right is {mean:.2f} a scan on average "
        f"(95 % interval {mean - half:.2f} to {mean + half:.2f}, {len(known)} scans): {verdict}."
    ).replace("-", "−")


def region_rows(lesions: pd.DataFrame, regions: Sequence[str]) -> list[tuple[str, int, int, str]]:
    """Region, lesions left and right, and the asymmetry index (left - right) / (left + right)."""
    rows = []
    for region in (*regions, "other"):
        mine = lesions.loc[lesions["region"] == region, "hemisphere"]
        left, right = int((mine == "left").sum()), int((mine == "right").sum())
        index = f"{(left - right) / (left + right):z.2f}".replace("-", "−") if left + right else "–"
        rows.append((region, left, right, index))
    return rows
