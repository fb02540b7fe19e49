"""The networks of a comparison: found ready, or trained on its training scans; none may know a test scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epvs_cohort.cohort.model_past import check_people, learned_in, past_of, training_of
from epvs_cohort.compare.methods.method import NETWORK_WORDS, Network, network_of
from epvs_cohort.compare.methods.registry import METHODS
from epvs_cohort.errors import ConfigError, ModelError, UsageError
from epvs_cohort.model.bundle import CARD_FILE, Bundle, check_fits, load_bundle
from epvs_cohort.model.network import Architecture
from epvs_cohort.protocol import Method, Protocol
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE
from epvs_cohort.train.counted_export import STARTED
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.test_split import ThreeParts


@dataclass(frozen=True)
class Model:
    """A network of a comparison.

    Attributes
    ----------
    where : str
        Name of a bundle that ships with the program, or folder.
    own : bool
        Trained on the training scans of this very comparison, and tuned on its validation scans.
    checked : bool
        All people whom it learned from are known, and none is tested on.
    start : str
        What is said of the model that it started from; empty where that is not known, or none.
    """

    where: str
    bundle: Bundle
    own: bool = False
    checked: bool = False
    start: str = ""


def networks_of(methods: Sequence[Method]) -> tuple[Network, ...]:
    """Networks that some methods need."""
    needed = {METHODS[letter].network for letter in methods}
    return tuple(network for network in NETWORK_WORDS if network in needed)


def ready_models(
    folder: Path, names: Sequence[str], needed: Sequence[Network], protocol: Protocol
) -> Mapping[Network, Model]:
    """Bundles that need no training, by network; those of a network that is not needed are passed over.

    Parameters
    ----------
    folder : Path
        Each of its folders with a bundle in it is one.
    names : sequence of str
        Further bundles, by name or folder.
    needed : sequence of str
    protocol : Protocol
        That the test scans are prepared under.

    Raises
    ------
    ModelError
        A bundle is damaged or does not fit the protocol, or there are two of one network.
    UsageError
        The folder is a bundle itself.
    """
    if (folder / CARD_FILE).exists():
        raise UsageError(
            f"--models {folder}: is a model bundle itself; a folder of bundles is legal, and those lacking are trained "
            "into it",
            hint="name it by --model",
        )
    inside = sorted(str(path.parent) for path in folder.glob(f"*/{CARD_FILE}"))
    found: dict[Network, Model] = {}
    for where in (*inside, *names):
        bundle = load_bundle(where)
        network = network_of(bundle.card)
        if network not in needed:
            continue
        check_fits(bundle, protocol)
        if network in found:
            raise ModelError(
                f"models {found[network].where} and {where}: each is {NETWORK_WORDS[network]}; one of each is legal",
                hint="name another --models, or leave one out",
            )
        found[network] = Model(where, bundle)
    return found


def with_past(
    folder: Path, models: Mapping[Network, Model], parts: ThreeParts, *, training: bool
) -> Mapping[Network, Model]:
    """Check whom models learned from against the scans of this comparison.

    Parameters
    ----------
    folder : Path
        Of the models that this comparison trains, or trained before.
    models : mapping of str to Model
    parts : ThreeParts
        Of all counted scans, whether they can be used or not.
    training : bool
        Another network is to be trained beside them.

    Returns
    -------
    mapping of str to Model
        Those that were trained and tuned on the same scans are marked as its own, those whose people are all known as
        checked.

    Raises
    ------
    ConfigError
        A test scan, or another one of its subject, was trained or tuned on; or a network is to be trained beside one
        of ``folder`` that learned from other scans.
    """
    found = dict(models)
    for network, model in models.items():
        past = past_of(model.where)
        if past is None:
            continue
        check_people(model.where, past, parts.test)
        same = past.learned == learned_in(parts)
        if training and not same and Path(model.where).absolute().parent == folder.absolute():
            raise ConfigError(
                f"{past.path}: model {model.where} is of another split, and a network is to be trained beside it on "
                "this one; one split for both is legal",
                hint="use the split that it was trained with, or another --models",
            )
        found[network] = replace(model, own=same, checked=past.complete, start=past.start)
    return found


def recipe_for(network: Network, recipe: ScanRecipe, like: Architecture | None) -> ScanRecipe:
    """A recipe for one of the two networks: the same in all but the upsampling path.

    Parameters
    ----------
    network : {"fcn", "regression"}
    recipe : ScanRecipe
    like : Architecture or None
        What the network is like but for that path; None is the recipe's, else the default.
    """
    architecture = like or recipe.architecture or Architecture()
    return recipe.model_copy(update={"architecture": with_way_up(network, architecture)})


def with_way_up(network: Network, architecture: Architecture) -> Architecture:
    """An architecture with the upsampling path, or without."""
    way_up = "none" if network == "regression" else "nearest"
    return architecture.model_copy(update={"upsampling": way_up})


def unlike(models: Mapping[Network, Model]) -> tuple[str, ...]:
    """In what the two networks differ besides the upsampling path, in words; empty where one is lacking."""
    if len(models) < 2:
        return ()
    one, other = models["fcn"], models["regression"]
    found: list[str] = []
    first, second = training_of(one.where), training_of(other.where)
    if first is None or second is None:
        found.append("how one of them was trained is not recorded")
    elif first.settings != second.settings:
        found.append(
            f"the one with that path was trained by {first.words}, the one without by {second.words}"
        )
    cards = (one.bundle.card, other.bundle.card)
    if len({with_way_up("fcn", card.architecture) for card in cards}) > 1:
        found.append("their architectures differ in more than that path")
    if len({STARTED in card.trained_on for card in cards}) > 1:
        found.append("one started from another model, the other from random weights")
    if one.own != other.own:
        found.append("one learned from the training scans of this comparison, the other did not")
    return tuple(found)


def run_in(folder: Path, network: Network, run: RunSettings) -> RunSettings:
    """Where and how a network is trained; one that was begun goes on."""
    out = folder / network
    return replace(run, out=out, resume=(out / CHECKPOINT_FILE).is_file())
