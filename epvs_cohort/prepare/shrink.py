"""Scans and templates made coarser, once for each."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.blocks import Shrunk, shrink
from epvs_cohort.geometry import FloatArray
from epvs_cohort.records import Float32Array, Image

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
