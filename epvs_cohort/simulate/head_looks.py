"""What contrast, pathology, scanner and anonymisation make of a head on a coarse grid, drawn more widely than life.

A network that has seen contrasts and faults of every kind need not have seen those of one study (Billot et al. 2023,
Medical Image Analysis 86:102789).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.head_classes import BASAL_GANGLIA, HeadClass
from epvs_cohort.protocol import Settings
from epvs_cohort.records import Float32Array, LabelArray
from epvs_cohort.simulate.scanner import BIAS_MM, bias_field, rician
from epvs_cohort.simulate.tissue import Tissue, TissueModel, draw_tissue
from epvs_cohort.simulate.warp import stretch

Share = Annotated[float, Field(ge=0, le=1)]
BoolArray = npt.NDArray[np.bool_]

#: Around the brain; their contrast with it depends on fat suppression, coils and bandwidth more than the brain's own.
_AROUND: Final = (
    Tissue.BONE,
    Tissue.MARROW,
    Tissue.SOFT,
    Tissue.SKIN,
    Tissue.EYE,
    Tissue.MUSCLE,
    Tissue.MUCOSA,
)

#: Brightest mean and largest spread of a tissue in the random mixture; SynthSeg draws 0 to 255 and 0 to 35.
_MIXTURE_MEAN: Final = (0.02, 1.0)
_MIXTURE_SPREAD: Final = (0.0, 0.12)
#: Share of random mixtures in which air is not black.
_BRIGHT_AIR: Final = 0.1

#: Share of lesions of the white matter's voxels at most, and how far they crowd around the ventricles.
_LESION_SHARE: Final = (0.002, 0.08)
_LESION_CROWDING: Final = 4.0
#: Bright specks in the basal ganglia: share of their voxels.
_SPECK_SHARE: Final = (0.005, 0.05)
#: Half axes in mm of a stroke or a tumour.
_MASS_MM: Final = (5.0, 25.0)


class LookSettings(Settings):
    """Shares of the samples that have a fault, and how large it is at most."""

    #: Contrasts near those of PD and T2 scans; the others are a Gaussian mixture of random means and spreads.
    realistic_share: Share = 0.55
    lesion_share: Share = 0.4
    speck_share: Share = 0.4
    mass_share: Share = 0.06
    #: Thick slices along one axis, and a coarser voxel along all.
    thick_share: Share = 0.5
    thick_mm: tuple[float, float] = (2.5, 8.0)
    coarse_share: Share = 0.15
    coarse_mm: tuple[float, float] = (2.5, 4.5)
    #: Gaussian blur in mm along each axis.
    blur_mm: tuple[float, float] = (0.0, 2.0)
    #: Largest relative deviation of the bias field.
    bias: tuple[float, float] = (0.0, 0.5)
    #: Deviation of each channel relative to the brightest tissue.
    noise: tuple[float, float] = (0.0, 0.08)
    #: Standard deviation of the logarithm of gamma.
    gamma_sigma: Annotated[float, Field(ge=0, le=1)] = 0.25
    stripped_share: Share = 0.2
    defaced_share: Share = 0.15
    #: Each face of the field of view lies within the grid in this share, by at most this part of the grid's length.
    cropped_share: Share = 0.22
    cropped_part: Annotated[float, Field(ge=0, le=0.5)] = 0.42


def look_constants() -> dict[str, object]:
    """What a look depends on besides `LookSettings` and the tables of tissues."""
    return {
        "around": [tissue.name for tissue in _AROUND],
        "mixture": [list(_MIXTURE_MEAN), list(_MIXTURE_SPREAD), _BRIGHT_AIR],
        "lesions": [list(_LESION_SHARE), _LESION_CROWDING, list(_SPECK_SHARE), list(_MASS_MM)],
        "bias_mm": BIAS_MM,
    }


def draw_contrast(rng: np.random.Generator, settings: LookSettings) -> TissueModel:
    """A contrast near those of real scans, or a random one; white matter of real ones is about 0.4."""
    if rng.random() < settings.realistic_share:
        model = draw_tissue(rng)
        level = model.level.copy()
        level[list(_AROUND)] *= np.float32(rng.uniform(0.3, 1.4))
        # The scale of the random ones, so that noise means the same.
        scale = np.float32(1.0 / max(float(level.max()), 1.0))
        return TissueModel(level * scale, model.texture * scale)
    level = rng.uniform(*_MIXTURE_MEAN, len(Tissue)).astype(np.float32)
    spread = rng.uniform(*_MIXTURE_SPREAD, len(Tissue)).astype(np.float32)
    bright_air = rng.random() < _BRIGHT_AIR
    level[Tissue.AIR] = rng.uniform(0.0, 0.4) if bright_air else 0.0
    spread[Tissue.AIR] = 0.0
    return TissueModel(level, spread)


def add_pathology(
    rng: np.random.Generator,
    image: Float32Array,
    classes: LabelArray,
    model: TissueModel,
    settings: LookSettings,
) -> None:
    """Paint lesions of white matter, specks in the basal ganglia and a mass into an image, in place.

    Parameters
    ----------
    image : ndarray, shape (I, J, K), float32
        Levels of the tissues.
    classes : ndarray, shape (I, J, K), uint8
        `HeadClass`; what lies below a lesion keeps its class, as a reader would draw it.
    """
    if rng.random() < settings.lesion_share:
        where = _white_lesions(rng, classes)
        level = model.level[Tissue.WHITE_LESION] if rng.random() < 0.7 else rng.uniform(*_MIXTURE_MEAN)
        image[where] += np.float32(0.85) * (np.float32(level) - image[where])
    if rng.random() < settings.speck_share:
        deep = np.flatnonzero(np.isin(classes, BASAL_GANGLIA))
        chosen = deep[rng.random(deep.size) < rng.uniform(*_SPECK_SHARE)]
        flat = image.reshape(-1)
        part = rng.uniform(0.2, 0.8, chosen.size).astype(np.float32)
        flat[chosen] += part * (np.float32(model.fluid) - flat[chosen])
    if rng.random() < settings.mass_share:
        _add_mass(rng, image, classes)


def _white_lesions(rng: np.random.Generator, classes: LabelArray) -> BoolArray:
    """Blobs of white matter, most of them around the lateral ventricles."""
    white: BoolArray = classes == HeadClass.WHITE_MATTER
    half = classes[::2, ::2, ::2]
    ventricles = (half == HeadClass.LATERAL_VENTRICLES).astype(np.float32)
    field = ndimage.gaussian_filter(rng.standard_normal(half.shape, dtype=np.float32), 1.0, truncate=3.0)
    field /= max(float(field.std()), 1e-6)
    field += np.float32(_LESION_CROWDING) * ndimage.gaussian_filter(ventricles, 2.5, truncate=3.0)
    fine = stretch(field, classes.shape)
    if not white.any():
        return white
    threshold = np.quantile(fine[white][::7], 1.0 - rng.uniform(*_LESION_SHARE))
    lesions: BoolArray = white & (fine > threshold)
    return lesions


def _add_mass(rng: np.random.Generator, image: Float32Array, classes: LabelArray) -> None:
    """One ellipsoid of one level somewhere in the brain: an infarct, a bleeding, a tumour."""
    inside = np.flatnonzero(classes)
    if inside.size == 0:
        return
    middle = np.unravel_index(int(rng.choice(inside)), classes.shape)
    radii = rng.uniform(*_MASS_MM, 3) / 2.0
    low = [max(0, int(m - np.ceil(r))) for m, r in zip(middle, radii, strict=True)]
    high = [int(m + np.ceil(r)) + 1 for m, r in zip(middle, radii, strict=True)]
    window = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    part, held = image[window], classes[window]
    i, j, k = np.ogrid[tuple(slice(lo, lo + n) for lo, n in zip(low, part.shape, strict=True))]
    distance = (
        ((i - middle[0]) / radii[0]) ** 2
        + ((j - middle[1]) / radii[1]) ** 2
        + ((k - middle[2]) / radii[2]) ** 2
    )
    where = (distance <= 1.0) & (held > 0)
    part[where] += np.float32(0.8) * (np.float32(rng.uniform(*_MIXTURE_MEAN)) - part[where])


def acquire(
    rng: np.random.Generator, image: Float32Array, grid: Grid, settings: LookSettings
) -> Float32Array:
    """What a scanner makes of an image: bias field, blur, slices, noise, and the way back onto the grid.

    Slices are averages of their thickness, noise is that of the slices, and linear interpolation smooths it as it
    does when a scan is put on the grid.

    Parameters
    ----------
    image : ndarray, shape (I, J, K), float32
        Without noise.
    grid : Grid
        Its grid, of one spacing.
    """
    image = image * bias_field(rng, grid, float(rng.uniform(*settings.bias)))
    spacing = grid.spacing_mm[0]
    thick = np.full(3, spacing)
    if rng.random() < settings.coarse_share:
        thick[:] = rng.uniform(*settings.coarse_mm)
    if rng.random() < settings.thick_share:
        axis = int(rng.choice(3, p=(0.2, 0.2, 0.6)))
        thick[axis] = max(thick[axis], rng.uniform(*settings.thick_mm))
    axes = [
        _Axis.of(n, float(t) / spacing, float(rng.uniform(*settings.blur_mm)) / spacing, float(rng.random()))
        for n, t in zip(grid.shape, thick, strict=True)
    ]
    image = _along_axes(image, [axis.slices_from_grid for axis in axes])
    image = rician(rng, image, float(rng.uniform(*settings.noise)))
    if all(axis.slices == axis.n for axis in axes):
        return image
    return _along_axes(image, [axis.grid_from_slices for axis in axes])


@dataclass(frozen=True)
class _Axis:
    """Slices along one axis of a grid, as weights of the grid's voxels, and the way back.

    Attributes
    ----------
    slices_from_grid : ndarray, shape (S, N), float32
        Average of each slice's thickness after a Gaussian blur; rows sum to 1.
    grid_from_slices : ndarray, shape (N, S), float32
        Linear interpolation, held constant beyond the outermost slices.
    """

    slices_from_grid: Float32Array
    grid_from_slices: Float32Array

    @property
    def n(self) -> int:
        return int(self.slices_from_grid.shape[1])

    @property
    def slices(self) -> int:
        return int(self.slices_from_grid.shape[0])

    @classmethod
    def of(cls, n: int, thickness: float, sigma: float, offset: float) -> _Axis:
        """Slices of a thickness in voxels that touch one another; the first begins at or before the grid's border.

        Parameters
        ----------
        n : int
            Voxels of the grid.
        thickness, sigma : float
            Of slices and blur, in voxels; a thickness of 1 leaves the voxels as they are.
        offset : float
            Between 0 and 1: the first slice begins half of this part of the thickness before the grid.
        """
        voxels = np.arange(n, dtype=np.float64)
        centers: FloatArray = voxels.copy()
        if thickness > 1.0:
            count = max(2, int(np.ceil(n / thickness)))
            centers = np.asarray((np.arange(count) + 0.5 - offset / 2.0) * thickness - 0.5)
        half = max(thickness, 1.0) / 2.0
        edges = np.minimum(centers[:, None] + half, voxels + 0.5) - np.maximum(
            centers[:, None] - half, voxels - 0.5
        )
        weights = np.maximum(edges, 0.0) @ _gaussian(n, sigma)
        # A slice that lies beyond the grid sees what lies at its border.
        weights[weights.sum(axis=1) <= 1e-9, -1] = 1.0
        weights /= weights.sum(axis=1, keepdims=True)
        at = np.interp(voxels, centers, np.arange(centers.size, dtype=np.float64))
        back = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(centers.size)))
        return cls(weights.astype(np.float32), back.astype(np.float32))


def _gaussian(n: int, sigma: float) -> FloatArray:
    """Blur of ``n`` voxels as a matrix, shape (n, n); rows sum to 1."""
    if sigma < 0.1:
        return np.eye(n)
    at = np.arange(n)
    kernel = np.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    rows: FloatArray = kernel / kernel.sum(axis=1, keepdims=True)
    return rows


def _along_axes(image: Float32Array, matrices: list[Float32Array]) -> Float32Array:
    """Multiply an image by a matrix along each axis; three products in place of a filter of any width."""
    i, j, k = image.shape
    out = (matrices[0] @ image.reshape(i, j * k)).reshape(-1, j, k)
    out = np.matmul(matrices[1], out)
    found: Float32Array = out @ matrices[2].T
    return found
