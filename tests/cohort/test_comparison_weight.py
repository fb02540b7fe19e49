"""Where the weight of method (f) is from, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.cohort.comparison import ComparisonOrder
from epvs_cohort.cohort.comparison_models import Model
from epvs_cohort.cohort.comparison_weight import COUNTED, WEIGHED, check_weight, settle_weight
from epvs_cohort.errors import ModelError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.predict import Predictor
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import Prediction
from epvs_cohort.train.points import Points
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.test_split import ThreeParts
from epvs_cohort.train.validate import PointedVolume, tune_score
from tests.compare.test_trial import bundle
from tests.train.blobs import NATIVE, Blobs, blobs, protocol, save

BUNDLE = load_bundle("gp-unet-sim")


def order(card: dict[str, object], *, own: bool = False) -> ComparisonOrder:
    model = Model("m", replace(BUNDLE, card=BUNDLE.card.model_copy(update=card)), own=own)
    validation = (Sample("s", "s", Path("x"), 3.0, 1),)
    return ComparisonOrder(("f",), {"fcn": model}, ThreeParts((), validation, ()), {}, Protocol())


def test_a_weight_that_no_mark_of_this_comparison_tuned_is_said_to_be_another_s() -> None:
    given = {"name": "m", "score_weight": 0.5, "heat_scale": 2.0, "validation": {"icc": 0.5}}
    inherited = settle_weight(order(given, own=True))
    assert (inherited.score.weight, inherited.score.heat_scale) == (0.5, 2.0)
    assert inherited.words == "that of the model that 'm' started from"
    assert settle_weight(order(given)).words == "that of model 'm'"
    tuned = settle_weight(order({**given, "validation": {"sensitivity_f": 0.5}}, own=True))
    assert tuned.words == "that of model 'm', tuned on marks that are not of this comparison"


def test_no_weight_is_needed_where_no_method_has_one() -> None:
    given = replace(order({"score_weight": None, "heat_scale": None}), methods=("a", "e"))
    assert settle_weight(given).words == ""
    with pytest.raises(ModelError, match="none is marked, and model 'm' has none"):
        settle_weight(
            replace(given, methods=("f",), models=order({"name": "m", "score_weight": None}).models)
        )


def test_scans_counted_0_are_no_marks_to_tune_on() -> None:
    empty = tuple(Sample(f"s{n}", f"s{n}", Path("x"), 0.0, 1) for n in range(50))
    marked = Sample("t", "t", Path("x"), 2.0, 1)
    points: Points = {"t": np.ones((2, 3))}
    with pytest.raises(ModelError, match="none is marked, and the network is to be trained"):
        check_weight(("f",), None, empty, points)
    check_weight(("f",), None, (*empty, marked), points)


def at_once(where: str, drawn: list[Blobs]) -> tuple[float, float]:
    """Weight and scale of heat where all volumes are held in one process."""
    predictions = Predictor(load_bundle(where)).predict([each.volume for each in drawn])
    volumes = [PointedVolume(each.volume, each.centers) for each in drawn]
    found = tune_score(volumes, [each for each in predictions if isinstance(each, Prediction)], protocol())
    return found.weight, found.heat_scale


@pytest.mark.parametrize("n_procs", [1, 2])
def test_it_is_tuned_on_marked_scans_of_which_so_many_are_told(tmp_path: Path, n_procs: int) -> None:
    drawn = [blobs(f"s{n}", 3 + n, n) for n in range(3)]
    samples = save(tmp_path / "store", drawn)
    points = {each.volume.key: apply_affine(NATIVE, each.centers) for each in drawn[:2]}
    where = bundle(tmp_path / "fcn", "nearest")
    given = ComparisonOrder(
        ("f",),
        {"fcn": Model(where, load_bundle(where), own=True)},
        ThreeParts((), samples, ()),
        points,
        protocol(),
        n_procs,
    )
    told: list[tuple[str, int, int]] = []

    def watch(what: str, done: int, of: int) -> None:
        told.append((what, done, of))

    found = settle_weight(given, watch)
    assert found.words == "tuned on 2 marked validation scans"
    assert (found.score.weight, found.score.heat_scale) == pytest.approx(at_once(where, drawn[:2]), rel=1e-3)
    assert told == [(what, done, 2) for what in (COUNTED, WEIGHED) for done in range(3)]
