"""The figures that training reports, from the floor's measures."""

from __future__ import annotations

from epvs_cohort.compare.agreement import CountFigures, count_figures, icc_agreement
from epvs_cohort.compare.matching import MATCH_VOXELS, MatchFigures, match_points

__all__ = ["CountFigures", "MATCH_VOXELS", "MatchFigures", "count_figures", "icc_agreement", "match_points"]
