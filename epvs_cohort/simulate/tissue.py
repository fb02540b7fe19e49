"""Tissue classes, their contrast and their texture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from epvs_cohort.geometry import Grid
from epvs_cohort.records import Float32Array
from epvs_cohort.simulate.anatomy import CAPSULE, Int16Array
from epvs_cohort.simulate.warp import smooth_field


class Tissue(IntEnum):
    """What shares one intensity."""

    AIR = 0
    WHITE = 1
    CORTEX = 2
    LIMBIC = 3
    THALAMUS = 4
    CAUDATE = 5
    PUTAMEN = 6
    PALLIDUM = 7
    ACCUMBENS = 8
    DIENCEPHALON = 9
    BRAINSTEM = 10
    CEREBELLUM = 11
    VENTRICLE = 12
    SULCUS = 13
    PLEXUS = 14
    WHITE_LESION = 15
    VESSEL = 16
    BONE = 17
    MARROW = 18
    SOFT = 19
    SKIN = 20
    EYE = 21
    MUSCLE = 22
    MUCOSA = 23
    CAPSULE = 24


#: FreeSurfer numbers; 502 and above as in SimNIBS charm's whole-head label maps, 202 to 216 the same less 300
#: (the bundled head, stored in uint8).
_LABELS: Mapping[Tissue, tuple[int, ...]] = {
    Tissue.AIR: (0, 202, 502),
    Tissue.WHITE: (2, 41, 7, 46, 77, 251, 252, 253, 254, 255),
    Tissue.CORTEX: (3, 42),
    Tissue.LIMBIC: (17, 53, 18, 54),
    Tissue.THALAMUS: (10, 49),
    Tissue.CAUDATE: (11, 50),
    Tissue.PUTAMEN: (12, 51),
    Tissue.PALLIDUM: (13, 52),
    Tissue.ACCUMBENS: (26, 58),
    Tissue.DIENCEPHALON: (28, 60),
    Tissue.BRAINSTEM: (16, 85, 512, 530),
    Tissue.CEREBELLUM: (8, 47),
    Tissue.VENTRICLE: (4, 43, 5, 44, 14, 15, 72),
    Tissue.SULCUS: (24,),
    Tissue.PLEXUS: (31, 63, 136, 137, 163, 164),
    Tissue.WHITE_LESION: (25, 57),
    Tissue.VESSEL: (30, 62, 514),
    Tissue.BONE: (215, 515),
    Tissue.MARROW: (216, 516),
    Tissue.SOFT: (207, 507),
    Tissue.SKIN: (211, 511),
    Tissue.EYE: (206, 506),
    Tissue.MUSCLE: (208, 508),
    Tissue.MUCOSA: (209, 509),
    Tissue.CAPSULE: (CAPSULE,),
}

#: Contrast relative to white matter in three real scans (T2w at TE 49 ms, PD, T2), medians. Two entries that
#: registration errors had spoilt are replaced: putamen 0.69 by 0.85, caudate 1.52 by 1.25.
_MEASURED: Mapping[Tissue, tuple[float, float, float]] = {
    Tissue.CORTEX: (1.43, 1.18, 1.32),
    Tissue.CAUDATE: (1.09, 1.28, 1.25),
    Tissue.PUTAMEN: (0.85, 1.13, 0.94),
    Tissue.PALLIDUM: (0.70, 0.95, 0.60),
    Tissue.THALAMUS: (0.86, 1.16, 1.09),
    Tissue.VENTRICLE: (2.46, 1.48, 2.66),
}

#: Level relative to white matter of what the measurements do not name: low and high end.
_ASSUMED: Mapping[Tissue, tuple[float, float]] = {
    Tissue.WHITE: (1.0, 1.0),
    Tissue.CAPSULE: (0.82, 0.98),
    Tissue.BRAINSTEM: (0.95, 1.15),
    Tissue.DIENCEPHALON: (0.8, 1.05),
    Tissue.VESSEL: (0.25, 0.7),
    Tissue.BONE: (0.05, 0.2),
    Tissue.MARROW: (0.4, 1.1),
    Tissue.SOFT: (0.5, 1.1),
    Tissue.SKIN: (1.0, 2.0),
    Tissue.EYE: (1.6, 2.6),
    Tissue.MUSCLE: (0.4, 0.7),
    Tissue.MUCOSA: (1.2, 2.2),
    Tissue.AIR: (0.0, 0.0),
}

#: Levels that follow another: of cortex or caudate this many times, and between white matter (0) and fluid (1).
_DERIVED: Mapping[Tissue, tuple[float, float]] = {
    Tissue.LIMBIC: (0.92, 1.05),
    Tissue.CEREBELLUM: (0.85, 1.0),
    Tissue.ACCUMBENS: (0.95, 1.05),
    # Sulci hold vessels and trabeculae beside fluid, and flow dephases there.
    Tissue.SULCUS: (0.55, 0.9),
    Tissue.PLEXUS: (0.3, 0.8),
    Tissue.WHITE_LESION: (0.3, 0.6),
}

#: Standard deviation of the logarithm of a measured level.
LEVEL_SIGMA = 0.05

#: Factor on the texture of a scan: low and high end.
TEXTURE_SCALE = (0.7, 1.4)

#: Gaussians in mm along i, j and k, and shares, of mottle and of streaks.
TEXTURE_MIX = (((0.5, 0.5, 0.5), 0.7), ((0.5, 0.5, 1.8), 0.5))

#: Scale in mm and share of the shading within a tissue.
SHADING_MM = 8.0
SHADING_SHARE = 0.8

#: Standard deviation of the texture, relative to white matter.
_TEXTURE: Mapping[Tissue, float] = {
    Tissue.AIR: 0.0,
    Tissue.VENTRICLE: 0.03,
    Tissue.SULCUS: 0.12,
    Tissue.PLEXUS: 0.12,
    Tissue.CORTEX: 0.05,
    Tissue.CEREBELLUM: 0.06,
    Tissue.VESSEL: 0.06,
    Tissue.SOFT: 0.10,
    Tissue.SKIN: 0.06,
    Tissue.MARROW: 0.06,
    Tissue.MUCOSA: 0.10,
    Tissue.MUSCLE: 0.05,
    Tissue.BONE: 0.02,
}
_TEXTURE_ELSEWHERE = 0.042


#: Tissues whose common borders are gradual.
_SHADING = (
    Tissue.WHITE,
    Tissue.CAPSULE,
    Tissue.THALAMUS,
    Tissue.CAUDATE,
    Tissue.PUTAMEN,
    Tissue.PALLIDUM,
    Tissue.ACCUMBENS,
    Tissue.DIENCEPHALON,
    Tissue.BRAINSTEM,
)


@dataclass(frozen=True)
class TissueModel:
    """Intensities of one scan relative to white matter = 1.

    Attributes
    ----------
    level : ndarray, shape (T,), float32
        Mean of each ``Tissue``.
    texture : ndarray, shape (T,), float32
        Standard deviation of lesion-free tissue at the scale of voxels.
    """

    level: Float32Array
    texture: Float32Array

    @property
    def fluid(self) -> float:
        """Level of cerebrospinal fluid, which perivascular spaces share (STRIVE-2)."""
        return float(self.level[Tissue.VENTRICLE])

    def texture_of(self, labels: Int16Array) -> Float32Array:
        """Standard deviation of the texture at each voxel of a FreeSurfer label map, float32."""
        deviation: Float32Array = self.texture[tissue_of(labels)]
        return deviation


def tissue_of(labels: Int16Array) -> Int16Array:
    """``Tissue`` numbers of FreeSurfer labels, same shape; unknown ones below 100 are white matter, above soft."""
    table = np.full(int(labels.max(initial=0)) + 1, Tissue.WHITE, dtype=np.int16)
    table[100:] = Tissue.SOFT
    for tissue, numbers in _LABELS.items():
        for number in numbers:
            if number < table.size:
                table[number] = tissue
    tissues: Int16Array = table[labels]
    return tissues


def contrast_settings() -> dict[str, object]:
    """The tables that contrast and texture are drawn from, for the hash of a cohort's parameters."""
    return {
        "measured": {tissue.name: list(row) for tissue, row in _MEASURED.items()},
        "assumed": {tissue.name: list(ends) for tissue, ends in _ASSUMED.items()},
        "texture": {tissue.name: value for tissue, value in _TEXTURE.items()},
        "texture_elsewhere": _TEXTURE_ELSEWHERE,
        "level_sigma": LEVEL_SIGMA,
        "texture_scale": list(TEXTURE_SCALE),
        "texture_mix": [[list(sigma_mm), share] for sigma_mm, share in TEXTURE_MIX],
        "shading": [SHADING_MM, SHADING_SHARE],
        "shading_tissues": [tissue.name for tissue in _SHADING],
        "labels": {tissue.name: list(numbers) for tissue, numbers in _LABELS.items()},
        "derived": {tissue.name: list(ends) for tissue, ends in _DERIVED.items()},
    }


