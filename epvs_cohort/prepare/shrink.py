"""Scans made coarser by averaging whole blocks of voxels."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import numpy.typing as npt

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.geometry import FloatArray, apply_affine, spacing_of
from epvs_cohort.records import Float32Array, Image

Shrunk = tuple[Float32Array, FloatArray]

#: What was made of each living scan or atlas, by its ``id``: spacing in mm and which array of it.
_MADE: dict[int, dict[tuple[float, str], Shrunk]] = {}


def shrunk_image(image: Image, spacing_mm: float) -> Shrunk:
    """`shrink` of a scan; made once for each spacing and kept as long as the scan, read-only."""
    made = _made_of(image)
    if (spacing_mm, "data") not in made:
        made[spacing_mm, "data"] = _sealed(shrink(image.data, image.affine, spacing_mm))
    return made[spacing_mm, "data"]


def shrunk_atlas(atlas: Atlas, spacing_mm: float) -> tuple[Float32Array, Float32Array, FloatArray]:
    """`shrink` of template and brain mask (share of each block, 0 to 1), and their affine; kept as for a scan."""
    made, affine = _made_of(atlas), atlas.grid.affine
    if (spacing_mm, "template") not in made:
        inside = atlas.brain_mask.astype(np.float32)
        made[spacing_mm, "inside"] = _sealed(shrink(inside, affine, spacing_mm))
        made[spacing_mm, "template"] = _sealed(shrink(atlas.template, affine, spacing_mm))
    template, coarse = made[spacing_mm, "template"]
    return template, made[spacing_mm, "inside"][0], coarse


def _made_of(owner: Image | Atlas) -> dict[tuple[float, str], Shrunk]:
    if id(owner) not in _MADE:
        _MADE[id(owner)] = {}
        weakref.finalize(owner, partial(_MADE.pop, id(owner)))
    return _MADE[id(owner)]


def _sealed(shrunk: Shrunk) -> Shrunk:
    for each in shrunk:
        each.setflags(write=False)
    return shrunk


def shrink(data: npt.NDArray[np.generic], affine: FloatArray, spacing_mm: float) -> Shrunk:
    """Average blocks of voxels so that edges come nearest to ``spacing_mm``; no axis is made finer.

    Parameters
    ----------
    data : ndarray, shape (I, J, K)
        Voxels; what does not fill a last block is left out.
    affine : ndarray, shape (4, 4)
        Voxel to mm.
    spacing_mm : float
        Wanted voxel edge; 0 changes nothing.

    Returns
    -------
    tuple
        Coarser voxels, float32, and their affine to the same mm.

    >>> coarse, affine = shrink(np.arange(8.0).reshape(8, 1, 1), np.eye(4), 2.0)
    >>> coarse[:, 0, 0].tolist(), float(affine[0, 3])
    ([0.5, 2.5, 4.5, 6.5], 0.5)
    """
    spacing = np.array(spacing_of(affine))
    wanted = np.rint(spacing_mm / spacing).astype(int)
    factor = np.clip(wanted, 1, np.array(data.shape))
    whole = [n // f * f for n, f in zip(data.shape, factor, strict=True)]
    out: Float32Array = np.asarray(data[: whole[0], : whole[1], : whole[2]], dtype=np.float32)
    for axis, f in enumerate(factor):
        if f > 1:
            shape = out.shape
            out = out.reshape(*shape[:axis], shape[axis] // f, f, *shape[axis + 1 :]).mean(axis=axis + 1)
    coarse = np.array(affine, dtype=np.float64)
    coarse[:3, 3] = apply_affine(affine, (factor - 1) / 2)
    coarse[:3, :3] = coarse[:3, :3] * factor
    return out, coarse
