"""A comparison of methods as tables: Parquet and CSV for programs, Markdown in the form of the paper's Table 1."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import epvs_cohort
from epvs_cohort.cohort.comparison import ComparisonOrder
from epvs_cohort.cohort.comparison_models import Model, unlike
from epvs_cohort.cohort.comparison_weight import Weight
from epvs_cohort.cohort.model_past import training_of
from epvs_cohort.compare.bootstrap import Estimate
from epvs_cohort.compare.matching import MATCH_VOXELS
from epvs_cohort.compare.method_table import MEASURES, PAPER, PAPER_WORDS, Measure, MethodTable
from epvs_cohort.compare.methods.method import network_of
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.compare.trial import Trial, TriedScan
from epvs_cohort.data.files import whole_file, write_whole
from epvs_cohort.data.tables import METADATA_KEY
from epvs_cohort.protocol import Method
from epvs_cohort.train.samples import named

#: Tables that a comparison writes, each as Parquet and as CSV.
TABLES: Final = ("table", "differences", "curves", "scans")

SIMULATED_WORDS: Final = (
    "The scans are simulated. No figure here is an accuracy on scans of people; what can be compared is the methods "
    "with one another."
)

#: Before the reasons why networks do not compare by their upsampling path alone.
UNLIKE_WORDS: Final = "The two networks differ in more than the upsampling path"

#: Measures that are parts of a whole and told in per cent.
_PERCENT: Final[frozenset[Measure]] = frozenset({"tpr", "tpr_mean", "fdr", "fdr_mean"})


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes
    ----------
    order : ComparisonOrder
    weight : Weight
        Of method (f).
    trial : Trial
    scans : tuple of TriedScan
    table : MethodTable
    simulated : bool
        The test scans say so.
    notes : tuple of str
        Sentences about the scans and their split.
    """

    order: ComparisonOrder
    weight: Weight
    trial: Trial
    scans: tuple[TriedScan, ...]
    table: MethodTable
    simulated: bool
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> Method:
        """The method that the others are set against: (e), the paper's own, where it is there."""
        methods = self.trial.methods
        return "e" if "e" in methods else methods[-1]


