"""Maps from labels found in a scan: known ones are found again, and what is no head is refused."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import FloatArray, Grid, apply_affine, centered_grid, rigid_about
from epvs_cohort.head_classes import HeadClass
from epvs_cohort.prepare.label_fit import fit_labels, similarity_of
from tests.prepare.phantom import atlas_segmentation

#: Where the maps must be right: around the basal ganglia, MNI RAS mm.
POINTS = np.array([[x, y, z] for x in (-30.0, 0.0, 30.0) for y in (-20.0, 3.0, 25.0) for z in (-12.0, 20.0)])


def grid_around(native_from_mni: FloatArray) -> Grid:
    return centered_grid((72, 72, 56), (2.0, 2.0, 2.0), apply_affine(native_from_mni, [0.0, 2.0, 2.0]))


def distances(one: FloatArray, other: FloatArray) -> FloatArray:
    apart: FloatArray = np.linalg.norm(apply_affine(one, POINTS) - apply_affine(other, POINTS), axis=1)
    return apart


def test_a_pose_and_its_size_are_found_from_the_middles_of_the_regions() -> None:
    true = rigid_about([0.0, 0.0, 0.0], np.radians([25.0, -12.0, 18.0]), [30.0, -50.0, 12.0])
    true[:3, :3] *= 0.92
    fit = fit_labels(atlas_segmentation(true, grid_around(true)), load_atlas())
    assert distances(fit.similarity, true).max() < 1.0
    assert distances(fit.affine, true).max() < 0.5
    assert fit.dice > 0.93


def test_an_affine_is_found_from_the_shapes() -> None:
    true = rigid_about([0.0, 0.0, 0.0], np.radians([-18.0, 9.0, -10.0]), [5.0, 20.0, -7.0])
    true[:3, :3] = true[:3, :3] @ np.array([[0.86, 0.05, 0.0], [0.0, 1.04, -0.06], [0.04, 0.0, 0.93]])
    fit = fit_labels(atlas_segmentation(true, grid_around(true)), load_atlas())
    assert distances(fit.similarity, true).max() > 2.0
    assert distances(fit.affine, true).max() < 0.6
    assert fit.dice > 0.93


def test_what_shows_no_basal_ganglia_has_no_place() -> None:
    true = np.eye(4)
    found = atlas_segmentation(true, grid_around(true))
    found.labels[found.labels == HeadClass.LEFT_PUTAMEN] = 0
    assert fit_labels(found, load_atlas()).dice < 0.9
    # A half head does not settle the pose of a whole one.
    found.labels[np.isin(found.labels, (1, 5, 7))] = 0
    with pytest.raises(RoiError, match=r"found 4 \(right caudate, .*on both sides"):
        fit_labels(found, load_atlas())
    found.labels[:] = 0
    with pytest.raises(RoiError, match=r"found 0 \(none\)"):
        fit_labels(found, load_atlas())


def test_a_similarity_never_mirrors() -> None:
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 2, 0]])
    found = similarity_of(flat, flat * [1.0, 1.0, -1.0])
    assert np.linalg.det(found[:3, :3]) > 0
    np.testing.assert_allclose(apply_affine(found, flat), flat, atol=1e-9)