def draw_tissue(rng: np.random.Generator) -> TissueModel:
    """Draw a contrast between those of real T2w, PD and T2 scans, each level a little off."""
    mix = rng.dirichlet((1.0, 1.0, 1.0))
    level = np.zeros(len(Tissue), dtype=np.float32)
    for tissue, row in _MEASURED.items():
        level[tissue] = float(mix @ np.asarray(row)) * np.exp(rng.normal(0.0, LEVEL_SIGMA))
    for tissue, (low, high) in _ASSUMED.items():
        level[tissue] = rng.uniform(low, high)
    for tissue, like in ((Tissue.LIMBIC, Tissue.CORTEX), (Tissue.CEREBELLUM, Tissue.CORTEX),
                         (Tissue.ACCUMBENS, Tissue.CAUDATE)):  # fmt: skip
        level[tissue] = level[like] * rng.uniform(*_DERIVED[tissue])
    fluid = level[Tissue.VENTRICLE]
    for tissue in (Tissue.SULCUS, Tissue.PLEXUS, Tissue.WHITE_LESION):
        level[tissue] = 1.0 + (fluid - 1.0) * rng.uniform(*_DERIVED[tissue])
    texture = np.full(len(Tissue), _TEXTURE_ELSEWHERE, dtype=np.float32)
    for tissue, deviation in _TEXTURE.items():
        texture[tissue] = deviation
    return TissueModel(level, texture * np.float32(rng.uniform(*TEXTURE_SCALE)))


