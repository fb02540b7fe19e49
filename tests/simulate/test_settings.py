"""The simulator's difficulty was fixed before any bundled model was trained."""

from __future__ import annotations

import json

from epvs_cohort.simulate.settings import image_settings, images_id

#: Committed before the training of the bundled models; their cards and docs/accuracy.md quote it.
FIXED = "c0612ce35cd3f922"


def test_the_difficulty_is_the_one_that_the_figures_were_taken_at() -> None:
    assert images_id() == FIXED, (
        "a distribution of the simulator changed: every figure in docs/accuracy.md and on the cards of the bundled "
        "models was taken at another difficulty and has to be taken anew"
    )


def test_the_hash_covers_lesions_mimics_scanner_and_outline() -> None:
    named = json.dumps(image_settings())
    for word in (
        "contrast_beta",
        "dispersion",
        "specks",
        "noise_sigma",
        "ghost_share",
        "grown_mm",
        "plateau",
    ):
        assert f'"{word}"' in named
