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
_SOFT_MM = 1.4


@dataclass(frozen=True)
class MimicRates:
    """Expected number of each in a head."""

    lacunes: float = 0.12
    white_lesions: float = 5.0
    dark_spots: float = 0.6
    vessels: float = 1.5
    specks: float = 1.0


@dataclass(frozen=True)
class Mimics:
    """Drawn mimics, in one world frame.

    Attributes
    ----------
    bright : tuple of LesionSpec
        Sharp, towards fluid: lacunes (3 to 15 mm, round; STRIVE-2), specks of a voxel or less.
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
    white = _candidates(rng, (tissues == Tissue.WHITE) | (tissues == Tissue.CAPSULE), grid)
    deep = _candidates(rng, (tissues >= Tissue.THALAMUS) & (tissues <= Tissue.ACCUMBENS), grid)
    pallidum = _candidates(rng, tissues == Tissue.PALLIDUM, grid)
    everywhere = np.concatenate([white, deep])
    bright = _round(rng, deep, rng.poisson(rates.lacunes), (1.5, 3.0, 6.0), (0.8, 1.0))
    bright += _round(rng, everywhere, rng.poisson(rates.specks), (0.2, 0.25, 0.3), (0.3, 0.8))
    soft = _round(rng, white, rng.poisson(rates.white_lesions), (1.0, 2.5, 5.0), (0.15, 0.5))
    dark = _round(rng, pallidum, rng.poisson(rates.dark_spots), (0.4, 0.9, 2.0), (0.3, 0.9))
    dark += _rods(rng, deep, rng.poisson(rates.vessels), (4.0, 15.0), (0.2, 0.6))
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
    wide = (_SOFT_MM, _SOFT_MM, _SOFT_MM)
    soft = fluid_fraction(mimics.soft, grid, psf_sigma_mm=wide)
    # A blob fades towards anything brighter than itself: ventricles and sulci keep their level.
    out: Float32Array = image + soft * np.maximum(np.float32(fluid) - image, 0.0)
    sharp = fluid_fraction(mimics.bright, grid, psf_sigma_mm=psf_sigma_mm)
    out += sharp * (np.float32(fluid) - out)
    out *= np.float32(1.0) - fluid_fraction(mimics.dark, grid, psf_sigma_mm=psf_sigma_mm)
    return out


def _candidates(rng: np.random.Generator, where: npt.NDArray[np.bool_], grid: Grid) -> FloatArray:
    flat = np.flatnonzero(where)
    if flat.size == 0:
        return np.zeros((0, 3))
    chosen = flat[rng.integers(0, flat.size, 64)]
    return apply_affine(grid.affine, np.stack(np.unravel_index(chosen, where.shape), axis=-1))


def _round(
    rng: np.random.Generator,
    points: FloatArray,
    n: int,
    radius_mm: tuple[float, float, float],
    contrast: tuple[float, float],
) -> list[LesionSpec]:
    """Round ones at distinct points, radius triangular between low, mode and high."""
    out = []
    for center in points[: min(n, len(points))]:
        radius = float(rng.triangular(*radius_mm))
        direction = _unit(rng.normal(size=3))
        length = 2.0 * radius * float(rng.uniform(1.0, 1.5))
        spot = (float(center[0]), float(center[1]), float(center[2]))
        out.append(LesionSpec(spot, direction, length, radius, float(rng.uniform(*contrast))))
    return out


def _rods(
    rng: np.random.Generator,
    points: FloatArray,
    n: int,
    length_mm: tuple[float, float],
    contrast: tuple[float, float],
) -> list[LesionSpec]:
    """Thin upright ones at distinct points."""
    out = []
    for center in points[len(points) - min(n, len(points)) :]:
        direction = _unit(np.array([0.0, 0.0, 1.0]) + rng.normal(0.0, 0.3, 3))
        spot = (float(center[0]), float(center[1]), float(center[2]))
        length = float(rng.uniform(*length_mm))
        out.append(
            LesionSpec(spot, direction, length, float(rng.uniform(0.25, 0.45)), float(rng.uniform(*contrast)))
        )
    return out


def _unit(vector: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector / np.linalg.norm(vector))
    return (x, y, z)