def write_tables(folder: Path, comparison: Comparison) -> None:
    """Write every table, each file whole; the Markdown table comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    about = json.dumps(_about(comparison)).encode()
    for name, frame in frames(comparison).items():
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.replace_schema_metadata({METADATA_KEY: about})
        with whole_file(folder / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        write_whole(folder / f"{name}.csv", frame.to_csv(index=False).encode())
    write_whole(folder / "table.md", markdown(comparison).encode())


def frames(comparison: Comparison) -> Mapping[str, pd.DataFrame]:
    """The tables by name; rates are parts of 1, and what is unknown is null."""
    table = comparison.table
    return {
        "table": pd.DataFrame(list(_method_rows(comparison))),
        "differences": pd.DataFrame(
            [
                {
                    "method": each.method, "minus": each.minus, "measure": each.measure,
                    **_columns("difference", each.estimate),
                }
                for each in table.differences
            ],
            columns=["method", "minus", "measure", "difference", "difference_low", "difference_high"],
        ),
        "curves": pd.DataFrame(
            [
                {
                    "method": method, "threshold": point.threshold, "tpr": point.tpr, "fpav": point.fpav,
                    "found": point.found, "matched": point.matched,
                }
                for method, points in table.curves.items()
                for point in points
            ],
            columns=["method", "threshold", "tpr", "fpav", "found", "matched"],
        ),
        "scans": pd.DataFrame(list(_scan_rows(comparison.scans))),
    }  # fmt: skip


def _method_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    table = comparison.table
    for row in table.rows:
        method = METHODS[row.method]
        bundle = comparison.order.models[method.network].bundle
        tpr, fpav, fdr = PAPER.get(row.method, (math.nan,) * 3)
        rates: dict[str, Any] = {}
        for measure in MEASURES:
            rates |= _columns(measure, row.estimates[measure])
        yield {
            "method": row.method, "name": method.name, "scans": table.scans, "subjects": table.subjects,
            "lesions": table.lesions, "found": row.found, "matched": row.matched, **rates,
            "scans_without_lesions": table.without_lesions, "scans_without_marks": row.without_marks,
            "seconds": row.seconds, "model": bundle.card.name, "model_id": bundle.model_id,
            "paper_tpr": tpr / 100.0, "paper_fpav": fpav, "paper_fdr": fdr / 100.0,
        }  # fmt: skip


def _columns(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _scan_rows(scans: Sequence[TriedScan]) -> Iterator[dict[str, Any]]:
    for scan in scans:
        same = {"scan": scan.key, "subject": scan.subject}
        if scan.fault:
            yield {**same, "true": scan.n_true, "fault": scan.fault}
        for method, each in scan.tried.items():
            yield {
                **same, "method": method, "count": each.count, "true": scan.n_true, "found": each.figures.found,
                "matched": each.figures.matched, "threshold": each.settled.threshold,
                "threshold_how": each.settled.how, "seconds": each.seconds, "fault": None,
            }  # fmt: skip


def _about(comparison: Comparison) -> dict[str, Any]:
    order = comparison.order
    return {
        "tool": "epvs-cohort",
        "version": epvs_cohort.__version__,
        "table": "comparison",
        "protocol": order.protocol.model_dump(mode="json"),
        "count_target": order.protocol.count_target,
        "device": order.device,
        "models": {
            network: {"model_id": model.bundle.model_id, "card": model.bundle.card.model_dump(mode="json")}
            for network, model in order.models.items()
        },
        "heat_scale": comparison.weight.score.heat_scale,
        "score_weight": comparison.weight.score.weight,
        "simulated": comparison.simulated,
        "match_voxels": MATCH_VOXELS,
        "notes": list(comparison.notes),
    }


def markdown(comparison: Comparison) -> str:
    """The comparison as a page of Markdown: the paper's table, differences, and what they are of."""
    return "\n".join([*_head(comparison), "", *_table(comparison), "", *_differences(comparison)]) + "\n"


def statements(comparison: Comparison) -> list[str]:
    """What must be said beside any figure of the comparison, a sentence or two each."""
    table, order = comparison.table, comparison.order
    place = (
        "the whole region" if order.protocol.count_target == "roi" else "the slice of the anterior commissure"
    )
    said = [
        f"{table.scans} test scans of {table.subjects} subjects with {table.lesions} lesions in {place}; found is one "
        f"to one within {MATCH_VOXELS:g} voxels of the prepared grid. Brackets: 95 % bootstrap intervals over "
        "subjects. "
        f"Means over scans leave out those without lesions (TPR: {table.without_lesions}) or without marks (FDR). "
        f"Seconds are the median over scans, on {_device_words(order)}.",
    ]
    if comparison.simulated:
        said.append(SIMULATED_WORDS)
    said += [PAPER_WORDS, *(_model_words(comparison))]
    if comparison.weight.words:
        score = comparison.weight.score
        said.append(
            f"Weight of method (f): {score.weight:g} at heat scale {score.heat_scale:.3g}, {comparison.weight.words}."
        )
    faults = [scan for scan in comparison.scans if scan.fault]
    if faults:
        said.append(
            f"Left out, {len(faults)} test scans that could not be used: {named([s.key for s in faults])}."
        )
    return [*said, *comparison.notes]


def _model_words(comparison: Comparison) -> Iterator[str]:
    models = comparison.order.models
    for model in models.values():
        card = model.bundle.card
        letters = [name for name in comparison.trial.methods if METHODS[name].network == network_of(card)]
        words = (
            f"Methods {', '.join(letters)}: model {card.name} ({model.bundle.model_id}), {_history(model)}"
        )
        training = training_of(model.where)
        yield f"{words}{'' if training is None else f' Trained by {training.words}.'}"
    if reasons := unlike(models):
        yield (
            f"{UNLIKE_WORDS}: {'; '.join(reasons)}. A difference between methods of the one and of the other may come "
            "of that."
        )


