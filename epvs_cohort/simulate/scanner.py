"""What a scanner adds to tissue: blur, bias field, motion ghosts and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from epvs_cohort.geometry import Grid
from epvs_cohort.records import Float32Array
from epvs_cohort.simulate.warp import smooth_field

#: Scale in mm of the bias field.
BIAS_MM = 70.0


@dataclass(frozen=True)
class Scanner:
    """What the acquisition adds to the tissue.

    Attributes
    ----------
    psf_sigma_mm : tuple of float
        Gaussian blur along i, j and k beyond the voxel's own extent.
    noise_sigma : float
        Of the real and imaginary channel, relative to white matter = 1.
    bias : float
        Largest relative deviation of the bias field.
    ghost : float
        Part of the signal that motion throws to either side along the phase-encoding axis; 0 in most scans.
    ghost_mm : float
        How far.
    """

    psf_sigma_mm: tuple[float, float, float]
    noise_sigma: float
    bias: float
    ghost: float = 0.0
    ghost_mm: float = 0.0


@dataclass(frozen=True)
class ScannerRanges:
    """Uniform distributions, low and high, that `draw_scanner` draws a `Scanner` from.

    ``ghost_share`` is the share of scans with motion ghosts; ``ghost`` and ``ghost_mm`` are of those.
    """

    psf_inplane_mm: tuple[float, float] = (0.25, 0.4)
    psf_through_mm: tuple[float, float] = (0.4, 0.7)
    noise_sigma: tuple[float, float] = (0.02, 0.06)
    bias: tuple[float, float] = (0.05, 0.2)
    ghost_share: float = 0.06
    ghost: tuple[float, float] = (0.02, 0.08)
    ghost_mm: tuple[float, float] = (15.0, 60.0)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw blur, noise, bias field strength and motion ghosts of one acquisition."""
    ranges = ScannerRanges()
    inplane = float(rng.uniform(*ranges.psf_inplane_mm))
    scanner = Scanner(
        psf_sigma_mm=(inplane, inplane, float(rng.uniform(*ranges.psf_through_mm))),
        noise_sigma=float(rng.uniform(*ranges.noise_sigma)),
        bias=float(rng.uniform(*ranges.bias)),
    )
    moved, ghost, ghost_mm = rng.random(), rng.uniform(*ranges.ghost), rng.uniform(*ranges.ghost_mm)
    if moved >= ranges.ghost_share:
        return scanner
    return replace(scanner, ghost=float(ghost), ghost_mm=float(ghost_mm))


def blur(image: Float32Array, grid: Grid, sigma_mm: tuple[float, float, float]) -> Float32Array:
    """Gaussian blur along the grid's own axes, ``sigma_mm`` each."""
    sigmas = [mm / s for mm, s in zip(sigma_mm, grid.spacing_mm, strict=True)]
    blurred: Float32Array = ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=3.0)
    return blurred


def bias_field(rng: np.random.Generator, grid: Grid, strength: float) -> Float32Array:
    """Smooth multiplicative field within ``1 ± strength``."""
    field = smooth_field(rng, grid, BIAS_MM)
    peak = max(float(np.abs(field).max()), 1e-6)
    field *= np.float32(strength / peak)
    field += np.float32(1.0)
    return field


def ghosted(image: Float32Array, grid: Grid, scanner: Scanner) -> Float32Array:
    """An image with the ghosts of a periodic motion: faint copies to the front and to the back, along j.

    Motion with one period splits a part of each line's signal into two side lobes along the phase-encoding axis
    (Wood and Henkelman 1985, Medical Physics 12:143); copies that leave the field of view fold over.

    Parameters
    ----------
    image : ndarray, shape (I, J, K), float32
        Without noise.
    """
    shift = round(scanner.ghost_mm / grid.spacing_mm[1])
    if scanner.ghost == 0.0 or shift == 0:
        return image
    out: Float32Array = image * np.float32(1.0 - 2.0 * scanner.ghost)
    for step in (shift, -shift):
        out += np.float32(scanner.ghost) * np.roll(image, step, axis=1)
    return out


def rician(rng: np.random.Generator, image: Float32Array, sigma: float) -> Float32Array:
    """Magnitude of an image with complex Gaussian noise of deviation ``sigma``; same shape, float32."""
    real = rng.standard_normal(image.shape, dtype=np.float32)
    real *= np.float32(sigma)
    real += image
    imaginary = rng.standard_normal(image.shape, dtype=np.float32)
    imaginary *= np.float32(sigma)
    return np.hypot(real, imaginary, out=real)
