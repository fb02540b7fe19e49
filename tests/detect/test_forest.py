from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from epvs_cohort.detect.forest import ComponentCounts, Connectivity, component_counts
from epvs_cohort.errors import PredictionError, TooLargeError

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
CONNECTIVITIES: st.SearchStrategy[Connectivity] = st.sampled_from((6, 18, 26))
ORDER_OF: dict[int, int] = {6: 1, 18: 2, 26: 3}


def brute_force(
    heat: np.ndarray, mask: np.ndarray, connectivity: int, touching: np.ndarray
) -> tuple[np.ndarray, list[int], list[int]]:
    """Thresholds, components and touching components, by labelling at each distinct value."""
    structure = ndimage.generate_binary_structure(3, ORDER_OF[connectivity])
    thresholds = np.unique(heat[mask])[::-1]
    counts, touched = [], []
    for threshold in thresholds:
        labels, n_found = ndimage.label(mask & (heat >= threshold), structure)
        counts.append(n_found)
        touched.append(int(np.count_nonzero(np.unique(labels[touching]))))
    return thresholds, counts, touched


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heat with ties and plateaus or without, a mask of any form, and a set of voxels to touch."""
    shape = draw(SHAPES)
    values = draw(
        st.sampled_from(
            (
                st.integers(-1, 2).map(float),
                st.integers(0, 40).map(float),
                st.floats(-1e6, 1e6, width=32, allow_nan=False),
            )
        )
    )
    # Values are drawn one by one, since a fill value would make nearly all of them one plateau.
    heat = draw(hnp.arrays(np.float32, shape, elements=values, fill=st.nothing()))
    mask = draw(hnp.arrays(np.bool_, shape, elements=st.booleans(), fill=st.nothing()))
    touching = draw(hnp.arrays(np.bool_, shape, elements=st.booleans()))
    return heat, mask | (draw(st.integers(0, 2)) > 0), touching


@settings(max_examples=200, deadline=None)
@given(cases(), CONNECTIVITIES)
def test_counts_equal_brute_force_at_every_threshold(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], connectivity: Connectivity
) -> None:
    heat, mask, touching = case
    thresholds, counts, touched = brute_force(heat, mask, connectivity, touching)
    every = component_counts(heat[mask], mask, connectivity)
    assert every.thresholds.tolist() == thresholds.tolist()
    assert every.counts.tolist() == counts
    some = component_counts(heat[mask], mask, connectivity, touching=touching)
    assert some.thresholds.tolist() == thresholds.tolist()
    assert some.counts.tolist() == touched


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_counts_equal_brute_force_on_textures(connectivity: Connectivity, sigma: float) -> None:
    rng = np.random.default_rng(7)
    heat = ndimage.gaussian_filter(rng.standard_normal((14, 12, 10)), sigma).astype(np.float32)
    heat = np.round(heat / heat.std(), 2).astype(np.float32)
    mask = ndimage.gaussian_filter(rng.standard_normal(heat.shape), 1.5) > -0.05
    slab = np.zeros(heat.shape, dtype=bool)
    slab[:, :, 4] = True
    thresholds, counts, touched = brute_force(heat, mask, connectivity, slab)
    assert max(counts) > 3
    found = component_counts(heat[mask], mask, connectivity)
    assert found.thresholds.tolist() == thresholds.tolist()
    assert found.counts.tolist() == counts
    assert component_counts(heat, mask, connectivity, touching=slab).counts.tolist() == touched


@settings(max_examples=50, deadline=None)
@given(cases(), CONNECTIVITIES, st.integers(0, 100))
def test_lowest_gives_the_top_of_the_same_curve(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], connectivity: Connectivity, at: int
) -> None:
    heat, mask, touching = case
    whole = component_counts(heat[mask], mask, connectivity, touching=touching)
    if whole.thresholds.size == 0:
        return
    last = at % whole.thresholds.size
    lowest = float(whole.thresholds[last])
    top = component_counts(heat[mask], mask, connectivity, touching=touching, lowest=lowest)
    assert top.thresholds.tolist() == whole.thresholds[: last + 1].tolist()
    assert top.counts.tolist() == whole.counts[: last + 1].tolist()


def test_ends_of_rows_are_no_neighbours() -> None:
    heat = np.zeros((3, 3, 3), dtype=np.float32)
    heat[0, 0, 2] = heat[0, 1, 0] = 1.0
    assert component_counts(heat, heat > 0, 26).counts.tolist() == [2]


def test_diagonals_join_as_the_connectivity_says() -> None:
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = True
    heat = np.ones(3, dtype=np.float32)
    assert [component_counts(heat, mask, c).counts.tolist() for c in (6, 18, 26)] == [[3], [2], [1]]


def test_empty_mask_has_no_threshold() -> None:
    found = component_counts(np.empty(0, np.float32), np.zeros((2, 2, 2), dtype=bool))
    assert isinstance(found, ComponentCounts)
    assert found.thresholds.size == found.counts.size == 0


def test_heat_must_fit_the_mask_and_be_finite() -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(PredictionError, match=r"\(7,\).*8 voxels"):
        component_counts(np.zeros(7, np.float32), mask)
    with pytest.raises(PredictionError, match="2 values are not finite"):
        component_counts(np.array([0, 1, 2, 3, 4, 5, np.nan, np.inf], np.float32), mask)


def test_a_full_size_volume_is_counted_within_a_second() -> None:
    i, j, k = np.ogrid[:168, :128, :84]
    mask = np.zeros((168, 128, 84), dtype=bool)
    for middle in (50, 118):
        mask |= ((i - middle) / 27) ** 2 + ((j - 64) / 48) ** 2 + ((k - 42) / 32) ** 2 < 1
    noise = np.random.default_rng(3).standard_normal(mask.shape, dtype=np.float32)
    heat = ndimage.gaussian_filter(noise, 1.5)[mask]
    assert 300_000 < heat.size < 400_000
    started = time.process_time()
    component_counts(heat, mask)
    # The figure itself is measured by benchmarks/detection.py; a test machine may be busy.
    assert time.process_time() - started < 1.0


def test_more_peaks_than_one_number_can_hold_are_refused() -> None:
    # Every second voxel of a line is a peak; two bit fields of peaks and one of ranks must fit 63 bits.
    line = np.tile(np.array([1.0, 0.0], dtype=np.float32), 2**21)
    with pytest.raises(TooLargeError, match="4194304 voxels with 2097152 peaks"):
        component_counts(line, np.ones((1, 1, line.size), dtype=bool), 6)
