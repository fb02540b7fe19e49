"""The search of a start: scores reckoned all at once are those of each pose on its own."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.prepare import starts
from epvs_cohort.prepare.starts import _Problem

SHAPE, BINS = (9, 11, 7), (3, 5)


def _problem() -> _Problem:
    rng = np.random.default_rng(8)
    scan = np.pad(rng.integers(0, BINS[1], SHAPE), 1, constant_values=BINS[1]).astype(np.uint8)
    affine = np.diag([0.1, 0.12, 0.08, 1.0])
    affine[:3, 3] = (4.0, 5.0, 3.0)
    points = rng.normal(0, 25, (400, 3))
    return _Problem(points, rng.integers(0, BINS[0], 400), BINS, scan, affine)


def _alone(problem: _Problem, pose: FloatArray) -> float:
    """Mutual information of one pose by its definition."""
    matrix = starts._matrices(pose[None])[0]
    voxels = apply_affine(problem.voxel_from_native, problem.points @ matrix.T + pose[:3])
    index = np.rint(voxels).astype(int)
    joint = np.zeros(BINS)
    for at, row in zip(index, problem.bins, strict=True):
        if all(0 <= a < n for a, n in zip(at, SHAPE, strict=True)):
            joint[row, problem.scan[at[0] + 1, at[1] + 1, at[2] + 1]] += 1
    share = float(joint.sum()) / len(index)
    joint /= max(joint.sum(), 1)
    seen = joint > 0
    independent = np.outer(joint.sum(1), joint.sum(0))
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum()) * share


@pytest.mark.parametrize("at_once", [1, 900, 60_000])
def test_scores_are_those_of_each_pose_alone(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(starts, "_POINTS_AT_ONCE", at_once)
    rng, problem = np.random.default_rng(9), _problem()
    poses = np.concatenate([rng.normal(0, 15, (12, 6)), rng.uniform(0.8, 1.0, (12, 1))], axis=1)
    poses[-1, :3] = 5000.0  # wholly outside
    expected = [_alone(problem, pose) for pose in poses]
    assert expected[-1] == 0.0
    assert len(set(expected)) == 12
    np.testing.assert_allclose(starts._scores(problem, poses), expected, rtol=1e-9, atol=1e-12)
