"""Method (c): saliency of the full FCN: as method (b), of the network with the upsampling path and by its count."""

from __future__ import annotations

from epvs_cohort.compare.methods import saliency
from epvs_cohort.compare.methods.method import ScoreMethod

METHOD = ScoreMethod("c", "Saliency FCN", "fcn", saliency.score)
