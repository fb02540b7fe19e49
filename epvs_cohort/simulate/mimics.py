"""What is mistaken for perivascular spaces: lacunes, white matter lesions, mineral deposits, vessels, specks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.records import Float32Array
from epvs_cohort.simulate.anatomy import Int16Array
from epvs_cohort.simulate.lesions import LesionSpec, fluid_fraction
from epvs_cohort.simulate.tissue import Tissue, tissue_of

#: Blur in mm that gives white matter lesions their soft rim.
SOFT_MM = 1.4

#: Share of the specks that lie in deep grey matter; the others lie in white matter.
DEEP_SPECKS = 0.5


@dataclass(frozen=True)
class MimicRates:
    """Expected number of each in a head."""

    lacunes: float = 0.12
    white_lesions: float = 5.0
    dark_spots: float = 0.6
    vessels: float = 6.0
    fine_spaces: float = 8.0
    specks: float = 1.0


@dataclass(frozen=True)
class RoundShape:
    """Size and contrast of a kind of round mimic.

    Attributes
    ----------
    radius_mm : tuple of float
        Triangular distribution: low, mode, high.
    contrast : tuple of float
        Uniform distribution: low, high.
    """

    radius_mm: tuple[float, float, float]
    contrast: tuple[float, float]


@dataclass(frozen=True)
class RodShape:
    """Size and contrast of a kind of thin upright mimic; uniform distributions: low, high."""

    length_mm: tuple[float, float]
    radius_mm: tuple[float, float]
    contrast: tuple[float, float]


@dataclass(frozen=True)
class MimicShapes:
    """Size and contrast of each kind.

    Attributes
    ----------
    lacunes, specks, white_lesions, dark_spots : RoundShape
    stretch : tuple of float
        Length of round ones in diameters.
    vessels, fine_spaces : RodShape
        Perforating arteries, dark by their flow, and the perivascular spaces of normal width around others, too fine
        to be counted as enlarged.
    """

    lacunes: RoundShape = RoundShape((1.5, 3.0, 6.0), (0.8, 1.0))
    specks: RoundShape = RoundShape((0.2, 0.25, 0.3), (0.3, 0.8))
    white_lesions: RoundShape = RoundShape((1.0, 2.5, 5.0), (0.15, 0.5))
    dark_spots: RoundShape = RoundShape((0.4, 0.9, 2.0), (0.3, 0.9))
    stretch: tuple[float, float] = (1.0, 1.5)
    vessels: RodShape = RodShape((4.0, 15.0), (0.2, 0.45), (0.1, 0.6))
    fine_spaces: RodShape = RodShape((3.0, 10.0), (0.1, 0.24), (0.3, 0.8))


SHAPES = MimicShapes()


@dataclass(frozen=True)
class Mimics:
    """Drawn mimics, in one world frame.

    Attributes
    ----------
    bright : tuple of LesionSpec
        Sharp, towards fluid: lacunes (3 to 15 mm, round; STRIVE-2), specks of a voxel or less, spaces of normal width.
    soft : tuple of LesionSpec
        White matter hyperintensities.
    dark : tuple of LesionSpec
        Towards no signal by ``contrast``: mineral deposits, flow voids of vessels.
    """

    bright: tuple[LesionSpec, ...]
    soft: tuple[LesionSpec, ...]
    dark: tuple[LesionSpec, ...]


def draw_mimics(rng: np.random.Generator, labels: Int16Array, grid: Grid, rates: MimicRates) -> Mimics:
    """Draw mimics in the tissues where each occurs.

    Parameters
    ----------
    labels : ndarray, shape (I, J, K), int16
        FreeSurfer numbers on ``grid``; the mimics lie in its world frame.
    """
    tissues = tissue_of(labels)
    white = _Where((tissues == Tissue.WHITE) | (tissues == Tissue.CAPSULE), grid)
    deep = _Where((tissues >= Tissue.THALAMUS) & (tissues <= Tissue.ACCUMBENS), grid)
    pallidum = _Where(tissues == Tissue.PALLIDUM, grid)
    # Deep grey matter is small: by volume alone, specks would hardly ever be where lesions are counted.
    in_deep = rng.poisson(rates.specks * DEEP_SPECKS)
    in_white = rng.poisson(rates.specks * (1.0 - DEEP_SPECKS))
    bright = _round(rng, deep.draw(rng, rng.poisson(rates.lacunes)), SHAPES.lacunes)
    bright += _round(rng, deep.draw(rng, in_deep), SHAPES.specks)
    bright += _round(rng, white.draw(rng, in_white), SHAPES.specks)
    soft = _round(rng, white.draw(rng, rng.poisson(rates.white_lesions)), SHAPES.white_lesions)
    dark = _round(rng, pallidum.draw(rng, rng.poisson(rates.dark_spots)), SHAPES.dark_spots)
    dark += _rods(rng, deep.draw(rng, rng.poisson(rates.vessels)), SHAPES.vessels)
    bright += _rods(rng, deep.draw(rng, rng.poisson(rates.fine_spaces)), SHAPES.fine_spaces)
    return Mimics(tuple(bright), tuple(soft), tuple(dark))


def paint_mimics(
    image: Float32Array, grid: Grid, fluid: float, mimics: Mimics, psf_sigma_mm: tuple[float, float, float]
) -> Float32Array:
    """An image with mimics painted in; same shape, float32.

    Parameters
    ----------
    image : ndarray, shape (I, J, K), float32
        Relative to white matter = 1, without bias field and noise.
    fluid : float
        Level of fluid on the same scale.
    psf_sigma_mm : tuple of float
        Blur along i, j and k of the sharp ones.
    """
    wide = (SOFT_MM, SOFT_MM, SOFT_MM)
    soft = fluid_fraction(mimics.soft, grid, psf_sigma_mm=wide)
    # A blob fades towards anything brighter than itself: ventricles and sulci keep their level.
    out: Float32Array = image + soft * np.maximum(np.float32(fluid) - image, 0.0)
    sharp = fluid_fraction(mimics.bright, grid, psf_sigma_mm=psf_sigma_mm)
    out += sharp * (np.float32(fluid) - out)
    out *= np.float32(1.0) - fluid_fraction(mimics.dark, grid, psf_sigma_mm=psf_sigma_mm)
    return out


@dataclass(frozen=True)
class _Where:
    """Voxels of a grid that one kind of mimic may lie in."""

    mask: npt.NDArray[np.bool_]
    grid: Grid

    def draw(self, rng: np.random.Generator, n: int) -> FloatArray:
        """World mm of ``n`` distinct voxels, or of all where there are fewer; shape (N, 3)."""
        flat = np.flatnonzero(self.mask)
        chosen = rng.choice(flat, min(n, flat.size), replace=False)
        return apply_affine(self.grid.affine, np.stack(np.unravel_index(chosen, self.mask.shape), axis=-1))


def _round(rng: np.random.Generator, points: FloatArray, shape: RoundShape) -> list[LesionSpec]:
    """Round ones at the points."""
    out = []
    for center in points:
        radius = float(rng.triangular(*shape.radius_mm))
        direction = _unit(rng.normal(size=3))
        length = 2.0 * radius * float(rng.uniform(*SHAPES.stretch))
        spot = (float(center[0]), float(center[1]), float(center[2]))
        out.append(LesionSpec(spot, direction, length, radius, float(rng.uniform(*shape.contrast))))
    return out


def _rods(rng: np.random.Generator, points: FloatArray, shape: RodShape) -> list[LesionSpec]:
    """Thin upright ones at the points."""
    out = []
    for center in points:
        direction = _unit(np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.3, 3))
        spot = (float(center[0]), float(center[1]), float(center[2]))
        length, radius, contrast = (
            float(rng.uniform(*ends)) for ends in (shape.length_mm, shape.radius_mm, shape.contrast)
        )
        out.append(LesionSpec(spot, direction, length, radius, contrast))
    return out


def _unit(vector: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector / np.linalg.norm(vector))
    return (x, y, z)
