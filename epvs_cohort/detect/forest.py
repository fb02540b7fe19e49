"""Number of connected components of {M >= t} at every threshold t at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from epvs_cohort.errors import PredictionError, TooLargeError
from epvs_cohort.records import Float32Array

Connectivity = Literal[6, 18, 26]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

#: How many of the three indices may differ between neighbours.
_AXES_THAT_DIFFER = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class ComponentCounts:
    """Number of components of {heat >= t} for each distinct heat t.

    Attributes
    ----------
    thresholds : ndarray, shape (T,), float32
        The distinct values, descending.
    counts : ndarray, shape (T,), int64
        Components at each threshold; not monotone.
    """

    thresholds: Float32Array
    counts: IntArray


@dataclass(frozen=True)
class _Voxels:
    """Voxels in C order on a flat grid padded by one; ``ranks`` 1..N rise with heat and are 0 outside."""

    at: IntArray
    ranks: npt.NDArray[np.int32]
    rank_at: npt.NDArray[np.int32]
    strides: tuple[int, int, int]

    @property
    def margin(self) -> int:
        """Where the voxel with ``at`` 0 lies in the padded grid; no step to a neighbour is longer."""
        return sum(self.strides)

    def neighbours(self, values: npt.NDArray[np.int32], step: int) -> npt.NDArray[np.int32]:
        """Values of the padded grid ``step`` away from each voxel, shape (N,)."""
        # Shifting the grid instead of the indices spares one pass.
        return values[self.margin + step :].take(self.at)


@dataclass(frozen=True)
class _Edges:
    """Weighted edges between peaks; nodes are peak numbers, weights are ranks."""

    low: IntArray
    high: IntArray
    weight: IntArray


def component_counts(
    heat: Float32Array,
    mask: BoolArray,
    connectivity: Connectivity = 26,
    *,
    touching: BoolArray | None = None,
    lowest: float | None = None,
) -> ComponentCounts:
    """Count the components of {heat >= t} within the mask at every threshold at once.

    In the voxel graph with edge weight = the smaller heat of the two ends, the components of {heat >= t} are
    as many as the voxels at or above t less the edges at or above t of a maximum spanning forest. Put the
    voxels in a strict order (by heat, equal heat in any order). All edges from a voxel to higher neighbours
    weigh the same, and more than those to lower ones, so by the cut property one of them may be taken into the
    forest for every voxel that has any; as each leads upwards they close no cycle. Such an edge enters at the
    rank of its lower end, so the two cancel. What remains are the peaks (voxels without a higher neighbour)
    and the forest of the graph in which every voxel is contracted into the peak it climbs to:
    ``count(t) = peaks at or above t - edges of the contracted forest at or above t``.
    Equal values enter together because counts are read only where the value changes.

    With ``touching``, one more node s, higher than all, is joined to each of those voxels with the voxel's
    own rank. The component of s then swallows just the components that touch, so these are ``count(t)`` less
    the components without s: ``forest edges with s at or above t - forest edges without s at or above t``.
    The upward edges stay valid, for the edge to s weighs what the voxel's other upward edges weigh, and the
    forest with s lies within the forest without s and the edges to s.

    Parameters
    ----------
    heat : ndarray, shape (N,) at the voxels of the mask in C order, or shape (I, J, K)
        Finite values.
    mask : ndarray, shape (I, J, K), bool
    connectivity : {6, 18, 26}
    touching : ndarray, shape (I, J, K), bool, optional
        Count only the components with a voxel here.
    lowest : float, optional
        Only thresholds at or above this are returned, and only voxels at or above it are looked at.

    Raises
    ------
    PredictionError
        The heat is not finite, or does not fit the mask.
    TooLargeError
        Far more peaks and voxels than a prepared volume has.

    Examples
    --------
    >>> row = np.array([[[3.0, 1.0, 2.0]]], dtype=np.float32)
    >>> component_counts(row, np.ones((1, 1, 3), dtype=bool)).counts.tolist()
    [1, 2, 1]
    """
    values = _values(heat, mask)
    inside = mask
    if lowest is not None:
        keep = values >= lowest
        inside = np.zeros_like(mask)
        inside[mask] = keep
        values = values[keep]
    if values.size == 0:
        return ComponentCounts(np.empty(0, np.float32), np.empty(0, np.int64))
    # Any strict order of equal values will do, so the sort need not be the slower stable one.
    order = np.argsort(values)
    voxels = _voxels(inside, order)
    rises = _rises(voxels, connectivity, None if touching is None else touching[inside])
    ascending = values[order]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    counts = np.cumsum(rises[:0:-1])[::-1][first]
    return ComponentCounts(ascending[first][::-1].copy(), counts[::-1].copy())


def _values(heat: Float32Array, mask: BoolArray) -> Float32Array:
    values = heat[mask] if heat.ndim == 3 and heat.shape == mask.shape else heat
    n_voxels = int(np.count_nonzero(mask))
    if values.shape != (n_voxels,):
        raise PredictionError(f"heatmap: shape {heat.shape} does not fit the {n_voxels} voxels of the mask")
    if not np.isfinite(values).all():
        raise PredictionError(f"heatmap: {np.count_nonzero(~np.isfinite(values))} values are not finite")
    return np.asarray(values, dtype=np.float32)


def _voxels(inside: BoolArray, order: IntArray) -> _Voxels:
    points = np.nonzero(inside)
    lows = [int(axis.min()) for axis in points]
    shape = [int(axis.max()) - low + 3 for axis, low in zip(points, lows, strict=True)]
    strides = (shape[1] * shape[2], shape[2], 1)
    at = sum(
        ((axis - low) * stride for axis, low, stride in zip(points, lows, strides, strict=True)),
        start=np.zeros(order.size, dtype=np.int64),
    )
    ranks = np.empty(order.size, dtype=np.int32)
    ranks[order] = np.arange(1, order.size + 1, dtype=np.int32)
    voxels = _Voxels(at, ranks, np.zeros(shape[0] * shape[1] * shape[2], dtype=np.int32), strides)
    voxels.rank_at[at + voxels.margin] = ranks
    return voxels


def _half_offsets(strides: tuple[int, int, int], connectivity: Connectivity) -> list[int]:
    """Steps in the flat padded grid, one of each pair of opposite directions."""
    most = _AXES_THAT_DIFFER[connectivity]
    steps = [np.array(index) - 1 for index in np.ndindex(3, 3, 3)]
    return [int(step @ strides) for step in steps[14:] if np.count_nonzero(step) <= most]


def _rises(voxels: _Voxels, connectivity: Connectivity, touching: BoolArray | None) -> IntArray:
    """Change of the count as each rank enters from above, shape (N + 1,); rank 0 is unused."""
    n_voxels = voxels.ranks.size
    offsets = _half_offsets(voxels.strides, connectivity)
    peak_of = _climb(voxels, offsets)
    peaks = np.flatnonzero(peak_of[1:] == np.arange(1, n_voxels + 1)) + 1
    number = np.zeros(n_voxels + 1, dtype=np.int32)
    number[peaks] = np.arange(peaks.size, dtype=np.int32)
    basin = number[peak_of[voxels.ranks]]
    forest = _forest(_saddles(voxels, offsets, basin), peaks.size, n_voxels)
    joins = np.bincount(forest.weight, minlength=n_voxels + 1)
    if touching is None:
        return np.bincount(peaks, minlength=n_voxels + 1) - joins
    highest = np.zeros(peaks.size, dtype=np.int64)
    np.maximum.at(highest, basin[touching], voxels.ranks[touching].astype(np.int64))
    touched = np.flatnonzero(highest)
    with_slab = _Edges(
        np.concatenate([forest.low, touched]),
        np.concatenate([forest.high, np.full(touched.size, peaks.size)]),
        np.concatenate([forest.weight, highest[touched]]),
    )
    return np.bincount(_forest(with_slab, peaks.size + 1, n_voxels).weight, minlength=n_voxels + 1) - joins


def _climb(voxels: _Voxels, offsets: list[int]) -> npt.NDArray[np.int32]:
    """Rank of the peak that each rank climbs to by the steepest way, shape (N + 1,)."""
    best = voxels.ranks.copy()
    for offset in offsets:
        np.maximum(best, voxels.neighbours(voxels.rank_at, offset), out=best)
        np.maximum(best, voxels.neighbours(voxels.rank_at, -offset), out=best)
    up = np.zeros(voxels.ranks.size + 1, dtype=np.int32)
    up[voxels.ranks] = best
    while True:
        further = up[up]
        if np.array_equal(further, up):
            return up
        up = further


def _saddles(voxels: _Voxels, offsets: list[int], basin: npt.NDArray[np.int32]) -> _Edges:
    """Of the edges between two basins, the highest of each pair."""
    basin_at = np.full(voxels.rank_at.size, -1, dtype=np.int32)
    basin_at[voxels.at + voxels.margin] = basin
    lows, highs, weights = [], [], []
    for offset in offsets:
        there = voxels.neighbours(basin_at, offset)
        crossing = np.flatnonzero(there != basin)
        here, beyond = basin[crossing], there[crossing]
        rank_beyond = voxels.rank_at[voxels.at[crossing] + (voxels.margin + offset)]
        weight = np.minimum(voxels.ranks[crossing], rank_beyond)
        inside = np.flatnonzero(beyond >= 0)
        lows.append(np.minimum(here, beyond)[inside])
        highs.append(np.maximum(here, beyond)[inside])
        weights.append(weight[inside])
    low, high, weight = (np.concatenate(parts).astype(np.int64) for parts in (lows, highs, weights))
    # One sort of one packed number is several times faster than a lexical sort of three.
    peak_bits, rank_bits = int(basin.max()).bit_length(), voxels.ranks.size.bit_length()
    if 2 * peak_bits + rank_bits > 63:
        raise TooLargeError(
            f"heatmap: {voxels.ranks.size} voxels with {int(basin.max()) + 1} peaks are too many to count",
            hint="a prepared grid of the protocol's default size has at most 1.8 million voxels",
        )
    packed = (((low << peak_bits) | high) << rank_bits) | weight
    packed.sort()
    pair = packed >> rank_bits
    last = np.flatnonzero(np.append(pair[1:] != pair[:-1], True)[: pair.size])
    return _Edges(
        pair[last] >> peak_bits,
        pair[last] & ((1 << peak_bits) - 1),
        packed[last] & ((1 << rank_bits) - 1),
    )


def _forest(edges: _Edges, n_nodes: int, n_ranks: int) -> _Edges:
    """Maximum spanning forest; ranks are turned round for SciPy, which minimises and drops zero weights."""
    turned = (n_ranks + 1 - edges.weight).astype(np.float64)
    graph = coo_array((turned, (edges.low, edges.high)), shape=(n_nodes, n_nodes))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    weight = n_ranks + 1 - tree.data.astype(np.int64)
    return _Edges(tree.row.astype(np.int64), tree.col.astype(np.int64), weight)
