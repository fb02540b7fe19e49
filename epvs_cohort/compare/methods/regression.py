"""Method (d): class map of the regression network without the upsampling path, after Zhou et al. (2016).

Eq. 3 on the features that this network pools, those of its coarsest level, brought up to the grid: trilinear between
the middles of the cells, see `model.network.raised_heat`, where the paper names no interpolation. The threshold comes
from the count of the same network.
"""

from __future__ import annotations

from epvs_cohort.compare.methods.method import Case, ScoreMethod
from epvs_cohort.detect.score import checked_heat
from epvs_cohort.records import Float32Array


def score(case: Case) -> Float32Array:
    """The class map at each voxel of the mask."""
    return checked_heat(case.volume, case.prediction)


METHOD = ScoreMethod("d", "Regression", "regression", score)
