"""What the tables and the page of a comparison say, of a comparison that was made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from epvs_cohort.cohort.comparison import ComparisonOrder
from epvs_cohort.cohort.comparison_models import Model
from epvs_cohort.cohort.comparison_weight import Weight
from epvs_cohort.compare.matching import MatchFigures
from epvs_cohort.compare.method_table import PAPER, CurvePoint, method_table
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.compare.trial import Trial, Tried, TriedScan
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.detect.threshold import Settled
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.report.comparison import _within, write_comparison
from epvs_cohort.report.comparison_tables import Comparison, frames, markdown, statements
from epvs_cohort.report.panels import examples
from epvs_cohort.train.test_split import ThreeParts


def scan(key: str, true: int, found: int, matched: int, methods: Sequence[Method] = ("a", "e")) -> TriedScan:
    each = Tried(float(found), Settled(0.5, "exact", found), MatchFigures(true, found, matched), (), 2.0)
    return TriedScan(key, key, true, dict.fromkeys(methods, each))


def comparison(
    scans: list[TriedScan], methods: tuple[Method, ...] = ("a", "e"), *, simulated: bool = True
) -> Comparison:
    bundle = load_bundle("gp-unet-sim")
    order = ComparisonOrder(
        methods, {"fcn": Model("gp-unet-sim", bundle)}, ThreeParts((), (), ()), {}, Protocol()
    )
    trial = Trial(methods, {"fcn": "gp-unet-sim"}, Protocol())
    weight = Weight(ScoreSettings("f", 0.01, 0.5), "")
    table = method_table(scans, trial, seed=1)
    return Comparison(order, weight, trial, tuple(scans), table, simulated=simulated)


def test_what_must_be_said_is_said() -> None:
    broken = TriedScan("sub-9", "sub-9", 2, {}, "sub-9: the mask is empty")
    said = " ".join(statements(comparison([scan("x", 4, 4, 3), scan("y", 0, 1, 0), broken])))
    assert "2 test scans of 2 subjects with 4 lesions in the whole region" in said
    assert "those without lesions (TPR: 1)" in said
    assert "The scans are simulated. No figure here is an accuracy on scans of people" in said
    assert "those of 30 real scans of the Rotterdam Study" in said
    assert "model gp-unet-sim (d325b427b4c65402), trained elsewhere, on simulated scans only" in said
    assert "Left out, 1 test scans that could not be used: sub-9." in said
    assert "simulated" not in " ".join(statements(comparison([scan("x", 4, 4, 3)], simulated=False))[:2])


def test_unknown_is_null_and_a_dash() -> None:
    done = comparison([scan("x", 0, 0, 0)])
    row = frames(done)["table"].iloc[0]
    assert pd.isna(row["tpr"])
    assert pd.isna(row["fdr_mean"])
    assert row["fpav"] == 0.0
    assert pd.isna(row["fpav_low"]), "one subject has no interval"
    line = next(line for line in markdown(done).splitlines() if line.startswith("| (a) Intensities"))
    assert line.split(" | ")[1:6] == ["–", "–", "0.00", "–", "–"]


def test_a_fault_has_a_row_of_its_own() -> None:
    broken = TriedScan("sub-9", "sub-9", 2, {}, "sub-9: the mask is empty")
    rows = frames(comparison([scan("x", 4, 4, 3), broken]))["scans"]
    assert len(rows) == 3
    last = rows.iloc[-1]
    assert (last["scan"], last["fault"]) == ("sub-9", "sub-9: the mask is empty")
    assert pd.isna(last["found"])


@pytest.mark.parametrize(("methods", "reference"), [(("a", "e", "f"), "e"), (("a", "c"), "c")])
def test_others_are_set_against_the_paper_s_own_where_it_is_there(
    methods: tuple[Method, ...], reference: str
) -> None:
    done = comparison([scan("x", 4, 4, 3, methods), scan("y", 3, 2, 2, methods)], methods)
    assert done.reference == reference
    assert f"Paired differences with method ({reference})" in markdown(done)
    pairs = [
        line.split(" | ")[0]
        for line in markdown(done).splitlines()
        if line.startswith("| (") and "−" in line[:12]
    ]
    assert len(pairs) == len(methods) - 1


def test_a_curve_is_the_best_at_up_to_so_many_false_positives() -> None:
    reached = [(0.0, 0.2), (1.0, 0.5), (0.5, 0.6), (3.0, 0.9)]
    curve = [CurvePoint(-float(n), tpr, fpav, 0, 0) for n, (fpav, tpr) in enumerate(reached)]
    corners = _within(curve, 2.0)
    assert corners[0] == (0.0, 0.2)
    assert (0.5, 0.6) in corners
    assert (1.0, 0.5) not in corners
    assert corners[-1] == (2.0, 0.6)
    assert _within(curve[3:], 2.0) == []
    assert _within(curve[:3], 2.0)[-1] == (1.0, 0.6), "nothing was looked at beyond"
    assert _within([CurvePoint(1.0, None, 0.5, 1, 0)], 2.0) == []


def test_a_method_that_the_paper_has_not_has_dashes_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PAPER, "a")
    done = comparison([scan("x", 4, 4, 3), scan("y", 3, 2, 2)])
    line = next(line for line in markdown(done).splitlines() if line.startswith("| (a) Intensities"))
    assert line.endswith("| – | – | – |")
    rows = frames(done)["table"].set_index("method")
    assert rows["paper_tpr"].isna().tolist() == [True, False]
    assert rows.loc["e", "paper_tpr"] == pytest.approx(0.548)


def test_the_page_has_a_colour_for_every_method_and_no_sensitivity_where_there_is_no_lesion(
    tmp_path: Path,
) -> None:
    done = comparison([scan("x", 0, 3, 0), scan("y", 0, 2, 0)])
    page = write_comparison(tmp_path, done).read_text()
    assert "TPR 0.0%" not in page
    assert "there is no sensitivity to show" in page
    for style in range(len(METHODS)):
        assert f".m-{style} {{ --own: var(--m{style}); }}" in page
        assert page.count(f"--m{style}: #") == 2


def test_seconds_are_those_of_the_device() -> None:
    done = comparison([scan("x", 4, 4, 3)])
    assert "Seconds are the median over scans, on one thread of a CPU." in statements(done)[0]
    on_gpu = replace(done, order=replace(done.order, device="cuda"))
    assert "Seconds are the median over scans, on one GPU." in statements(on_gpu)[0]


def test_networks_of_different_training_are_said_to_differ() -> None:
    done = comparison([scan("x", 4, 4, 3)])
    bundle = done.order.models["fcn"].bundle
    card = bundle.card
    coarse = card.architecture.model_copy(update={"upsampling": "none", "widths": (4, 8, 16)})
    trained_on = f"12 scans; starting from the model other (1234), trained on {card.trained_on}"
    other = replace(bundle, card=card.model_copy(update={"architecture": coarse, "trained_on": trained_on}))
    models = {**done.order.models, "regression": Model("other", other, own=True, start="model begun (1234)")}
    said = statements(replace(done, order=replace(done.order, models=models)))
    (words,) = (sentence for sentence in said if sentence.startswith("The two networks differ"))
    for reason in (
        "how one of them was trained is not recorded",
        "their architectures differ in more than that path",
        "one started from another model, the other from random weights",
        "one learned from the training scans of this comparison, the other did not",
    ):
        assert reason in words
    assert any("starting from model begun (1234); whether that one" in sentence for sentence in said)
    assert not any(sentence.startswith("The two networks differ") for sentence in statements(done))


def test_scans_are_shown_by_their_number_of_lesions_alone() -> None:
    scans = [scan(f"s{n:02d}", n, 3, 0) for n in range(12)]
    assert examples(scans) == ["s06", "s09", "s03"]
    assert examples(scans[:1]) == []
    assert examples(scans[1:2]) == ["s01"]
