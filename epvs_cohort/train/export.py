"""From a trained network to a bundle: fold, scale, validate, tune, describe."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epvs_cohort.model.bundle import CARD_FILE, Bundle, ModelCard, Requirements, save_bundle
from epvs_cohort.model.bundle_files import NO_HASH
from epvs_cohort.model.network import GpUnet, fold_batch_norm
from epvs_cohort.protocol import Protocol
from epvs_cohort.simulate.windows import LabelledVolume
from epvs_cohort.train.figures import CountFigures
from epvs_cohort.train.loop import Trained, with_unit
from epvs_cohort.train.recipe import Recipe
from epvs_cohort.train.validate import ScoreTuning, compare_counts, count_scale, predict_volumes, tune_score

_log = logging.getLogger(__name__)

LIMITS = (
    "Not for diagnosis or any decision about a person. Trained on simulated scans only; no figure here is an "
    "accuracy on real scans. Check counts against readers on your own scans before using them in a study."
)

_SCALING = (
    "Lesions match one to one within 3 voxels of the prepared grid, at the threshold that the network's own count "
    "sets. The last layer was scaled by {:.3f}, one factor, fitted on counts of whole simulated volumes of the "
    "training anatomies."
)

_WEIGHTING = (
    "The weight of method (f), {}, was chosen on the validation volumes above, the only place where positions of "
    "lesions were used, so its figures are a little too good."
)


@dataclass(frozen=True)
class Provenance:
    """What a bundle was made of.

    Attributes
    ----------
    trained_on, supervision, validated_on : str
        In words, for the card.
    run_words : str
        Time, steps and machine of the run, for the words beside the card.
    scaling, weighting : str
        How the last layer was scaled, and where the weight of method (f) is from; for the words beside the card.
    simulated : bool
        The scans of training and validation are.
    """

    trained_on: str
    supervision: str
    validated_on: str
    run_words: str
    scaling: str = ""
    weighting: str = ""
    simulated: bool = True


@dataclass(frozen=True)
class HeldOut:
    """Whole volumes that no window was cut from: to scale the last layer, and to report figures on."""

    calibration: Sequence[LabelledVolume]
    validation: Sequence[LabelledVolume]


def draft_bundle(network: GpUnet, unit: float, recipe: Recipe, protocol: Protocol) -> Bundle:
    """Fold a network in training into a bundle in memory, without figures."""
    folded = with_unit(fold_batch_norm(network), unit).requires_grad_(False)
    card = ModelCard(
        name=recipe.name,
        architecture=recipe.architecture,
        count_target=protocol.count_target,
        requires=Requirements.of(protocol),
        trained_on="simulated scans; still in training",
        supervision="counts of windows",
        weights_sha256=NO_HASH,
    )
    return Bundle(card, folded)


def export_bundle(
    trained: Trained, recipe: Recipe, protocol: Protocol, held_out: HeldOut, provenance: Provenance
) -> tuple[ModelCard, GpUnet, str]:
    """Make card, network and words of a bundle from a trained network.

    Returns
    -------
    tuple
        What `save_bundle` takes after the folder.
    """
    draft = draft_bundle(trained.network, trained.unit, recipe, protocol)
    scale = 1.0
    if held_out.calibration:
        scale = count_scale(held_out.calibration, predict_volumes(draft, held_out.calibration))
        with_unit(draft.network, scale)
    predictions = predict_volumes(draft, held_out.validation)
    counts = compare_counts(held_out.validation, predictions)
    tuning = tune_score(held_out.validation, predictions, protocol)
    _log.info("last layer scaled by %.4f; %s; %s", scale, counts, tuning)
    card = draft.card.model_copy(
        update={
            "trained_on": provenance.trained_on,
            "supervision": provenance.supervision,
            "limits": LIMITS,
            "validated_on": provenance.validated_on,
            "validation": _figures(counts, tuning, scale, held_out.validation),
            "score_weight": tuning.weight,
            "heat_scale": tuning.heat_scale,
        }
    )
    words = replace(provenance, scaling=_SCALING.format(scale), weighting=_WEIGHTING.format(tuning.weight))
    return card, draft.network, readme(card, words)


def write_bundle(folder: Path, exported: tuple[ModelCard, GpUnet, str]) -> Bundle:
    """Write what `export_bundle` made; the card of an earlier export goes first, so that it names no other weights."""
    card, network, words = exported
    (folder / CARD_FILE).unlink(missing_ok=True)
    return save_bundle(folder, card, network, words)


def _figures(
    counts: CountFigures, tuning: ScoreTuning, scale: float, volumes: Sequence[LabelledVolume]
) -> dict[str, float]:
    return {
        "volumes": float(len(volumes)),
        "mean_count": sum(each.count for each in volumes) / len(volumes),
        "icc": round(counts.icc, 4),
        "r": round(counts.r, 4),
        "mae": round(counts.mae, 3),
        "bias": round(counts.bias, 3),
        "slope": round(counts.slope, 3),
        "last_layer_scale": round(scale, 4),
        "sensitivity_e": round(tuning.heatmap.sensitivity, 4),
        "false_discovery_rate_e": round(tuning.heatmap.false_discovery_rate, 4),
        "sensitivity_f": round(tuning.combined.sensitivity, 4),
        "false_discovery_rate_f": round(tuning.combined.false_discovery_rate, 4),
    }


#: Rows of the table of figures: what they are called, and how their values are written.
_ROWS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("volumes, mean count", (("volumes", ".0f"), ("mean_count", ".1f"))),
    ("ICC(A,1) of counts", (("icc", ".3f"),)),
    ("Pearson's r", (("r", ".3f"),)),
    ("mean squared error", (("mse", ".2f"),)),
    ("mean absolute error, bias", (("mae", ".2f"), ("bias", "+.2f"))),
    ("slope of estimate over truth", (("slope", ".2f"),)),
    (
        "(e) heatmap: sensitivity, false discovery rate",
        (("sensitivity_e", ".1%"), ("false_discovery_rate_e", ".1%")),
    ),
    (
        "(f) with intensities: sensitivity, false discovery rate",
        (("sensitivity_f", ".1%"), ("false_discovery_rate_f", ".1%")),
    ),
)


def readme(card: ModelCard, provenance: Provenance) -> str:
    """Model card in words, Markdown."""
    count_words = (
        "the whole region of interest" if card.count_target == "roi" else "the slice of the commissure"
    )
    widths = "/".join(str(width) for width in card.architecture.widths)
    network = "GP-UNet" + ("" if card.architecture.cell == 1 else " without its upsampling path")
    warning = (
        "**Trained on simulated scans; no figure below is an accuracy on real scans.**"
        if provenance.simulated
        else "**Not a medical device.**"
    )
    remarks = "\n\n".join(words for words in (provenance.scaling, provenance.weighting) if words)
    return f"""# {card.name}

