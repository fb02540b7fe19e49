"""Method (e): the heatmap M of the regression FCN, Eq. 3; the paper's own."""

from __future__ import annotations

from epvs_cohort.compare.methods.method import Case, ScoreMethod
from epvs_cohort.detect.score import ScoreSettings, score_of
from epvs_cohort.records import Float32Array


def score(case: Case) -> Float32Array:
    """The heatmap at each voxel of the mask."""
    return score_of(case.volume, case.prediction, ScoreSettings("e"))


METHOD = ScoreMethod("e", "Regression FCN", "fcn", score)
