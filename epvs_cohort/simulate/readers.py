"""Simulated readers: they miss faint perivascular spaces, now and then mark something else, and differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epvs_cohort.simulate.lesions import LesionSpec


@dataclass(frozen=True)
class Reading:
    """One pass over a cohort.

    Attributes
    ----------
    name : str
        In the tables.
    leniency : float
        What its reader's threshold is lower by, on every scan.
    """

    name: str
    leniency: float


@dataclass(frozen=True)
class ReaderModel:
    """How simulated readers see, in units of `visibility`, which is 0 for nothing and 1 for wide and as fluid.

    ``mood_sd`` is chosen so that one reader's two readings of whole basal ganglia agree with ICC(A,1) about 0.80,
    the intra-rater agreement that Dubost et al. report (Medical Image Analysis 51, 2019, arXiv 1802.05914). The
    other values are assumed.

    Attributes
    ----------
    threshold : float
        Visibility that is noticed in one of two readings.
    slope : float
        Of the logistic curve around it.
    mood_sd : float
        Standard deviation over readings of one scan of what the threshold of that reading is lower by.
    false_marks : float
        Expected number of marks in a scan that are no perivascular space.
    resolved_mm : float
        Diameter at which blur leaves half of the contrast.
    readings : tuple of Reading
        Two by one reader, one by a stricter one.
    """

    threshold: float = 0.4
    slope: float = 0.05
    mood_sd: float = 0.15
    false_marks: float = 0.7
    resolved_mm: float = 1.0
    readings: tuple[Reading, ...] = (Reading("A", 0.0), Reading("A again", 0.0), Reading("B", -0.04))


def visibility(lesion: LesionSpec, model: ReaderModel) -> float:
    """Contrast of a lesion that blur leaves: contrast times d**2 / (d**2 + w**2), diameter d, width w of the blur.

    That is the height of a rod with Gaussian cross-section of width d after a Gaussian blur of width w.
    """
    square = (2.0 * lesion.radius_mm) ** 2
    return lesion.contrast * square / (square + model.resolved_mm**2)


def draw_readings(
    rng: np.random.Generator, lesions: Sequence[LesionSpec], model: ReaderModel
) -> Mapping[str, int]:
    """Count of each reading of one scan, over the whole ROI, by the name of the reading.

    Parameters
    ----------
    lesions : sequence of LesionSpec
        All perivascular spaces of the scan.
    """
    seen = np.array([visibility(lesion, model) for lesion in lesions])
    counts = {}
    for reading in model.readings:
        threshold = model.threshold - reading.leniency - rng.normal(0.0, model.mood_sd)
        noticed = rng.random(len(seen)) < 1.0 / (1.0 + np.exp((threshold - seen) / model.slope))
        counts[reading.name] = int(noticed.sum()) + int(rng.poisson(model.false_marks))
    return counts
