"""Windows for training: lesions drawn afresh into small boxes of lesion-free canvases, prepared as scans are.

Drawing a whole volume takes seconds, a window a millisecond. So each canvas is reduced once to a `Scene`, what
does not change from step to step, and only lesions, noise and intensity scale are drawn anew. The network is
given the number of lesions of a window and nothing of where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from epvs_cohort.data.atlas import REGIONS
from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.prepare.mask import SoftMask, soft_mask
from epvs_cohort.prepare.trim import trim
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import LABEL_NO_REGION, Float32Array, LabelArray, MniMap, PreparedVolume
from epvs_cohort.simulate.lesions import (
    DEFAULT_COUNT,
    LesionSpec,
    NegativeBinomial,
    Placement,
    draw_lesions,
    fluid_fraction,
)
from epvs_cohort.simulate.noise import interpolated_rician, random_voxel_from_grid
from epvs_cohort.simulate.prepared import Canvas

Int16Array = npt.NDArray[np.int16]
Float16Array = npt.NDArray[np.float16]
BoolArray = npt.NDArray[np.bool_]
Size = tuple[int, int, int]

#: Share of scenes whose mask is made of the true outline.
TRUE_OUTLINE_SHARE = 0.25
#: Places that one lesion and its distance to the next take up, roughly.
PLACES_PER_LESION = 60
#: Voxels near the border of the mask that a scene keeps as anchors.
MAX_EDGES = 5000


@dataclass(frozen=True)
class Scene:
    """A lesion-free canvas, ready for windows.

    Attributes
    ----------
    tissue : ndarray, shape (I, J, K), float16
        Intensities relative to white matter, bias field included, without noise.
    fluid : ndarray, shape (I, J, K), float16
        Intensity of fluid, bias field included.
    weight : ndarray, shape (I, J, K), float16
        Smoothed mask that intensities are multiplied by.
    labels : ndarray, shape (I, J, K), uint8
        As of a prepared volume; 0 outside the mask.
    edges : ndarray, shape (E, 3), int16
        Voxels near the border of the mask.
    grid : Grid
        Voxels to the world that ``placement`` is in.
    placement : Placement
        Where lesions may lie.
    visible : Placement
        The part of it that is within the mask.
    psf_sigma_mm : tuple of float
        Blur that lesions are drawn with.
    noise_sigma : float
        Of the Rician noise, relative to white matter.
    clip_value : float
        What the trim clips at, relative to white matter.
    """

    tissue: Float16Array
    fluid: Float16Array
    weight: Float16Array
    labels: LabelArray
    edges: Int16Array
    grid: Grid
    placement: Placement
    visible: Placement
    psf_sigma_mm: tuple[float, float, float]
    noise_sigma: float
    clip_value: float


def scene_of(canvas: Canvas, protocol: Protocol, rng: np.random.Generator) -> Scene:
    """Make a canvas ready for windows: mask and clip value as ``prepare`` makes them of a scan.

    The outline is the atlas's with its errors, or, for one canvas in four, the true one, as a side file brings it.
    """
    outline = canvas.regions if rng.random() < TRUE_OUTLINE_SHARE else canvas.roi
    everywhere = np.ones(canvas.grid.shape, dtype=np.bool_)
    mask = soft_mask(outline, canvas.grid.spacing_mm, protocol.roi, everywhere)
    edges = np.argwhere(mask.labels == LABEL_NO_REGION)
    if len(edges) == 0:
        edges = np.argwhere(mask.labels > 0)
    kept = rng.permutation(len(edges))[:MAX_EDGES]
    scene = Scene(
        tissue=canvas.image.astype(np.float16),
        fluid=(canvas.fluid * canvas.bias).astype(np.float16),
        weight=mask.weight.astype(np.float16),
        labels=mask.labels,
        edges=edges[kept].astype(np.int16),
        grid=canvas.grid,
        placement=canvas.placement,
        visible=_within(canvas.placement, canvas.grid, mask.labels),
        psf_sigma_mm=canvas.psf_sigma_mm,
        noise_sigma=canvas.noise_sigma,
        clip_value=1.0,
    )
    lesions = draw_lesions(rng, DEFAULT_COUNT.draw(rng), scene.placement)
    return replace(scene, clip_value=trim(_noisy(scene, lesions, rng), mask, protocol.trim).clip_value)


def _within(placement: Placement, grid: Grid, labels: LabelArray) -> Placement:
    voxels = np.rint(apply_affine(np.linalg.inv(grid.affine), placement.points_mm)).astype(np.intp)
    voxels = np.clip(voxels, 0, np.array(grid.shape) - 1)
    return _selected(placement, labels[tuple(voxels.T)] > 0)


def _selected(placement: Placement, chosen: BoolArray) -> Placement:
    weights = placement.weights[chosen]
    return replace(
        placement,
        points_mm=placement.points_mm[chosen],
        weights=weights / max(float(weights.sum()), 1e-12),
        regions=placement.regions[chosen],
    )


@dataclass(frozen=True)
class LabelledVolume:
    """A whole simulated volume and its truth.

    Attributes
    ----------
    volume : PreparedVolume
        Its own world is the scene's; no way back to a head.
    points : ndarray, shape (N, 3)
        Centres of its lesions in voxels of the prepared grid. Training never sees them.
    """

    volume: PreparedVolume
    points: FloatArray

    @property
    def count(self) -> int:
        """True number of lesions."""
        return len(self.points)


def draw_volume(
    scene: Scene,
    key: str,
    protocol: Protocol,
    rng: np.random.Generator,
    count: NegativeBinomial = DEFAULT_COUNT,
) -> LabelledVolume:
    """Draw a whole volume: lesions, noise, mask, trim and scale as for a scan."""
    lesions = draw_lesions(rng, count.draw(rng), scene.placement)
    mask = SoftMask(scene.weight.astype(np.float32), scene.labels)
    trimmed = trim(_noisy(scene, lesions, rng), mask, protocol.trim)
    shape = scene.grid.shape
    volume = PreparedVolume(
        key=key,
        intensities=trimmed.intensities,
        labels=scene.labels,
        regions=REGIONS,
        native_from_grid=scene.grid.affine,
        rigid_from_native=np.eye(4),
        mni=MniMap(scene.grid.affine, np.zeros((2, 2, 2, 3)), shape),
        native=scene.grid,
        ac=None,
        quality=(),
    )
    centers = np.array([lesion.center_mm for lesion in lesions], dtype=np.float64).reshape(-1, 3)
    return LabelledVolume(volume, apply_affine(np.linalg.inv(scene.grid.affine), centers))


def _noisy(scene: Scene, lesions: list[LesionSpec], rng: np.random.Generator) -> Float32Array:
    values = scene.tissue.astype(np.float32)
    fraction = fluid_fraction(lesions, scene.grid, psf_sigma_mm=scene.psf_sigma_mm)
    values += fraction * (scene.fluid.astype(np.float32) - values)
    return _with_noise(scene, values, scene.weight > 0, rng)


def _with_noise(
    scene: Scene, values: Float32Array, where: BoolArray, rng: np.random.Generator
) -> Float32Array:
    spacing = scene.grid.spacing_mm
    frame = random_voxel_from_grid(rng, values.shape, spacing)
    return interpolated_rician(rng, values, scene.noise_sigma, frame, where)


@dataclass(frozen=True)
class WindowSettings:
    """How windows are drawn.

    Attributes
    ----------
    size : tuple of int
        Voxels of a window.
    border_share : float
        Share of windows that are centred on the border of the mask.
    max_count : int
        Counts are drawn evenly from 0 to this number, or to what the window has room for.
    contrast_floor : float
        Lesions of less contrast are not drawn; 0 draws them all.
    clip_jitter : float
        Standard deviation of the logarithm of the clip value around the canvas's own.
    gamma_jitter : float
        Standard deviation of the logarithm of the exponent that intensities are raised to.
    """

    size: Size
    border_share: float = 0.3
    max_count: int = 6
    contrast_floor: float = 0.0
    clip_jitter: float = 0.06
    gamma_jitter: float = 0.1


@dataclass(frozen=True)
class WindowBatch:
    """A batch as the network gets it.

    Attributes
    ----------
    intensities : ndarray, shape (B, I, J, K), float32
        In [0, 1].
    mask : ndarray, shape (B, I, J, K), bool
    counts : ndarray, shape (B,), float32
        Lesions drawn into each window.
    """

    intensities: Float32Array
    mask: BoolArray
    counts: Float32Array


def draw_windows(
    scenes: tuple[Scene, ...], n: int, settings: WindowSettings, rng: np.random.Generator
) -> WindowBatch:
    """Draw ``n`` windows, each from a scene of its own choice.

    The number of lesions asked for is drawn evenly: it depends on neither contrast, noise nor size of the ventricles.
    With the overdispersed counts of scans, a few crowded windows outweighed all others in the squared loss, and the
    size of the mask was all that was learned. Those that do not lie wholly inside are left out, so small windows hold
    fewer than asked for, windows with little of the mask in them fewest, and long lesions seldom; the larger windows
    of later stages hold nearly all.
    """
    drawn = [_draw_window(scenes[int(rng.integers(len(scenes)))], settings, rng) for _ in range(n)]
    intensities, masks, counts = zip(*drawn, strict=True)
    return WindowBatch(np.stack(intensities), np.stack(masks), np.array(counts, dtype=np.float32))


def _draw_window(
    scene: Scene, settings: WindowSettings, rng: np.random.Generator
) -> tuple[Float32Array, BoolArray, int]:
    origin = _origin(scene, settings, rng)
    box = tuple(slice(o, o + s) for o, s in zip(origin.tolist(), settings.size, strict=True))
    window = _part_of(scene.grid, origin, settings.size)
    lesions = _draw_inside(scene.visible, window, settings, rng)
    values = scene.tissue[box].astype(np.float32)
    if lesions:
        fraction = fluid_fraction(lesions, window, psf_sigma_mm=scene.psf_sigma_mm)
        values += fraction * (scene.fluid[box].astype(np.float32) - values)
    weight = scene.weight[box].astype(np.float32)
    values = _with_noise(scene, values, weight > 0, rng)
    values *= weight
    values /= np.float32(scene.clip_value * np.exp(rng.normal(0.0, settings.clip_jitter)))
    np.clip(values, 0.0, 1.0, out=values)
    values **= np.float32(np.exp(rng.normal(0.0, settings.gamma_jitter)))
    mask = scene.labels[box] > 0
    if rng.random() < 0.5:
        # Left and right of the basal ganglia mirror each other.
        return np.ascontiguousarray(values[::-1]), np.ascontiguousarray(mask[::-1]), len(lesions)
    return values, mask, len(lesions)


def _origin(scene: Scene, settings: WindowSettings, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    size = np.array(settings.size)
    if rng.random() < settings.border_share:
        anchor = scene.edges[int(rng.integers(len(scene.edges)))].astype(np.float64)
    else:
        point = scene.visible.points_mm[int(rng.integers(len(scene.visible.points_mm)))]
        anchor = apply_affine(np.linalg.inv(scene.grid.affine), point)
    # The anchor may fall anywhere in the middle half of the window.
    at = np.rint(anchor - size * rng.uniform(0.25, 0.75, 3)).astype(np.int64)
    highest = np.maximum(np.array(scene.tissue.shape) - size, 0)
    return np.asarray(np.clip(at, 0, highest), dtype=np.int64)


def _part_of(grid: Grid, origin: npt.NDArray[np.int64], size: Size) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = apply_affine(grid.affine, origin)
    return Grid(size, affine)


def _draw_inside(
    placement: Placement, window: Grid, settings: WindowSettings, rng: np.random.Generator
) -> list[LesionSpec]:
    to_voxel = np.linalg.inv(window.affine)
    voxels = apply_affine(to_voxel, placement.points_mm)
    within = (voxels >= 0) & (voxels <= np.array(window.shape) - 1)
    inside: BoolArray = np.all(within, axis=1)
    room = int(inside.sum()) // PLACES_PER_LESION
    n = min(int(rng.integers(settings.max_count + 1)), room)
    if n == 0:
        return []
    here = _selected(placement, inside)
    low, high = here.shape.contrast_range
    shape = replace(here.shape, contrast_range=(max(low, settings.contrast_floor), high))
    drawn = draw_lesions(rng, n, replace(here, shape=shape))
    return [lesion for lesion in drawn if _wholly_inside(lesion, window)]


def _wholly_inside(lesion: LesionSpec, window: Grid) -> bool:
    half = np.abs(lesion.half_axis_mm * np.asarray(lesion.direction)) + lesion.radius_mm
    center = np.asarray(lesion.center_mm)
    ends = apply_affine(np.linalg.inv(window.affine), np.stack([center - half, center + half]))
    return bool((ends > -0.5).all() and (ends < np.array(window.shape) - 0.5).all())
