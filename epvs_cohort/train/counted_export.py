"""The bundle of a network that was trained on counted scans, and what its card says."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.model.bundle import Bundle, ModelCard, Requirements
from epvs_cohort.model.bundle_files import NO_HASH
from epvs_cohort.model.network import GpUnet, fold_batch_norm
from epvs_cohort.model.predict import Predictor
from epvs_cohort.records import Prediction
from epvs_cohort.train.export import LIMITS, Provenance, readme
from epvs_cohort.train.figures import CountFigures, count_figures
from epvs_cohort.train.loop import RunSettings, with_unit
from epvs_cohort.train.material import Material, stored_volume
from epvs_cohort.train.points import lesions_of, tuning_scans
from epvs_cohort.train.samples import Sample
from epvs_cohort.train.scan_state import TrainedScans
from epvs_cohort.train.validate import PointedVolume, ScoreTuning, tune_score

_log = logging.getLogger(__name__)

#: Validation scans that the weight of method (f) is tuned on at most; they are held in memory.
TUNED_SCANS = 40

#: In ``trained_on`` of a card, before the name of the model that training started from.
STARTED = "; starting from the model "

REAL_LIMITS = (
    "Not for diagnosis or any decision about a person. It counts as the readers of its training scans did, on scans "
    "like theirs: for other scanners, sequences or age groups its figures do not hold. Check counts against readers on "
    "your own scans before using them in a study."
)


@dataclass(frozen=True)
class _Found:
    figures: CountFigures
    tuning: ScoreTuning | None
    tuned_on: int


def export_counted(
    trained: TrainedScans, material: Material, run: RunSettings, points: Mapping[str, FloatArray] | None
) -> tuple[ModelCard, GpUnet, str]:
    """Make card, network and words of a bundle.

    Parameters
    ----------
    trained : TrainedScans
    material : Material
    run : RunSettings
    points : mapping of str to ndarray, shape (N, 3), or None
        Native RAS mm of lesions by scan.

    Returns
    -------
    tuple
        What `write_bundle` takes after the folder.

    Raises
    ------
    ModelError
        A validation scan cannot be counted: the network is broken.
    """
    network = with_unit(fold_batch_norm(trained.network), trained.unit).requires_grad_(False)
    card = ModelCard(
        name=run.out.resolve().name[:100] or material.recipe.name,
        architecture=network.architecture,
        count_target=material.protocol.count_target,
        requires=Requirements.of(material.protocol),
        trained_on=_trained_on(material),
        supervision=_supervision(material),
        limits=_limits(material),
        validated_on=_validated_on(material),
        weights_sha256=NO_HASH,
    )
    found = _judged(Bundle(card, network), material, points)
    changes: dict[str, Any] = {"validation": _figures(found, material.split.validation)}
    if found.tuning is not None:
        changes |= {"score_weight": found.tuning.weight, "heat_scale": found.tuning.heat_scale}
    elif material.init is not None:
        before = material.init.card
        # Heat was multiplied by the unit, and what it is divided by goes along.
        scale = None if before.heat_scale is None else before.heat_scale * trained.unit
        changes |= {"score_weight": before.score_weight, "heat_scale": scale}
    card = card.model_copy(update=changes)
    return card, network, readme(card, _provenance(card, trained, material, run, found))


def _judged(bundle: Bundle, material: Material, points: Mapping[str, FloatArray] | None) -> _Found:
    predictor = Predictor(bundle, "cpu", precision="float32")
    counts: list[float] = []
    pointed: list[PointedVolume] = []
    predictions: list[Prediction] = []
    chosen = set(tuning_scans(material.split.validation, points or {}, TUNED_SCANS))
    for sample in material.split.validation:
        volume = stored_volume(sample)
        prediction = predictor.predict([volume])[0]
        if isinstance(prediction, PredictionError):
            raise ModelError(f"model {bundle.card.name!r} fails on a validation scan: {prediction.message}")
        counts.append(prediction.count)
        places = lesions_of(sample, points or {})
        if sample in chosen and places is not None:
            pointed.append(PointedVolume(volume, apply_affine(volume.grid_from_native, places)))
            predictions.append(prediction)
    figures = count_figures([sample.count for sample in material.split.validation], counts)
    tuning = None
    if pointed:
        tuning = tune_score(pointed, predictions, material.protocol)
    elif points is not None:
        _log.warning("no lesion of a validation scan is in the table of points; method (f) is not tuned")
    return _Found(figures, tuning, len(pointed))


def _figures(found: _Found, samples: Sequence[Sample]) -> dict[str, float]:
    counts = found.figures
    figures = {
        "volumes": float(len(samples)),
        "mean_count": round(sum(sample.count for sample in samples) / len(samples), 3),
        "icc": round(counts.icc, 4),
        "r": round(counts.r, 4),
        "mse": round(counts.mse, 3),
        "mae": round(counts.mae, 3),
        "bias": round(counts.bias, 3),
        "slope": round(counts.slope, 3),
    }
    if found.tuning is not None:
        figures |= {
            "sensitivity_e": round(found.tuning.heatmap.sensitivity, 4),
            "false_discovery_rate_e": round(found.tuning.heatmap.false_discovery_rate, 4),
            "sensitivity_f": round(found.tuning.combined.sensitivity, 4),
            "false_discovery_rate_f": round(found.tuning.combined.false_discovery_rate, 4),
        }
    return figures


def _limits(material: Material) -> str:
    if material.simulated:
        return LIMITS
    return REAL_LIMITS + (
        " It began from a model that had learned from simulated scans." if material.began_simulated else ""
    )


def _people(material: Material, samples: Sequence[Sample]) -> str:
    words = f"{len(samples)} counted scans of {len({sample.subject for sample in samples})} subjects"
    maps = material.maps(samples)
    if maps is not None:
        words += f", deformed from {maps} {'person' if maps == 1 else 'people'}'s label maps"
    return words


def _trained_on(material: Material) -> str:
    words = ("simulated: " if material.simulated else "") + _people(material, material.split.training)
    if material.init is not None:
        before = material.init.card
        words += f"{STARTED}{before.name} ({material.init.model_id}), trained on {before.trained_on}"
    return "; ".join((words, *material.notes))


def _supervision(material: Material) -> str:
    target = material.protocol.count_target
    what = "the whole region of interest" if target == "roi" else "the slice of the anterior commissure"
    several = sum(sample.readers > 1 for sample in material.split.training)
    words = f"one count for each scan, of {what}"
    if several:
        words += f"; of {several} scans the mean of several readers"
    return f"{words}; no position of any lesion was shown to the network"


def _validated_on(material: Material) -> str:
    kind = "simulated; " if material.simulated else ""
    if material.difficulty:
        kind += f"difficulty {', '.join(material.difficulty)} (hash of the simulator's settings); "
    return (
        f"{_people(material, material.split.validation)}; none is among those it learned from ({kind}their counts "
        "chose the weights that were kept, so the figures are a little too good)"
    )


def _provenance(
    card: ModelCard, trained: TrainedScans, material: Material, run: RunSettings, found: _Found
) -> Provenance:
    recipe, progress = material.recipe, trained.progress
    return Provenance(
        trained_on=card.trained_on,
        supervision=card.supervision,
        validated_on=card.validated_on,
        run_words=(
            f"recipe {recipe.name}: loss {recipe.loss}, {recipe.optimizer}; {progress.seconds / 60.0:.0f} min, "
            f"{progress.step} steps, ended {trained.ended}; the weights are those after step {progress.best_step}; "
            f"seed {run.seed}, {run.device}, threads {run.threads}. Protocol {material.protocol.name}."
        ),
        weighting=_weighting(card, material, found),
        simulated=material.simulated,
    )


def _weighting(card: ModelCard, material: Material, found: _Found) -> str:
    if found.tuning is not None:
        return (
            "Lesions match one to one within 3 voxels of the prepared grid, at the threshold that the network's own "
            f"count sets. The weight of method (f), {card.score_weight}, was chosen on {found.tuned_on} of the "
            "validation scans, the only place where positions of lesions were used, so its figures are a little too "
            "good."
        )
    if card.score_weight is not None and material.init is not None:
        return (
            f"The weight of method (f), {card.score_weight}, is that of {material.init.card.name}: counts alone cannot "
            "tune it."
        )
    return "Method (f) was not tuned, for that needs places of lesions: lesions are found on the heatmap alone, (e)."