def _device_words(order: ComparisonOrder) -> str:
    return "one GPU" if order.device == "cuda" else "one thread of a CPU"


def paper_words(method: Method) -> list[str]:
    """The paper's TPR, FPav and FDR of a method, a dash each where it has none."""
    return [f"{value:.1f}" for value in PAPER[method]] if method in PAPER else ["–"] * 3


def _history(model: Model) -> str:
    card = model.bundle.card
    if not model.own:
        known = (
            "nobody whom it learned from is tested on"
            if model.checked
            else "whether it knows people of the test scans is not checked"
        )
        return f"trained elsewhere, on {card.trained_on}; {known}."
    if not model.start:
        return "trained on the training scans of this comparison."
    known = (
        "nobody whom that one learned from is tested on"
        if model.checked
        else "whether that one knows people of the test scans is not checked"
    )
    return f"trained on the training scans of this comparison, starting from {model.start}; {known}."


def _head(comparison: Comparison) -> Iterator[str]:
    yield "# The paper's methods on one cohort"
    yield ""
    yield from (f"* {sentence}" for sentence in statements(comparison))


def _table(comparison: Comparison) -> Iterator[str]:
    heads = ("method", *(f"{words} (%)" if name in _PERCENT else words for name, words in MEASURES.items()))
    yield "| " + " | ".join((*heads, "s a scan", "paper: TPR (%)", "paper: FPav", "paper: FDR (%)")) + " |"
    yield "|---" * (len(heads) + 4) + "|"
    for row in comparison.table.rows:
        cells = [estimate_words(measure, row.estimates[measure]) for measure in MEASURES]
        name = f"({row.method}) {METHODS[row.method].name}"
        yield "| " + " | ".join((name, *cells, f"{row.seconds:.1f}", *paper_words(row.method))) + " |"


def _differences(comparison: Comparison) -> Iterator[str]:
    rows = difference_rows(comparison)
    if not rows:
        return
    yield (
        f"Paired differences with method ({comparison.reference}), on the same scans; an interval that holds 0 shows "
        "none."
    )
    yield ""
    heads = (
        "difference",
        *(f"{words} (points)" if name in _PERCENT else words for name, words in MEASURES.items()),
    )
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def difference_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Differences of the other methods with the reference: name, and each measure with its interval."""
    by_pair: dict[tuple[Method, Method], dict[Measure, Estimate | None]] = {}
    for each in comparison.table.differences:
        if comparison.reference in (each.method, each.minus):
            by_pair.setdefault((each.method, each.minus), {})[each.measure] = each.estimate
    return [
        (f"({one}) − ({other})", *(estimate_words(m, found[m], signed=True) for m in MEASURES))
        for (one, other), found in by_pair.items()
    ]


def estimate_words(measure: Measure, estimate: Estimate | None, *, signed: bool = False) -> str:
    """An estimate with its interval; rates in per cent.

    >>> estimate_words("tpr", Estimate(0.548, 0.5, 0.6)), estimate_words("fpav", Estimate(1.92, 1.5, 2.25))
    ('54.8 (50.0 to 60.0)', '1.92 (1.50 to 2.25)')
    >>> estimate_words("fdr", Estimate(-0.1, -0.2, 0.05), signed=True), estimate_words("tpr", None)
    ('−10.0 (−20.0 to +5.0)', '–')
    """
    if estimate is None:
        return "–"
    scale, digits = (100.0, 1) if measure in _PERCENT else (1.0, 2)
    form = f"{'+' if signed else ''}.{digits}f"

    def words(value: float) -> str:
        return format(scale * value, form).replace("-", "−")

    if estimate.low is None or estimate.high is None:
        return words(estimate.value)
    return f"{words(estimate.value)} ({words(estimate.low)} to {words(estimate.high)})"
