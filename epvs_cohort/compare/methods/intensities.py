"""Method (a): the prepared intensities themselves, for these lesions are among the brightest of the basal ganglia.

The threshold comes from the count of the FCN. The paper names a count for each network and this method has none; the
FCN's is the best that there is, so what is compared is where lesions are sought, at one and the same count. Intensities
are those that the network sees: masked, trimmed, in [0, 1]. What was trimmed scores alike and enters together.
"""

from __future__ import annotations

import numpy as np

from epvs_cohort.compare.methods.method import Case, ScoreMethod
from epvs_cohort.records import Float32Array


def score(case: Case) -> Float32Array:
    """Intensity of each voxel of the mask."""
    return case.volume.intensities[case.volume.mask].astype(np.float32, copy=False)


METHOD = ScoreMethod("a", "Intensities", "fcn", score)
