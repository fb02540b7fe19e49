"""Pictures like the paper's Fig. 2 and 3: true lesions, each method's map with its marks, and what it cuts out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw

from epvs_cohort.compare.matching import match_lesions
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.compare.trial import (
    MarkedScan,
    Scored,
    Trial,
    TriedScan,
    centers_of,
    components_at,
    score_volume,
    slab_of,
)
from epvs_cohort.data.pictures import (
    Colour,
    grey_panel,
    letter,
    outline,
    side_by_side,
    upright,
    window,
    write,
)
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.records import PreparedVolume

#: As in the paper's figures, in hues and lightness that differ for colour-blind readers too.
TRUE_POSITIVE: Final[Colour] = (60, 220, 120)
FALSE_POSITIVE: Final[Colour] = (70, 150, 255)
FALSE_NEGATIVE: Final[Colour] = (255, 70, 50)

#: Lesions whose centre lies this many slices away are marked too: three voxels is what counts as found.
NEAR_SLICES: Final = 3.0
#: Panel pixels a voxel, voxels around the mask, and the radius of a mark in pixels.
_TIMES, _MARGIN, _RADIUS = 3, 4, 10
#: Prepared intensity shown as white: the trim leaves headroom above the tissue.
_BRIGHT: Final = 0.85
#: Quantile of a method's map in the mask that is shown white: a gradient's highest value stands alone.
_WHITE: Final = 0.9995
#: Ranks of the test scans, by number of true lesions, that are shown.
_SHOWN: Final = (0.5, 0.8, 0.2)


@dataclass(frozen=True)
class _View:
    """The part of one slice that is shown.

    Attributes
    ----------
    k : ndarray, shape (I, J), intp
        Slice of the prepared grid at each place: the same everywhere, or that of the native slice of the anterior
        commissure, which lies askew in the grid.
    low, high : tuple of int
        First voxel and the one behind the last, along i and j.
    size : tuple of int
        Width and height of a panel in pixels.
    """

    k: npt.NDArray[np.intp]
    low: tuple[int, int]
    high: tuple[int, int]
    size: tuple[int, int]

    def cut(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Rows and columns of a (I, J, K) array as a picture shows them."""
        shown = np.take_along_axis(values, self.k[:, :, None], axis=2)[:, :, 0]
        return upright(shown[self.low[0] : self.high[0], self.low[1] : self.high[1]])

    def is_near(self, center: FloatArray) -> bool:
        """Whether a voxel lies so near the slice that it is marked."""
        i, j = (int(np.clip(round(float(x)), 0, n - 1)) for x, n in zip(center, self.k.shape, strict=False))
        return abs(float(center[2]) - float(self.k[i, j])) <= NEAR_SLICES

    def at(self, center: FloatArray) -> tuple[float, float]:
        """Pixel of a voxel."""
        (i0, j0), (i1, j1) = self.low, self.high
        x = (i1 - 0.5 - float(center[0])) / (i1 - i0) * self.size[0]
        y = (j1 - 0.5 - float(center[1])) / (j1 - j0) * self.size[1]
        return x, y


@dataclass(frozen=True)
class _Marks:
    """Lesions of one method: centres that were found and are there, found and not there, missed."""

    hits: FloatArray
    false: FloatArray
    missed: FloatArray


def examples(scans: Sequence[TriedScan]) -> list[str]:
    """Keys of scans to show: of middling, of many and of few true lesions; how well they came out plays no part."""
    ordered = sorted(
        (scan for scan in scans if not scan.fault and scan.n_true), key=lambda s: (s.n_true, s.key)
    )
    chosen = (ordered[round(share * (len(ordered) - 1))].key for share in _SHOWN) if ordered else ()
    return list(dict.fromkeys(chosen))


