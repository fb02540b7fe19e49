"""Threshold by count: as many components as the network counted (paper, Sec. 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from epvs_cohort.detect.forest import BoolArray, ComponentCounts, Connectivity, component_counts
from epvs_cohort.errors import PredictionError
from epvs_cohort.records import Float32Array

#: Part of the mask, its hottest voxels, looked at first; the rest follows only where n is not reached.
_FIRST_PART = 1 / 8


@dataclass(frozen=True)
class Settled:
    """The threshold that was settled on.

    Attributes
    ----------
    threshold : float or None
        Lesions are the components of {score >= threshold}; None where n is 0.
    how : {"exact", "nearest", "none"}
    n_components : int
        Components counted against n at this threshold.
    """

    threshold: float | None
    how: Literal["exact", "nearest", "none"]
    n_components: int


def rounded_count(count: float) -> int:
    """Number of lesions to look for: max(0, floor(count + 0.5)).

    Raises
    ------
    PredictionError
        The count is not finite.

    Examples
    --------
    >>> [rounded_count(c) for c in (-3.0, 0.49, 0.5, 2.5)]
    [0, 0, 1, 3]
    """
    if not math.isfinite(count):
        raise PredictionError(f"count: the network gave {count}, which is not a finite number")
    return max(0, math.floor(count + 0.5))


def choose_threshold(counts: ComponentCounts, n_lesions: int) -> Settled:
    """Walk down to the first threshold with ``n_lesions`` components, or the nearest on the way, ties to the higher.

    The walk down ends where the number first reaches or passes ``n_lesions``. Voxels of equal score enter together,
    so the number may jump over n (saturated voxels without heat all score alike in method f); far below, where
    lesions and tissue have run together, it may then happen to be n again, and those components are no lesions.

    Raises
    ------
    PredictionError
        There is no threshold to choose from.

    Examples
    --------
    >>> known = ComponentCounts(np.array([9, 7, 4], dtype=np.float32), np.array([1, 4, 2]))
    >>> choose_threshold(known, 4)
    Settled(threshold=7.0, how='exact', n_components=4)
    >>> choose_threshold(known, 2)
    Settled(threshold=9.0, how='nearest', n_components=1)
    >>> choose_threshold(known, 3)
    Settled(threshold=7.0, how='nearest', n_components=4)
    """
    if n_lesions == 0:
        return Settled(None, "none", 0)
    if counts.counts.size == 0:
        raise PredictionError(f"heatmap: no voxel in the mask, but a count of {n_lesions}")
    reached = np.flatnonzero(counts.counts >= n_lesions)
    walked = counts.counts[: reached[0] + 1] if reached.size else counts.counts
    # argmin gives the first of equals, and thresholds descend.
    best = int(np.argmin(np.abs(walked - n_lesions)))
    found = int(counts.counts[best])
    return Settled(float(counts.thresholds[best]), "exact" if found == n_lesions else "nearest", found)


def settle_threshold(
    scores: Float32Array,
    mask: BoolArray,
    n_lesions: int,
    connectivity: Connectivity = 26,
    *,
    touching: BoolArray | None = None,
) -> Settled:
    """Settle the threshold on the scores of a scan (see `choose_threshold`).

    Parameters
    ----------
    scores : ndarray, shape (N,), float32
        At the voxels of the mask in C order.
    mask : ndarray, shape (I, J, K), bool
    n_lesions : int
        Not negative, see `rounded_count`.
    connectivity : {6, 18, 26}
    touching : ndarray, shape (I, J, K), bool, optional
        Only components with a voxel here count.

    Raises
    ------
    PredictionError
        The scores are not finite or do not fit the mask, or the mask is empty.
    """
    if n_lesions == 0:
        return Settled(None, "none", 0)
    n_first = int(scores.size * _FIRST_PART)
    if n_first > 0:
        lowest = float(np.partition(scores, -n_first)[-n_first])
        top = component_counts(scores, mask, connectivity, touching=touching, lowest=lowest)
        if bool((top.counts >= n_lesions).any()):
            return choose_threshold(top, n_lesions)
    return choose_threshold(component_counts(scores, mask, connectivity, touching=touching), n_lesions)
