"""Small pictures of scans: painting that preparation and cohort share, and the pictures of found lesions.

All planes are shown in the radiological convention: the person's right is on the left of the picture.
Colours are those of Okabe and Ito (2008, Color Universal Design), which differ for colour-blind readers too.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from epvs_cohort.errors import StoreError
from epvs_cohort.geometry import MNI_ANTERIOR_COMMISSURE_MM, apply_affine
from epvs_cohort.records import Detection, Float32Array, Lesion, MniMap, PreparedVolume

#: Signs that Pillow's own font draws as an empty box, and what stands for them in pictures.
_DRAWN_AS: Final = str.maketrans({"−": "-", "–": "-", "—": "-", "×": "x", "≥": ">=", "≤": "<=", "…": "..."})
Colour = tuple[int, int, int]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

ORANGE: Final[Colour] = (230, 159, 0)
SKY: Final[Colour] = (86, 180, 233)
GREEN: Final[Colour] = (0, 158, 115)
YELLOW: Final[Colour] = (240, 228, 66)
VERMILION: Final[Colour] = (213, 94, 0)
PURPLE: Final[Colour] = (204, 121, 167)
WHITE: Final[Colour] = (255, 255, 255)

#: Heat from low to high: lightness rises throughout, so the order survives without colour.
_HEAT_STOPS: Final = np.array(
    [[40, 11, 84], [159, 42, 99], [237, 105, 37], [252, 255, 164]], dtype=np.float64
)
#: Heat below this part of the scan's highest heat is left clear.
_HEAT_FLOOR: Final = 0.15
#: Prepared intensity shown as white: the trim leaves headroom above the tissue.
_BRIGHT_INTENSITY: Final = 0.85
#: WebP quality of the large pages of slices, which are three times enlarged and so hold no fine detail.
_PAGE_QUALITY: Final = 50
#: Border of the mask on painted slices.
_MASK_GREY: Final[Colour] = (150, 150, 150)
#: Letters at the left, right, top and bottom of a plane, by the axis it is cut across.
_EDGE_LETTERS: Final = {0: tuple("APSI"), 1: tuple("RLSI"), 2: tuple("RLAP")}
#: Name of the stored greyscale picture of grid slice k.
SLICE_NAME: Final = "slice_{k:03d}.webp"


def window(values: npt.NDArray[np.floating], low: float, high: float) -> ByteArray:
    """Grey levels 0..255 of ``values``, linear between ``low`` and ``high``.

    >>> window(np.array([0.0, 0.5, 2.0]), 0.0, 1.0).tolist()
    [0, 127, 255]
    """
    scaled = (np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-9)
    return np.asarray(np.clip(scaled, 0.0, 1.0) * 255.0, dtype=np.uint8)


def upright(plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Turn a plane (a, b) of an RAS array so that b runs up and a runs to the left: rows and columns of a picture.

    Axial (i, j): front at the top, the person's right on the left. Coronal (i, k): head at the top, right on
    the left. Sagittal (j, k): head at the top, front on the left.
    """
    flipped = plane.T[::-1, ::-1]
    return np.ascontiguousarray(flipped)


def outline(region: BoolArray) -> BoolArray:
    """Pixels of a region that touch a pixel outside it (4-neighbours); the picture's border does not count.

    >>> outline(np.ones((3, 3), bool)).any()
    np.False_
    """
    padded = np.pad(region, 1, mode="edge")
    inner = padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return np.asarray(region & ~inner, dtype=np.bool_)


def enlarge(picture: npt.NDArray[np.generic], times: int) -> npt.NDArray[np.generic]:
    """Repeat each pixel ``times`` along rows and columns, so that outlines stay one thin pixel wide."""
    return np.repeat(np.repeat(picture, times, axis=0), times, axis=1)