def panel(scan: MarkedScan, trial: Trial) -> bytes:
    """Picture of one scan, a row a method, as PNG bytes.

    Left the prepared intensities with the true lesions, in the middle the method's map with its marks, right the
    components at its threshold.

    Raises
    ------
    EpvsError
        The scan cannot be read or scored.
    """
    volume = PreparedStore(scan.store).load(scan.key).volume
    truth = apply_affine(volume.grid_from_native, scan.points_mm)
    view = _view(volume, truth, trial)
    scored = score_volume(volume, trial)
    rows = [
        side_by_side(
            [
                _intensities(volume, truth, view, f"({name}) {METHODS[name].name}"),
                *_map_and_segmentation(volume, truth, view, (each, trial)),
            ]
        )
        for name, each in scored.items()
    ]
    sheet = side_by_side(rows, down=True)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _view(volume: PreparedVolume, truth: FloatArray, trial: Trial) -> _View:
    depth = volume.labels.shape[2]
    near = [(np.abs(truth[:, 2] - slice_) <= NEAR_SLICES).sum() for slice_ in range(depth)]
    k = np.full(volume.labels.shape[:2], int(np.argmax(near)), dtype=np.intp)
    slab = slab_of(volume, trial.protocol)
    if slab is not None:
        first, last = slab.argmax(axis=2), depth - 1 - slab[:, :, ::-1].argmax(axis=2)
        k = np.where(slab.any(axis=2), (first + last) // 2, k)
    sides = [np.flatnonzero(volume.mask.any(axis=axes)) for axes in ((1, 2), (0, 2))]
    low = tuple(max(0, int(side[0]) - _MARGIN) for side in sides)
    high = tuple(
        min(n, int(side[-1]) + 1 + _MARGIN) for side, n in zip(sides, volume.labels.shape, strict=False)
    )
    spacing = np.linalg.norm(volume.native_from_grid[:3, :3], axis=0)
    width, height = (b - a for a, b in zip(low, high, strict=True))
    size = (_TIMES * width, round(_TIMES * height * float(spacing[1] / spacing[0])))
    return _View(k, (low[0], low[1]), (high[0], high[1]), size)


def _intensities(volume: PreparedVolume, truth: FloatArray, view: _View, title: str) -> Pillow.Image:
    grey = window(np.asarray(view.cut(volume.intensities), dtype=np.float32), 0.0, _BRIGHT)
    drawn = grey_panel(grey, view.size)
    _circle(drawn, view, truth, TRUE_POSITIVE)
    letter(drawn, 2)
    write(drawn, title, (5, 3))
    return drawn


def _map_and_segmentation(
    volume: PreparedVolume, truth: FloatArray, view: _View, scored: tuple[Scored, Trial]
) -> tuple[Pillow.Image, Pillow.Image]:
    each, trial = scored
    scores = np.zeros(volume.labels.shape, dtype=np.float32)
    scores[volume.mask] = each.scores
    middle, top = (float(value) for value in np.quantile(each.scores, (0.5, _WHITE)))
    shown = np.where(volume.mask, (scores - middle) / max(top - middle, 1e-12), 0.0)
    heat = grey_panel(window(np.asarray(view.cut(shown), dtype=np.float32), 0.0, 1.0), view.size)
    segmentation = Pillow.new("RGB", view.size, (0, 0, 0))
    pixels = np.zeros((*np.asarray(view.cut(volume.mask)).shape, 3), dtype=np.uint8)
    pixels[outline(np.asarray(view.cut(volume.mask), dtype=np.bool_))] = (110, 110, 110)
    marks = _Marks(np.zeros((0, 3)), np.zeros((0, 3)), truth)
    if each.settled.threshold is not None:
        slab = slab_of(volume, trial.protocol)
        connectivity = trial.protocol.detection.connectivity
        voxels, numbers = components_at(volume.mask, each.scores, each.settled.threshold, connectivity)
        centers, found = centers_of(voxels, numbers, slab=slab)
        pairs = match_lesions(truth, centers)
        hit = np.zeros(len(centers), dtype=np.bool_)
        hit[pairs.found] = True
        marks = _Marks(centers[hit], centers[~hit], np.delete(truth, pairs.true, axis=0))
        for chosen, colour in ((found[hit], TRUE_POSITIVE), (found[~hit], FALSE_POSITIVE)):
            part = np.zeros(volume.labels.shape, dtype=np.bool_)
            part[tuple(voxels[np.isin(numbers, chosen)].T)] = True
            pixels[np.asarray(view.cut(part), dtype=np.bool_)] = colour
    segmentation.paste(Pillow.fromarray(pixels).resize(view.size, Pillow.Resampling.NEAREST))
    for drawn in (heat, segmentation):
        if drawn is heat:
            _circle(drawn, view, marks.hits, TRUE_POSITIVE)
            _circle(drawn, view, marks.false, FALSE_POSITIVE)
        _circle(drawn, view, marks.missed, FALSE_NEGATIVE)
    write(
        heat,
        f"count {each.prediction.count:.1f}: {len(marks.hits)} found, {len(marks.false)} false, "
        f"{len(marks.missed)} missed",
        (5, 3),
    )
    return heat, segmentation


def _circle(drawn: Pillow.Image, view: _View, centers: FloatArray, colour: Colour) -> None:
    draw = ImageDraw.Draw(drawn)
    for center in centers:
        if view.is_near(center):
            x, y = view.at(center)
            draw.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), outline=colour, width=2)