Counts enlarged perivascular spaces of the basal ganglia in {count_words}, and gives the heatmap they are
located on. {warning}

* **Network:** {network}, feature maps {widths}, global {card.architecture.pooling} pooling within the
  {card.architecture.pool_within}, {card.architecture.last_layer} last layer; batch norm folded into the convolutions.
* **Trained on:** {card.trained_on}
* **Supervision:** {card.supervision}
* **Run:** {provenance.run_words}
* **Needs:** prepared volumes of {" × ".join(str(n) for n in card.requires.grid.shape)} voxels at
  {" × ".join(str(s) for s in card.requires.grid.spacing_mm)} mm; mask dilated by {card.requires.dilate_mm} mm and
  smoothed by {card.requires.smooth_sigma_voxels} voxels; highest {100 * card.requires.trim.fraction:g} % of the
  {card.requires.trim.over} trimmed with headroom {card.requires.trim.headroom}; cubic B-spline interpolation.

## Figures on {"simulated " if provenance.simulated else ""}validation data

{card.validated_on}

| | |
|---|---|
{_figure_rows(card.validation)}

{remarks}

## What it must not be used for

{card.limits}
"""


def _figure_rows(figures: Mapping[str, float]) -> str:
    return "\n".join(
        f"| {name} | {', '.join(format(figures[key], how) for key, how in cells)} |"
        for name, cells in _ROWS
        if all(key in figures for key, _ in cells)
    )
