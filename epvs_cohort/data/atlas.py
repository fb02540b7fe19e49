"""The bundled MNI152 template and atlas of the basal ganglia (built by ``build_atlas.py``)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray, Grid
from epvs_cohort.records import Float32Array, LabelArray

_Array = TypeVar("_Array", bound=npt.NDArray[np.generic])

BUNDLED = Path(__file__).resolve().parent / "bundled"
FILES = ("template.nii.gz", "labels.nii.gz", "tissue.nii.gz")

#: Label to ``<hemisphere> <structure>``.
REGIONS: dict[int, str] = {
    1: "left caudate",
    2: "right caudate",
    3: "left putamen",
    4: "right putamen",
    5: "left pallidum",
    6: "right pallidum",
    7: "left accumbens",
    8: "right accumbens",
}

#: Code of the tissue map to name; ``csf`` is fluid outside the ventricles, ``deep grey`` holds the basal ganglia,
#: thalamus, hippocampus and amygdala.
TISSUES: dict[int, str] = {
    0: "outside",
    1: "ventricle",
    2: "csf",
    3: "cortex",
    4: "white matter",
    5: "deep grey",
}
TISSUE_CODES: dict[str, int] = {name: code for code, name in TISSUES.items()}


@dataclass(frozen=True)
class Atlas:
    """Template and atlas on one 1 mm grid in MNI152 space.

    Attributes
    ----------
    template : ndarray, shape (I, J, K), float32
        T2-like brain, white matter 1, CSF 2.4, 0 outside the brain.
    brain_mask : ndarray, shape (I, J, K), bool
        Inside of the skull.
    labels : ndarray, shape (I, J, K), uint8
        Keys of ``regions``, 0 elsewhere.
    tissue : ndarray, shape (I, J, K), uint8
        Keys of ``TISSUES``.
    grid : Grid
        Voxel to MNI152 RAS mm.
    regions : mapping of int to str
        Label to ``<hemisphere> <structure>``.
    atlas_id : str
        First 16 hexadecimal digits of the SHA-256 of the three files' bytes.
    """

    template: Float32Array
    brain_mask: npt.NDArray[np.bool_]
    labels: LabelArray
    tissue: LabelArray
    grid: Grid
    regions: Mapping[int, str]
    atlas_id: str


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Load the bundled atlas; the same read-only object every time."""
    contents = [(BUNDLED / name).read_bytes() for name in FILES]
    images = [nib.Nifti1Image.from_bytes(gzip.decompress(content)) for content in contents]
    template = _frozen(np.asarray(images[0].dataobj, dtype=np.float32))
    affine: FloatArray = np.asarray(images[0].affine, dtype=np.float64)
    i, j, k = template.shape
    return Atlas(
        template=template,
        brain_mask=_frozen(template > 0),
        labels=_frozen(np.asarray(images[1].dataobj).astype(np.uint8)),
        tissue=_frozen(np.asarray(images[2].dataobj).astype(np.uint8)),
        grid=Grid((i, j, k), affine),
        regions=dict(REGIONS),
        atlas_id=hashlib.sha256(b"".join(contents)).hexdigest()[:16],
    )


def _frozen(array: _Array) -> _Array:
    array.setflags(write=False)
    return array
