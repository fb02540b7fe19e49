"""Method (f): weighted sum of the heatmap of the FCN and the intensities; the paper's best.

The paper gives no weight. Here M is divided by its usual peak and the weight of the intensities is tuned on marked
lesions of validation scans; see `detect.score`.
"""

from __future__ import annotations

from epvs_cohort.compare.methods.method import Case, ScoreMethod
from epvs_cohort.detect.score import score_of
from epvs_cohort.records import Float32Array


def score(case: Case) -> Float32Array:
    """Heatmap plus weighted intensity at each voxel of the mask."""
    return score_of(case.volume, case.prediction, case.score)


METHOD = ScoreMethod("f", "Intensities + Reg FCN", "fcn", score, weighted=True)
