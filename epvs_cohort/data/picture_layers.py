"""Layers over the pictures of a scan that a page turns on and off: heat, outlines, and where numbered lesions lie.

``layers.json`` names, for each view, the grey picture under, the transparent ones over it, and the lesions as
``[number, x, y]`` in pixels of a frame of ``size`` (width, height).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy import ndimage

from epvs_cohort.data.pictures import (
    GREEN,
    SLICE_NAME,
    BoolArray,
    Colour,
    ac_grid_slice,
    encode,
    enlarge,
    fullest_slices,
    heat_colours,
    heat_opacity,
    outline,
    seen_slice,
    upright,
)
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.records import Detection, Float32Array, PreparedVolume

#: Where the page finds what lies over what.
LAYERS: Final = "layers.json"
#: Where the three planes through the region lie: written with them, read when heat is known.
PLANES: Final = "planes.json"
#: Three planes without anything on them, with the outline of the region, and with the edges of the template.
PLAIN_ROI, PLAIN_REGISTRATION = "roi_plain.webp", "registration_plain.webp"
#: A lesion is marked on a slice of the grid and on a plane where its centre lies within so much of it.
NEAR_SLICES: Final = 1.5
NEAR_MM: Final = 3.0
_MASK_GREY: Final[Colour] = (190, 190, 190)
_TIMES: Final = 3
_QUALITY: Final = 60


def planes_record(
    affines: Sequence[FloatArray], shapes: Sequence[Sequence[int]], size: tuple[int, int]
) -> bytes:
    """Record of three planes that stand side by side in one picture, across x, y and z.

    Parameters
    ----------
    affines : sequence of ndarray, shape (4, 4)
        Plane voxel to rigid-frame mm.
    shapes : sequence
        (I, J, K) of each plane, 1 along its own axis.
    size : tuple of int
        Width and height of the picture.
    """
    planes = [
        {"affine": np.asarray(affine).tolist(), "shape": list(shape)}
        for affine, shape in zip(affines, shapes, strict=True)
    ]
    return json.dumps({"planes": planes, "size": list(size)}).encode()


def lesion_layers(
    volume: PreparedVolume, heat_volume: Float32Array, detection: Detection
) -> Mapping[str, bytes]:
    """Layers of heat, outlines and lesions for the slices and the planes of one scan.

    Parameters
    ----------
    volume : PreparedVolume
        With the pictures that were stored when it was prepared; planes without a record get no layers.
    heat_volume : ndarray, shape (I, J, K), float32
        Heatmap on the prepared grid.
    detection : Detection
        Lesions and component labels on the same grid.

    Returns
    -------
    mapping of str to bytes
        ``layers.json`` and the pictures that it names.
    """
    top = float(heat_volume.max()) if heat_volume.size else 0.0
    share = heat_volume / np.float32(top) if top > 0 else np.zeros_like(heat_volume)
    found: dict[str, bytes] = {}
    views = [
        _slice_view(volume, share, detection, (number, k, title), found)
        for number, (k, title) in enumerate(_shown_slices(volume, detection))
    ]
    planes = _planes_view(volume, share, detection, found)
    found[LAYERS] = json.dumps({"slices": views, "planes": planes}, allow_nan=False).encode()
    return found


def stored_layers(pictures: Mapping[str, bytes]) -> dict[str, Any] | None:
    """What lies over what; None for scans of earlier versions, and where a picture that it names is not there."""
    try:
        found: dict[str, Any] = json.loads(pictures[LAYERS])
        views = [*found["slices"], *([found["planes"]] if found["planes"] else [])]
        named = {view[name] for view in views for name in ("under", "heat")}
    except (KeyError, ValueError, TypeError):
        return None
    return found if named <= set(pictures) else None


def _shown_slices(volume: PreparedVolume, detection: Detection) -> list[tuple[int, str]]:
    """Grid slices with their titles: the AC slice with its neighbours from top to bottom, then the fullest ones."""
    depth, ac = volume.labels.shape[2], ac_grid_slice(volume)
    shown: list[tuple[int, str]] = []
    if ac is not None:
        around = [k for k in (ac + 1, ac, ac - 1) if 0 <= k < depth]
        step = float(np.linalg.norm(volume.native_from_grid[:3, 2]))
        shown = [(k, "AC" if k == ac else f"AC {(k - ac) * step:+.1f} mm".replace("-", "−")) for k in around]
    near = {k for k, _ in shown}
    return shown + [(k, "most lesions") for k in fullest_slices(detection, depth) if k not in near]


def _slice_view(
    volume: PreparedVolume,
    share: Float32Array,
    detection: Detection,
    which: tuple[int, int, str],
    found: dict[str, bytes],
) -> dict[str, Any]:
    number, k, title = which
    width, height, _ = share.shape
    spacing = np.linalg.norm(volume.native_from_grid[:3, :3], axis=0)
    size = (float(width), height * float(spacing[1] / spacing[0]))
    under = SLICE_NAME.format(k=k)
    if under not in volume.pictures:
        under = f"layer_{number}_seen.webp"
        found[under] = encode(Pillow.fromarray(seen_slice(volume, k)), quality=60)
    heat, lines = f"layer_{number}_heat.webp", f"layer_{number}_lines.webp"
    found[heat] = _heat(np.asarray(upright(share[:, :, k]), dtype=np.float32))
    mask = np.asarray(upright(volume.labels[:, :, k] > 0), dtype=np.bool_)
    parts = np.asarray(upright(detection.component_labels[:, :, k] > 0), dtype=np.bool_)
    found[lines] = _lines([(mask, _MASK_GREY), (parts, GREEN)])
    marks = []
    for lesion in detection.lesions:
        i, j, at = lesion.grid_voxel
        if abs(at - k) <= NEAR_SLICES:
            x, y = width - 0.5 - i, (height - 0.5 - j) / height * size[1]
            marks.append([lesion.number, round(x, 1), round(y, 1)])
    names = {"under": under, "heat": heat, "lines": lines}
    return {"title": title, "slice": k, "size": [round(side, 2) for side in size], "lesions": marks, **names}


def _planes_view(
    volume: PreparedVolume, share: Float32Array, detection: Detection, found: dict[str, bytes]
) -> dict[str, Any] | None:
    """Heat and lesions on the planes through the region; None where the scan was prepared without their record."""
    try:
        record = json.loads(volume.pictures[PLANES])
    except (KeyError, ValueError):
        return None
    width, height = (int(side) for side in record["size"])
    sheet = Pillow.new("RGBA", (width // 2, height // 2))
    rigid_from_grid = volume.rigid_from_native @ volume.native_from_grid
    centres = np.array([lesion.grid_voxel for lesion in detection.lesions], dtype=np.float64).reshape(-1, 3)
    centres_mm = apply_affine(rigid_from_grid, centres)
    marks, left = [], 0
    for axis, plane in enumerate(record["planes"]):
        affine, shape = np.asarray(plane["affine"], dtype=np.float64), tuple(plane["shape"])
        cut = np.asarray(
            upright(_on_plane(share, np.linalg.inv(rigid_from_grid) @ affine, shape, axis)), dtype=np.float32
        )
        sheet.paste(_heat_picture(cut), (left // 2, 0))
        across, up = [other for other in range(3) if other != axis]
        at = apply_affine(np.linalg.inv(affine), centres_mm)
        for lesion, voxel, mm in zip(detection.lesions, at, centres_mm, strict=True):
            if abs(mm[axis] - affine[axis, 3]) <= NEAR_MM:
                x = left + 2 * (shape[across] - 0.5 - float(voxel[across]))
                marks.append([lesion.number, round(x, 1), round(2 * (shape[up] - 0.5 - float(voxel[up])), 1)])
        # Panels are twice as wide as the plane has voxels, with a gap of 2 pixels.
        left += 2 * shape[across] + 2
    heat = "layer_planes_heat.webp"
    found[heat] = encode(sheet, quality=_QUALITY)
    return {
        "under": PLAIN_ROI,
        "outline": "roi.webp",
        "heat": heat,
        "size": [width, height],
        "lesions": marks,
    }


def _on_plane(
    share: Float32Array, grid_from_plane: FloatArray, shape: tuple[int, ...], axis: int
) -> npt.NDArray[np.float32]:
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    at = np.moveaxis(apply_affine(grid_from_plane, voxels), -1, 0)
    cut = ndimage.map_coordinates(share, at, order=1, mode="constant", cval=0.0)
    return np.asarray(np.squeeze(cut, axis=axis), dtype=np.float32)


def _heat_picture(share: npt.NDArray[np.floating]) -> Pillow.Image:
    """Heat in [0, 1] (rows, columns) with its transparency."""
    opacity = heat_opacity(share)[..., None] * 255.0
    return Pillow.fromarray(np.concatenate([heat_colours(share), opacity], axis=-1).astype(np.uint8), "RGBA")


def _heat(share: npt.NDArray[np.floating]) -> bytes:
    return encode(_heat_picture(share), quality=_QUALITY)


def _lines(regions: Sequence[tuple[BoolArray, Colour]]) -> bytes:
    """Outlines on nothing, without loss: few colours pack well."""
    rows, columns = (side * _TIMES for side in regions[0][0].shape)
    pixels = np.zeros((rows, columns, 4), dtype=np.uint8)
    for region, colour in regions:
        pixels[outline(np.asarray(enlarge(region, _TIMES), dtype=np.bool_))] = (*colour, 255)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels, "RGBA").save(buffer, format="WEBP", lossless=True)
    return buffer.getvalue()
