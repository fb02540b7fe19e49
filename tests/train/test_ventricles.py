"""The shipped model counts lesions, not ventricles."""

from __future__ import annotations

import numpy as np
import pytest

from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Prediction
from epvs_cohort.simulate.anatomy import bundled_anatomy
from epvs_cohort.simulate.heads import Acquisition, draw_person, ventricle_ml
from epvs_cohort.simulate.prepared_cohort import Preparation, scan_prepared


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_lesions_the_count_does_not_follow_the_ventricles() -> None:
    how = Preparation(Acquisition(), Protocol())
    predictor = Predictor(load_bundle("gp-unet-sim"))
    sizes: list[float] = []
    counts: list[float] = []
    for number in range(3):
        for growth in (-0.2, 0.1, 0.45):
            # The same head in the same scanner; only what lies around the ventricles is wider.
            person = draw_person(np.random.default_rng((number, 0)), bundled_anatomy(), growth)
            scan = scan_prepared(np.random.default_rng((number, 1)), person, [], how)
            result = predictor.predict([scan.volume])[0]
            assert isinstance(result, Prediction)
            sizes.append(ventricle_ml(person))
            counts.append(result.count)
    x, y = np.reshape(sizes, (3, 3)), np.reshape(counts, (3, 3))
    assert (x[:, 2] > 1.5 * x[:, 0]).all(), "the ventricles are widened"
    within_x, within_y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    slope = float((within_x * within_y).sum() / (within_x**2).sum())
    assert abs(slope * float(np.ptp(x))) < 0.5
