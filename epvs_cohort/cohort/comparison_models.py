"""The networks of a comparison: found ready, or trained on its training scans; none may know a test scan."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from epvs_cohort.compare.methods.method import NETWORK_WORDS, Network, network_of
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.data.files import write_whole
from epvs_cohort.data.manifest import read_table
from epvs_cohort.errors import ConfigError, ManifestError, ModelError
from epvs_cohort.model.bundle import CARD_FILE, Bundle, check_fits, load_bundle
from epvs_cohort.model.network import Architecture
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import named
from epvs_cohort.train.test_split import ThreeParts

#: Beside the folder of a bundle that was trained here: which scans it was trained and tuned on.
SPLIT_ENDING: Final = ".split.csv"


@dataclass(frozen=True)
class Model:
    """A network of a comparison.

    Attributes
    ----------
    where : str
        Name of a bundle that ships with the program, or folder.
    own : bool
        Trained on the training scans of this very comparison, and tuned on its validation scans.
    """

    where: str
    bundle: Bundle
    own: bool = False


def networks_of(methods: Sequence[Method]) -> tuple[Network, ...]:
    """Networks that some methods need."""
    needed = {METHODS[letter].network for letter in methods}
    return tuple(network for network in NETWORK_WORDS if network in needed)


def ready_models(folder: Path, names: Sequence[str], protocol: Protocol) -> Mapping[Network, Model]:
    """Bundles that need no training, by network.

    Parameters
    ----------
    folder : Path
        Each of its folders with a bundle in it is one.
    names : sequence of str
        Further bundles, by name or folder.
    protocol : Protocol
        That the test scans are prepared under.

    Raises
    ------
    ModelError
        A bundle is damaged or does not fit the protocol, or there are two of one network.
    """
    inside = sorted(str(path.parent) for path in folder.glob(f"*/{CARD_FILE}"))
    found: dict[Network, Model] = {}
    for where in (*inside, *names):
        bundle = load_bundle(where)
        check_fits(bundle, protocol)
        network = network_of(bundle.card)
        if network in found:
            raise ModelError(
                f"models {found[network].where} and {where}: each is {NETWORK_WORDS[network]}; one of each is legal",
                hint="name another --models, or leave one out",
            )
        found[network] = Model(where, bundle)
    return found


def with_history(
    folder: Path, models: Mapping[Network, Model], parts: ThreeParts, *, training: bool
) -> Mapping[Network, Model]:
    """Check what the models that were trained in a folder know against the scans of this comparison.

    Parameters
    ----------
    folder : Path
    models : mapping of str to Model
    parts : ThreeParts
    training : bool
        Another network is to be trained beside them.

    Returns
    -------
    mapping of str to Model
        Those that were trained on the same split are marked as its own.

    Raises
    ------
    ConfigError
        A test scan, or another one of its subject, was trained or tuned on; or a network is to be trained beside one
        of another split.
    """
    found = dict(models)
    for network, model in models.items():
        path = _split_file(folder, network)
        if model.where != str(folder / network) or not path.is_file():
            continue
        known = _read_split(path)
        people = {subject for _, split, subject in known if split != "test"}
        seen = [sample.key for sample in parts.test if sample.subject in people]
        hint = "use the split that it was trained with, or another --models"
        if seen:
            raise ConfigError(
                f"{path}: model {model.where} was trained or tuned on subjects of {len(seen)} test scans: "
                f"{named(seen, 3)}; none is legal",
                hint=hint,
            )
        same = sorted(known) == sorted(_rows(parts))
        if training and not same:
            raise ConfigError(
                f"{path}: model {model.where} is of another split, and a network is to be trained beside it on this "
                "one; one split for both is legal",
                hint=hint,
            )
        found[network] = replace(model, own=same)
    return found


def write_split(folder: Path, network: Network, parts: ThreeParts) -> None:
    """Write which scans a network of a folder is trained and tuned on, before it is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scan", "split", "subject"))
    writer.writerows(_rows(parts))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(_split_file(folder, network), text.getvalue().encode())


def _split_file(folder: Path, network: Network) -> Path:
    return folder / f"{network}{SPLIT_ENDING}"


def _rows(parts: ThreeParts) -> list[tuple[str, str, str]]:
    samples = (*parts.training, *parts.validation, *parts.test)
    return [(sample.key, parts.by_key[sample.key], sample.subject) for sample in samples]


def _read_split(path: Path) -> list[tuple[str, str, str]]:
    try:
        table = read_table(path)
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    missing = [name for name in ("scan", "split", "subject") if name not in table.columns]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}; it must be as this program wrote it",
            hint="name another --models",
        )
    return list(zip(table.column("scan"), table.column("split"), table.column("subject"), strict=True))


def recipe_for(network: Network, recipe: ScanRecipe, init: Bundle | None) -> ScanRecipe:
    """A recipe for one of the two networks: the same in all but the upsampling path.

    Where a recipe names no architecture, it is that of the bundle to start from, else the default.
    """
    architecture = recipe.architecture
    if architecture is None:
        architecture = Architecture() if init is None else init.card.architecture
    way_up = "none" if network == "regression" else "nearest"
    return recipe.model_copy(update={"architecture": architecture.model_copy(update={"upsampling": way_up})})


def run_in(folder: Path, network: Network, run: RunSettings) -> RunSettings:
    """Where and how a network is trained; one that was begun goes on."""
    out = folder / network
    return replace(run, out=out, resume=(out / CHECKPOINT_FILE).is_file())