def paint(
    labels: Int16Array, model: TissueModel, smooth_voxels: float, soft_voxels: float | None = None
) -> Float32Array:
    """Mean intensity of a label map, borders as partial volume; same shape, float32.

    Smoothing the painted map equals mixing the levels by the smoothed probability of each tissue,
    because both are linear.

    Parameters
    ----------
    labels : ndarray, shape (I, J, K), int16
    smooth_voxels : float
        Gaussian that turns labels into probabilities.
    soft_voxels : float, optional
        The same for borders between white matter, deep nuclei and brain stem, which shade into one another.
    """
    tissues = tissue_of(labels)
    if soft_voxels is None:
        return _smoothed(model.level[tissues], smooth_voxels)
    soft = np.ones(len(Tissue), dtype=np.float32)
    soft[list(_SHADING)] = model.level[list(_SHADING)]
    mixed = _smoothed(soft[tissues], soft_voxels)
    mixed += _smoothed((model.level - soft)[tissues], smooth_voxels)
    return mixed


def texture_field(rng: np.random.Generator, grid: Grid) -> Float32Array:
    """Unit-variance correlated noise on a grid: mottle of 0.5 mm, streaks along k, and shading over 8 mm.

    The streaks stand for fibres and small vessels, which run up through the basal ganglia as lesions do.
    """
    field = np.zeros(grid.shape, dtype=np.float32)
    for sigma_mm, share in TEXTURE_MIX:
        field += _correlated(rng, grid, sigma_mm) * np.float32(share)
    field += smooth_field(rng, grid, SHADING_MM) * np.float32(SHADING_SHARE)
    return field


def _smoothed(image: Float32Array, sigma_voxels: float) -> Float32Array:
    smooth: Float32Array = ndimage.gaussian_filter(image, sigma_voxels, mode="nearest", truncate=3.0)
    return smooth


def _correlated(rng: np.random.Generator, grid: Grid, sigma_mm: tuple[float, float, float]) -> Float32Array:
    """Gaussian-filtered white noise, scaled to unit variance by the filter's own gain."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    gain = 1.0
    for axis, spacing in enumerate(grid.spacing_mm):
        sigma = sigma_mm[axis] / spacing
        kernel = np.exp(-0.5 * (np.arange(-12, 13) / sigma) ** 2)
        kernel = kernel[np.abs(np.arange(-12, 13)) <= max(1, int(3.0 * sigma + 0.5))]
        kernel /= kernel.sum()
        gain *= float(np.sqrt((kernel**2).sum()))
        white = ndimage.correlate1d(white, kernel.astype(np.float32), axis=axis, mode="nearest")
    white /= np.float32(gain)
    return white
