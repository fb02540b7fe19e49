"""Scans and templates made coarser, once for each."""

from __future__ import annotations

import numpy as np

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.blocks import Shrunk, shrink
from epvs_cohort.data.kept import kept
from epvs_cohort.geometry import FloatArray
from epvs_cohort.records import Float32Array, Image


def shrunk_image(image: Image, spacing_mm: float) -> Shrunk:
    """`shrink` of a scan; made once for each spacing and kept as long as the scan, read-only."""
    return kept(image, ("data", spacing_mm), lambda: _sealed(shrink(image.data, image.affine, spacing_mm)))


def shrunk_atlas(atlas: Atlas, spacing_mm: float) -> tuple[Float32Array, Float32Array, FloatArray]:
    """`shrink` of template and brain mask (share of each block, 0 to 1), and their affine; kept as for a scan."""

    def made() -> tuple[Float32Array, Float32Array, FloatArray]:
        inside, _ = _sealed(shrink(atlas.brain_mask.astype(np.float32), atlas.grid.affine, spacing_mm))
        template, coarse = _sealed(shrink(atlas.template, atlas.grid.affine, spacing_mm))
        return template, inside, coarse

    return kept(atlas, ("template", spacing_mm), made)


def _sealed(shrunk: Shrunk) -> Shrunk:
    for each in shrunk:
        each.setflags(write=False)
    return shrunk
