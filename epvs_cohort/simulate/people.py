"""Age, sex, ventricles and count of simulated people, linked as in people or independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from epvs_cohort.simulate.lesions import DEFAULT_COUNT, NegativeBinomial
from epvs_cohort.simulate.prepared import GROWTH

Kind = Literal["evaluation", "training"]

#: Age in years: mean, deviation, and range.
AGE = (68.0, 10.0, 45.0, 95.0)
#: In an evaluation cohort the mean count grows by this part a year (e-fold), and so do the ventricles.
COUNT_PER_YEAR = 0.025
GROWTH_PER_YEAR = 0.012
GROWTH_NOISE = 0.10
GROWTH_RANGE = (-0.2, 0.45)
#: How far in rank the ventricles of a chosen anatomy are off those that go with the age.
ANATOMY_SPREAD = 0.3


@dataclass(frozen=True)
class Facts:
    """What is known of one person before any image is drawn.

    Attributes
    ----------
    age : int
        Years.
    sex : str
        ``F`` or ``M``.
    growth : float
        Widening of the ventricles (`warp.draw_warp`).
    count : int
        Perivascular spaces in the whole ROI.
    anatomy : int
        Number of the label map, from 0.
    """

    age: int
    sex: str
    growth: float
    count: int
    anatomy: int


def people_settings() -> dict[str, object]:
    """Distributions of what `draw_facts` draws, the count apart."""
    return {
        "age": list(AGE),
        "count_per_year": COUNT_PER_YEAR,
        "growth_per_year": GROWTH_PER_YEAR,
        "growth_noise": GROWTH_NOISE,
        "growth_range": list(GROWTH_RANGE),
        "growth_of_training": list(GROWTH),
        "anatomy_spread": ANATOMY_SPREAD,
    }


def draw_facts(rng: np.random.Generator, kind: Kind, ventricle_ranks: tuple[float, ...]) -> Facts:
    """Draw what is known of a person before the head is drawn.

    Parameters
    ----------
    kind : str
        ``evaluation``: count, ventricles and choice of anatomy go with age; ``training``: all independent.
    ventricle_ranks : tuple of float
        Rank of each anatomy by the size of its ventricles, 0 to 1.
    """
    mean, deviation, low, high = AGE
    age = float(np.clip(rng.normal(mean, deviation), low, high))
    sex = "F" if rng.random() < 0.5 else "M"
    ranks = np.asarray(ventricle_ranks)
    if kind == "evaluation":
        years = age - mean
        growth = float(np.clip(rng.normal(GROWTH_PER_YEAR * years, GROWTH_NOISE), *GROWTH_RANGE))
        expected = NegativeBinomial(
            DEFAULT_COUNT.mean * np.exp(COUNT_PER_YEAR * years), DEFAULT_COUNT.dispersion
        )
        weights = np.exp(-0.5 * ((ranks - (age - low) / (high - low)) / ANATOMY_SPREAD) ** 2)
    else:
        growth = float(rng.uniform(*GROWTH))
        expected = DEFAULT_COUNT
        weights = np.ones(len(ranks))
    count = expected.draw(rng)
    anatomy = int(rng.choice(len(ranks), p=weights / weights.sum()))
    return Facts(round(age), sex, growth, count, anatomy)
