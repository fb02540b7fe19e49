"""Lesion-free volumes straight on the prepared grid, for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Float32Array, LabelArray
from epvs_cohort.simulate.anatomy import REGION_OF_LABEL, Anatomy, Int16Array, regions_of
from epvs_cohort.simulate.lesions import Placement
from epvs_cohort.simulate.mimics import MimicRates, draw_mimics, paint_mimics
from epvs_cohort.simulate.placement import RoiError, mistaken_roi, placement_of
from epvs_cohort.simulate.scanner import Scanner, bias_field, blur, draw_scanner, ghosted
from epvs_cohort.simulate.tissue import TissueModel, draw_tissue, paint, texture_field
from epvs_cohort.simulate.warp import (
    Placed,
    ShapeVariation,
    Warp,
    draw_warp,
    inverse_of,
    random_rigid,
    sample,
)

#: Gaussian in voxels of the 0.5 mm labels that turns them into probabilities.
DETAIL_BLUR = 0.7
#: The same where tissues shade into one another.
SHADING_BLUR = 2.2

#: Residual pose after registration: at most so many degrees and mm on each axis.
RESIDUAL_DEG = 4.5
RESIDUAL_MM = 2.0

#: Widening of the ventricles is drawn evenly between these.
GROWTH = (-0.15, 0.35)

#: Errors of the atlas outline, set so that Dice, volume and foreign tissue are those of the real pipeline on simulated
#: whole heads.
ROI_ERROR = RoiError(shift_mm=1.5, grown_mm=0.75, grown_sigma_mm=0.5)


@dataclass(frozen=True)
class Canvas:
    """A lesion-free head on the prepared grid, before mask, trim and noise.

    Attributes
    ----------
    image : ndarray, shape (I, J, K), float32
        White matter about 1, bias field included, no noise; mimics are in it.
    bias : ndarray, shape (I, J, K), float32
        The bias field in ``image``.
    fluid : float
        Level of fluid before the bias field: a lesion of fraction f makes
        ``image + f * (fluid * bias - image)``.
    noise_sigma : float
        For ``scanner.rician``.
    psf_sigma_mm : tuple of float
        Blur of the scanner along i, j and k, to be passed to ``fluid_fraction``.
    regions : ndarray, shape (I, J, K), uint8
        True region numbers (``data.atlas.REGIONS``), 0 outside.
    roi : ndarray, shape (I, J, K), uint8
        The same as an atlas registration would err.
    placement : Placement
        In the world of ``grid``.
    grid : Grid
        MNI-oriented RAS mm.
    ac_mm : ndarray, shape (3,)
        Anterior commissure in the world of ``grid``.
    """

    image: Float32Array
    bias: Float32Array
    fluid: float
    noise_sigma: float
    psf_sigma_mm: tuple[float, float, float]
    regions: LabelArray
    roi: LabelArray
    placement: Placement
    grid: Grid
    ac_mm: FloatArray


def draw_canvas(anatomy: Anatomy, rng: np.random.Generator, protocol: Protocol) -> Canvas:
    """Draw one canvas: shape, pose, contrast, texture, mimics, blur and bias field.

    Parameters
    ----------
    anatomy : Anatomy
    rng : numpy.random.Generator
        The canvas is a function of its state.
    protocol : Protocol
        Gives the prepared grid.
    """
    warp = draw_warp(rng, anatomy, ShapeVariation(), growth=float(rng.uniform(*GROWTH)))
    center = roi_center_mm(anatomy, warp)
    pose = random_rigid(rng, center, RESIDUAL_DEG, RESIDUAL_MM)
    grid = centered_grid(protocol.grid.shape, protocol.grid.spacing_mm, center)
    placed = Placed(grid, inverse_of(pose))
    tissue, scanner = draw_tissue(rng), draw_scanner(rng)
    mean, labels = painted(rng, anatomy, warp, placed, tissue)
    mimics = draw_mimics(rng, labels, grid, MimicRates())
    mean = blur(mean, grid, scanner.psf_sigma_mm)
    mean = paint_mimics(mean, grid, tissue.fluid, mimics, scanner.psf_sigma_mm)
    return _canvas(
        rng, _Scene(mean, labels, tissue, scanner, grid, apply_affine(pose, ac_mm(anatomy, warp)), pose)
    )


@dataclass(frozen=True)
class _Scene:
    mean: Float32Array
    labels: Int16Array
    tissue: TissueModel
    scanner: Scanner
    grid: Grid
    ac_mm: FloatArray
    pose: FloatArray


def _canvas(rng: np.random.Generator, scene: _Scene) -> Canvas:
    bias = bias_field(rng, scene.grid, scene.scanner.bias)
    regions = regions_of(scene.labels)
    return Canvas(
        image=ghosted(scene.mean * bias, scene.grid, scene.scanner),
        bias=bias,
        fluid=scene.tissue.fluid,
        noise_sigma=scene.scanner.noise_sigma,
        psf_sigma_mm=scene.scanner.psf_sigma_mm,
        regions=regions,
        roi=mistaken_roi(rng, regions, scene.grid, ROI_ERROR),
        placement=placement_of(regions, scene.grid, scene.ac_mm, scene.pose[:3, 2]),
        grid=scene.grid,
        ac_mm=scene.ac_mm,
    )


def painted(
    rng: np.random.Generator, anatomy: Anatomy, warp: Warp, placed: Placed, tissue: TissueModel
) -> tuple[Float32Array, Int16Array]:
    """Textured tissue and FreeSurfer labels on a grid within the anatomy's detail block."""
    block = anatomy.detail
    mean = paint(block.labels, tissue, DETAIL_BLUR, SHADING_BLUR)
    values, labels = sample([mean, block.labels], block.grid, warp, placed)
    image = np.asarray(values, dtype=np.float32)
    numbers = np.asarray(labels, dtype=np.int16)
    image += texture_field(rng, placed.grid) * tissue.texture_of(numbers)
    return np.maximum(image, 0.0), numbers


def roi_center_mm(anatomy: Anatomy, warp: Warp) -> FloatArray:
    """Middle of the basal ganglia's bounding box in person RAS mm, shape (3,)."""
    voxels = np.argwhere(np.isin(anatomy.labels, list(REGION_OF_LABEL)))
    # Every 20th voxel finds the box to a fraction of a mm.
    points = warp.inverse(apply_affine(anatomy.grid.affine, voxels[::20]))
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2.0, dtype=np.float64)


def ac_mm(anatomy: Anatomy, warp: Warp) -> FloatArray:
    """Anterior commissure in person RAS mm, shape (3,)."""
    return warp.inverse(anatomy.ac_mm)