def grey_panel(grey: ByteArray, size: tuple[int, int]) -> Pillow.Image:
    """Greyscale picture (rows, columns) as an RGB panel of ``size`` (width, height), smoothly enlarged."""
    return Pillow.fromarray(grey).resize(size, Pillow.Resampling.BICUBIC).convert("RGB")


def paint(panel: Pillow.Image, region: BoolArray, colour: Colour) -> None:
    """Draw the outline of a region (rows, columns) on a panel in place, one panel pixel wide."""
    times = max(panel.width // region.shape[1], 1)
    pixels = np.asarray(panel).copy()
    border = outline(np.asarray(enlarge(region, times), dtype=np.bool_))[: panel.height, : panel.width]
    pixels[: border.shape[0], : border.shape[1]][border] = colour
    panel.paste(Pillow.fromarray(pixels))


def heat_colours(share: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """RGB of heat in [0, 1], shape (..., 3)."""
    at = np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0) * (len(_HEAT_STOPS) - 1)
    stops = np.arange(len(_HEAT_STOPS))
    return np.stack([np.interp(at, stops, _HEAT_STOPS[:, channel]) for channel in range(3)], axis=-1)


def heat_opacity(share: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Opacity of heat in [0, 1]: none below the floor, then the hotter, the less transparent."""
    heat = np.asarray(share, dtype=np.float64)
    return np.where(heat > _HEAT_FLOOR, 0.25 + 0.5 * np.clip(heat, 0.0, 1.0), 0.0)


def blend_heat(panel: Pillow.Image, share: npt.NDArray[np.floating]) -> None:
    """Lay heat in [0, 1] (rows, columns) over a panel in place; the hotter, the less transparent."""
    wide = Pillow.fromarray(np.asarray(share, dtype=np.float32)).resize(
        panel.size, Pillow.Resampling.BILINEAR
    )
    heat = np.asarray(wide, dtype=np.float64)
    opacity = heat_opacity(heat)[..., None]
    mixed = np.asarray(panel, dtype=np.float64) * (1.0 - opacity) + heat_colours(heat) * opacity
    panel.paste(Pillow.fromarray(mixed.astype(np.uint8)))


def drawable(text: str) -> str:
    """Text in the signs that the drawn font has: minus and dashes as hyphens, letters without their accents.

    >>> drawable("z = −4 mm, 2–3 per cm², Zoë")
    'z = -4 mm, 2-3 per cm2, Zoe'
    """
    apart = unicodedata.normalize("NFKD", text.translate(_DRAWN_AS))
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


def write(
    panel: Pillow.Image, text: str, at: tuple[int, int], colour: Colour = WHITE, size: int = 14
) -> None:
    """Write text with a dark rim at (x, y), legible over bright fluid and dark bone alike."""
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(panel)
    draw.text(at, drawable(text), fill=colour, font=font, stroke_width=2, stroke_fill=(0, 0, 0))


def letter(panel: Pillow.Image, axis: int) -> None:
    """Mark the directions at the four edges of a plane cut across ``axis``, as radiologists read them."""
    left, right, top, bottom = _EDGE_LETTERS[axis]
    middle_x, middle_y = panel.width // 2 - 4, panel.height // 2 - 8
    write(panel, left, (3, middle_y))
    write(panel, right, (panel.width - 14, middle_y))
    write(panel, top, (middle_x, 2))
    write(panel, bottom, (middle_x, panel.height - 20))


def side_by_side(panels: Sequence[Pillow.Image], *, down: bool = False) -> Pillow.Image:
    """Join panels from left to right, or from top to bottom, with a gap of 2 pixels."""
    widths, heights = [p.width for p in panels], [p.height for p in panels]
    gaps = 2 * (len(panels) - 1)
    size = (max(widths), sum(heights) + gaps) if down else (sum(widths) + gaps, max(heights))
    sheet, at = Pillow.new("RGB", size, (0, 0, 0)), 0
    for panel in panels:
        sheet.paste(panel, (0, at) if down else (at, 0))
        at += (panel.height if down else panel.width) + 2
    return sheet


def encode(picture: Pillow.Image, *, quality: int = 70) -> bytes:
    """WebP bytes of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def decode(content: bytes) -> Pillow.Image:
    """Picture from WebP or PNG bytes, fully loaded.

    Raises
    ------
    StoreError
        It is neither, is damaged, or claims more pixels than any picture of ours.
    """
    try:
        with Pillow.open(io.BytesIO(content), formats=("WEBP", "PNG")) as picture:
            picture.load()
            return picture.copy()
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise StoreError(
            f"a picture of the store cannot be read: {error}", hint="run with --overwrite: it is drawn again"
        ) from error


def ac_grid_voxel(mni: MniMap) -> tuple[float, float, float]:
    """Voxel of the prepared grid, real-valued, that the MNI map takes to the anterior commissure.

    The offsets of the map are small and smooth, so the fixed-point iteration p = A⁻¹(AC - offset(p)) contracts.
    """
    target = np.asarray(MNI_ANTERIOR_COMMISSURE_MM, dtype=np.float64)
    back = np.linalg.inv(mni.mni_from_grid)
    at = apply_affine(back, target)
    for _ in range(20):
        offset = mni(at) - apply_affine(mni.mni_from_grid, at)
        at = apply_affine(back, target - offset)
    return (float(at[0]), float(at[1]), float(at[2]))


def ac_grid_slice(volume: PreparedVolume) -> int | None:
    """Grid slice k nearest the scan's AC slice beside the anterior commissure; None where it is not in the grid."""
    if volume.ac is None:
        return None
    native_from_grid = np.linalg.inv(volume.native.affine) @ volume.native_from_grid
    voxel = apply_affine(native_from_grid, ac_grid_voxel(volume.mni))
    voxel[volume.ac.axis] = volume.ac.index
    k = round(float(apply_affine(np.linalg.inv(native_from_grid), voxel)[2]))
    return k if 0 <= k < volume.labels.shape[2] else None


def lesion_pictures(
    volume: PreparedVolume, heat_volume: Float32Array, detection: Detection
) -> Mapping[str, bytes]:
    """Pictures of the heatmap and the numbered lesions: the AC slice with its neighbours, the fullest slices.

    Each row shows one grid slice twice: plain, and with heat, mask, component outlines and numbered circles. The
    slices at the AC are shown as scanned where the volume brings their pictures, the others as the network sees them.

    Parameters
    ----------
    volume : PreparedVolume
        Its pictures ``slice_kkk.webp`` are the background at the AC where there are any, else its intensities.
    heat_volume : ndarray, shape (I, J, K), float32
        Heatmap M on the prepared grid.
    detection : Detection
        Lesions and component labels on the same grid.

    Returns
    -------
    mapping of str to bytes
        ``lesions_ac.webp`` (absent where the AC is not in the grid) and ``lesions_most.webp``.
    """
    top = float(heat_volume.max()) if heat_volume.size else 0.0
    share = heat_volume / np.float32(top) if top > 0 else np.zeros_like(heat_volume)
    depth = heat_volume.shape[2]
    ac = ac_grid_slice(volume)
    found: dict[str, bytes] = {}
    if ac is not None:
        rows = [k for k in (ac + 1, ac, ac - 1) if 0 <= k < depth]
        panels = [
            _lesion_row(volume, share, detection, (k, f"AC {k - ac:+d}" if k != ac else "AC")) for k in rows
        ]
        found["lesions_ac.webp"] = encode(
            side_by_side([_summary(detection, panels[0].width), *panels], down=True), quality=_PAGE_QUALITY
        )
    fullest = fullest_slices(detection, depth)
    panels = [_lesion_row(volume, share, detection, (k, "")) for k in fullest]
    found["lesions_most.webp"] = encode(side_by_side(panels, down=True), quality=_PAGE_QUALITY)
    return found


def _summary(detection: Detection, width: int) -> Pillow.Image:
    """Strip that says how many lesions were found, at which threshold and how it was settled."""
    strip = Pillow.new("RGB", (width, 24), (0, 0, 0))
    many = len(detection.lesions)
    text = f"{many} lesion{'' if many == 1 else 's'} in the whole region"
    if detection.threshold is not None:
        text += f", threshold {detection.threshold:.3g} ({detection.threshold_how})"
    write(strip, text, (6, 3), size=15)
    return strip


def fullest_slices(detection: Detection, depth: int, wanted: int = 3) -> list[int]:
    """Slices that hold the most lesion centres, each at least 3 slices from the others, from top to bottom."""
    centres = np.array([round(lesion.grid_voxel[2]) for lesion in detection.lesions], dtype=np.intp)
    if centres.size == 0:
        return [depth // 2]
    counts = np.bincount(np.clip(centres, 0, depth - 1), minlength=depth)
    # The middle slice weighs more, so that a lone lesion is shown at its centre.
    near = np.convolve(counts, (1.0, 1.5, 1.0), mode="same")
    chosen: list[int] = []
    for k in np.argsort(-near, kind="stable"):
        if near[k] > 0 and all(abs(int(k) - other) >= 3 for other in chosen):
            chosen.append(int(k))
    return sorted(chosen[:wanted], reverse=True)


def _background(volume: PreparedVolume, k: int, *, as_scanned: bool) -> ByteArray:
    stored = volume.pictures.get(SLICE_NAME.format(k=k)) if as_scanned else None
    if stored is not None:
        return np.asarray(decode(stored).convert("L"), dtype=np.uint8)
    return seen_slice(volume, k)


def seen_slice(volume: PreparedVolume, k: int) -> ByteArray:
    """Grid slice k as the network sees it, upright."""
    return window(upright(volume.intensities[:, :, k]).astype(np.float32), 0.0, _BRIGHT_INTENSITY)


def _lesion_row(
    volume: PreparedVolume, share: Float32Array, detection: Detection, slice_and_title: tuple[int, str]
) -> Pillow.Image:
    k, title = slice_and_title
    width, height, _ = share.shape
    spacing = np.linalg.norm(volume.native_from_grid[:3, :3], axis=0)
    size = (3 * width, round(3 * height * float(spacing[1] / spacing[0])))
    grey = _background(volume, k, as_scanned=bool(title))
    plain, painted = grey_panel(grey, size), grey_panel(grey, size)
    blend_heat(painted, np.asarray(upright(share[:, :, k]), dtype=np.float32))
    paint(painted, np.asarray(upright(volume.labels[:, :, k] > 0), dtype=np.bool_), _MASK_GREY)
    _draw_lesions(painted, detection, k, share.shape)
    for panel in (plain, painted):
        letter(panel, 2)
    write(plain, f"{title}  slice {k}".strip(), (6, 4))
    return side_by_side([plain, painted])


def _draw_lesions(panel: Pillow.Image, detection: Detection, k: int, shape: tuple[int, ...]) -> None:
    components = np.asarray(upright(detection.component_labels[:, :, k] > 0), dtype=np.bool_)
    paint(panel, components, GREEN)
    draw = ImageDraw.Draw(panel)
    for lesion in detection.lesions:
        if abs(lesion.grid_voxel[2] - k) > 1.5:
            continue
        x, y = _panel_position(lesion, panel, shape)
        radius = 14
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=SKY, width=2)
        write(panel, str(lesion.number), (x + radius - 2, y - radius - 8), SKY, 16)


def _panel_position(lesion: Lesion, panel: Pillow.Image, shape: tuple[int, ...]) -> tuple[int, int]:
    i, j, _ = lesion.grid_voxel
    return (
        round((shape[0] - 0.5 - i) / shape[0] * panel.width),
        round((shape[1] - 0.5 - j) / shape[1] * panel.height),
    )
