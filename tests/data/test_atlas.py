"""The bundled atlas: its parts fit one another and an independent atlas."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from epvs_cohort.data.atlas import TISSUE_CODES, load_atlas
from epvs_cohort.geometry import apply_affine


def test_parts_share_one_grid_in_mni_space() -> None:
    atlas = load_atlas()
    assert atlas.template.shape == atlas.labels.shape == atlas.tissue.shape == atlas.grid.shape
    assert atlas.grid.spacing_mm == pytest.approx((1.0, 1.0, 1.0))
    assert atlas.template.dtype == np.float32
    volume_l = atlas.brain_mask.sum() / 1e6
    assert 1.7 < volume_l < 2.0


def test_regions_lie_on_their_side_and_mirror_one_another() -> None:
    atlas = load_atlas()
    for label, name in atlas.regions.items():
        points = apply_affine(atlas.grid.affine, np.argwhere(atlas.labels == label))
        side = -1.0 if name.startswith("left") else 1.0
        assert np.all(points[:, 0] * side > 0), name
    sizes = [int((atlas.labels == k).sum()) for k in range(1, 9)]
    assert sizes[::2] == pytest.approx(sizes[1::2], rel=0.05)
    for size, low, high in zip(sizes[::2], (4000, 6000, 1500, 400), (9000, 11000, 4500, 2000), strict=True):
        assert low < size < high


def test_template_has_t2_contrast() -> None:
    atlas = load_atlas()
    medians = {
        name: float(np.median(atlas.template[atlas.tissue == code])) for name, code in TISSUE_CODES.items()
    }
    assert medians["white matter"] == pytest.approx(1.0, abs=0.1)
    assert medians["cortex"] == pytest.approx(1.35, abs=0.15)
    assert medians["ventricle"] > 1.9
    assert medians["outside"] == 0.0


def test_ventricles_touch_the_caudate_and_labels_are_deep_grey() -> None:
    atlas = load_atlas()
    assert np.all(atlas.tissue[atlas.labels > 0] == TISSUE_CODES["deep grey"])
    ventricle = atlas.tissue == TISSUE_CODES["ventricle"]
    beside = ndimage.binary_dilation(ventricle, iterations=2)
    assert (beside & (atlas.labels == 1)).sum() > 200
    assert not ventricle[
        tuple(np.round(apply_affine(np.linalg.inv(atlas.grid.affine), [0, -90, 60])).astype(int))
    ]


def test_arrays_are_read_only_and_loaded_once() -> None:
    atlas = load_atlas()
    assert load_atlas() is atlas
    assert len(atlas.atlas_id) == 16
    with pytest.raises(ValueError, match="read-only"):
        atlas.labels[0, 0, 0] = 1


def test_basal_ganglia_agree_with_cit168(shared_data: Path) -> None:
    atlas = load_atlas()
    reference = nib.load(shared_data / "reference" / "cit168_labels.nii.gz")
    theirs = np.isin(np.asarray(reference.dataobj), (1, 2, 3, 4, 5, 6, 9, 10, 11, 12))
    offset = (np.linalg.inv(atlas.grid.affine) @ reference.affine)[:3, 3]
    assert offset == pytest.approx(np.round(offset))
    start = np.round(offset).astype(int)
    placed = np.zeros(atlas.grid.shape, dtype=bool)
    placed[tuple(slice(s, s + n) for s, n in zip(start, theirs.shape, strict=True))] = theirs
    ours = atlas.labels > 0
    dice = 2 * (ours & placed).sum() / (ours.sum() + placed.sum())
    assert dice >= 0.75
