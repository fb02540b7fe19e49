"""A bundle that the training of a segmenting network starts from, in place of random weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from epvs_cohort.errors import ModelError
from epvs_cohort.model.bundle_files import bundle_folder
from epvs_cohort.model.roi_bundle import load_roi_bundle, roi_bundles_dir
from epvs_cohort.model.roi_network import RoiUnet
from epvs_cohort.train.checkpoint import RECIPE_FILE
from epvs_cohort.train.roi_recipe import RoiRecipe


def roi_start(
    name_or_dir: str, recipe: RoiRecipe, validation: Mapping[str, str]
) -> tuple[RoiUnet, dict[str, object]]:
    """Network to go on from, and what the record of the new training says of it.

    Its batch norm is folded into its convolutions, and it goes on without.

    Parameters
    ----------
    name_or_dir : str
        Bundle of a network that segments heads.
    recipe : RoiRecipe
        What it is to be trained by.
    validation : mapping of str to str
        Names and hashes of the label maps of people who are to validate.

    Raises
    ------
    ModelError
        The bundle cannot be loaded, has another architecture or lies around another place than the recipe's, or was
        trained on somebody who is to validate.
    """
    bundle = load_roi_bundle(name_or_dir)
    for what, found, legal in (
        ("architecture", bundle.card.architecture, recipe.architecture),
        ("centered_on", bundle.card.centered_on, recipe.draw.centered_on),
    ):
        if found != legal:
            raise ModelError(
                f"{name_or_dir}: its {what} is {found}; recipe {recipe.name!r} can only start from {legal}",
                hint="choose the recipe that this bundle was trained by, or leave out --init",
            )
    folder = bundle_folder(name_or_dir, roi_bundles_dir())
    known = people_trained_on(folder)
    if both := sorted(name for name, own in validation.items() if own in known):
        raise ModelError(
            f"{name_or_dir}: was trained on {', '.join(both)}, who is to validate; validation needs other people"
        )
    record: dict[str, object] = {
        "name": bundle.card.name,
        "model_id": bundle.model_id,
        "training": sorted(known),
        "validation": sorted(people_known_to(folder) - known),
    }
    return bundle.network.requires_grad_(True), record


def people_trained_on(folder: Path) -> set[str]:
    """Hashes of the label maps that a bundle, and what it began from, was trained on, as far as is recorded."""
    inputs = _inputs(folder)
    init = inputs.get("init")
    return _hashes(inputs, "training") | (_hashes(init, "training") if isinstance(init, Mapping) else set())


def people_known_to(folder: Path) -> set[str]:
    """The same with those whom it, or what it began from, was tuned on."""
    inputs = _inputs(folder)
    init = inputs.get("init")
    tuned = _hashes(inputs, "validation") | (
        _hashes(init, "validation") if isinstance(init, Mapping) else set()
    )
    return people_trained_on(folder) | tuned


def _inputs(folder: Path) -> Mapping[str, object]:
    record = folder / RECIPE_FILE
    if not record.is_file():
        return {}
    inputs = json.loads(record.read_text(encoding="utf-8")).get("inputs", {})
    return inputs if isinstance(inputs, Mapping) else {}


def _hashes(inputs: Mapping[str, object], part: str) -> set[str]:
    """Hashes of one part of a record: a table of names and hashes, or a list of hashes."""
    held = inputs.get(part)
    if isinstance(held, Mapping):
        return {str(own) for own in held.values()}
    return {str(own) for own in held} if isinstance(held, Collection) and not isinstance(held, str) else set()
