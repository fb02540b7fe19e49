"""Method (b): saliency of the regression network without the upsampling path (Simonyan et al. 2014, Sec. 3).

The gradient of the network's own count with respect to each voxel; of the gradient its absolute value, as Simonyan et
al. take it, where the paper does not say. It is neither smoothed nor multiplied by the intensities. The threshold
comes from the count of the same network.
"""

from __future__ import annotations

from epvs_cohort.compare.methods.method import Case, ScoreMethod
from epvs_cohort.records import Float32Array


def score(case: Case) -> Float32Array:
    """Size of the gradient of the count at each voxel of the mask."""
    return case.predictor().saliency(case.volume)


METHOD = ScoreMethod("b", "Saliency", "regression", score)
