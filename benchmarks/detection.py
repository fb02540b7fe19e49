"""Time the component counts of a full-size volume against brute-force labelling, on one core.

Run ``python benchmarks/detection.py``. Each figure is processor time, the least of several runs, so that other
work on the machine disturbs it least. The brute force is one ``scipy.ndimage.label`` of the same mask at each of
a few thresholds spread over the whole curve, whose counts must equal those of the forest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from epvs_cohort.detect.forest import BoolArray, component_counts
from epvs_cohort.detect.threshold import settle_threshold
from epvs_cohort.records import Float32Array

log = logging.getLogger("detection")

SHAPE = (168, 128, 84)
VOXEL_ML = 0.49 * 0.49 * 0.8 / 1000
LIMIT_S = 0.3
N_LESIONS = 20
N_BRUTE = 12
REPEATS = 5


def basal_ganglia_mask() -> BoolArray:
    """Two ellipsoids of about the size of the dilated basal ganglia, 0.35 million voxels."""
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    mask = np.zeros(SHAPE, dtype=bool)
    for middle in (50, 118):
        mask |= ((i - middle) / 27) ** 2 + ((j - 64) / 48) ** 2 + ((k - 42) / 32) ** 2 < 1
    return mask


def heatmaps() -> dict[str, Float32Array]:
    """Kinds of heat that a network gives: smooth, rough, rectified to a plateau of zeros, and pure noise."""
    noise = np.random.default_rng(11).standard_normal(SHAPE, dtype=np.float32)
    blobs = np.zeros(SHAPE, dtype=np.float32)
    mask = basal_ganglia_mask()
    at = np.argwhere(mask)[:: mask.sum() // 30]
    blobs[tuple(at.T)] = np.linspace(50.0, 400.0, len(at))
    lesions = ndimage.gaussian_filter(blobs, 1.2) + 0.3 * ndimage.gaussian_filter(noise, 1.0)
    return {
        "lesions on texture": lesions,
        "lesions, rectified": np.maximum(lesions, 0.0),
        "smooth texture": ndimage.gaussian_filter(noise, 2.0),
        "rough texture": ndimage.gaussian_filter(noise, 1.0),
        "white noise": noise,
    }


def fastest_s(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of several calls."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure(name: str, heat: Float32Array, mask: BoolArray) -> float:
    """Log the times of one heatmap and return the seconds of its whole curve."""
    values = heat[mask]
    curve = component_counts(values, mask)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    structure = np.ones((3, 3, 3))

    def label(threshold: np.float32) -> int:
        return int(ndimage.label(mask[box] & (heat[box] >= threshold), structure)[1])

    some = np.linspace(0, curve.thresholds.size - 1, N_BRUTE).astype(int)
    wrong = [int(at) for at in some if label(curve.thresholds[at]) != curve.counts[at]]
    if wrong:
        raise SystemExit(f"{name}: the forest disagrees with labelling at thresholds {wrong}")
    slab = np.zeros(SHAPE, dtype=bool)
    slab[:, :, 42] = True
    whole_s = fastest_s(lambda: component_counts(values, mask))
    slab_s = fastest_s(lambda: component_counts(values, mask, touching=slab))
    settle_s = fastest_s(lambda: settle_threshold(values, mask, N_LESIONS))
    label_s = fastest_s(lambda: [label(curve.thresholds[at]) for at in some]) / N_BRUTE
    brute_s = label_s * curve.thresholds.size
    log.info(
        "%-20s %7d thresholds, most %5d components | whole curve %.3f s, with slab %.3f s, to n = %d %.3f s"
        " | one labelling %.4f s, all %.0f s = %.0f times the forest",
        *(name, curve.thresholds.size, curve.counts.max(), whole_s, slab_s, N_LESIONS, settle_s),
        *(label_s, brute_s, brute_s / whole_s),
    )
    return max(whole_s, slab_s)


def main() -> None:
    """Measure every kind of heatmap and say whether the limit holds."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    mask = basal_ganglia_mask()
    log.info("grid %s, mask of %d voxels (%.0f mL), one core", SHAPE, mask.sum(), mask.sum() * VOXEL_ML)
    slowest = max(measure(name, heat, mask) for name, heat in heatmaps().items())
    log.info(
        "slowest %.3f s, limit %.1f s: %s", slowest, LIMIT_S, "holds" if slowest < LIMIT_S else "EXCEEDED"
    )


if __name__ == "__main__":
    main()
