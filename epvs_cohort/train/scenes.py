"""Scenes and whole volumes from anatomies, drawn by several processes, each from its own seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvs_cohort.errors import ConfigError
from epvs_cohort.protocol import Protocol
from epvs_cohort.simulate.anatomy import anatomy_files, bundled_anatomy, load_anatomy
from epvs_cohort.simulate.prepared import draw_canvas
from epvs_cohort.simulate.windows import LabelledVolume, Scene, draw_volume, scene_of
from epvs_cohort.simulate.workers import in_order
from epvs_cohort.train.recipe import Recipe

_log = logging.getLogger(__name__)

#: First number of each seed, so that no two purposes share a random stream.
TRAINING, CALIBRATION, VALIDATION, WINDOWS = 1, 2, 3, 4


@dataclass(frozen=True)
class AnatomySplit:
    """Label maps by purpose; None stands for the bundled one."""

    training: tuple[Path | None, ...]
    validation: tuple[Path | None, ...]


@dataclass(frozen=True)
class Order:
    """Scenes or volumes to draw from one anatomy.

    Attributes
    ----------
    anatomy : Path or None
        None is the bundled one.
    seeds : tuple of tuple of int
        One random stream each.
    protocol : Protocol
        Grid, mask and trim.
    """

    anatomy: Path | None
    seeds: tuple[tuple[int, ...], ...]
    protocol: Protocol


def split_anatomies(folder: Path | None, recipe: Recipe) -> AnatomySplit:
    """First files of a folder, in order of name, for training, the next for validation; the rest is not read.

    Without a folder both are the one bundled anatomy, which every canvas deforms anew.

    Raises
    ------
    ConfigError
        The folder holds fewer label maps than the recipe asks for.
    """
    if folder is None:
        return AnatomySplit((None,), (None,))
    files = anatomy_files(folder)
    needed = recipe.training_anatomies + recipe.validation_anatomies
    if len(files) < needed:
        raise ConfigError(f"{folder}: {len(files)} label maps found, recipe {recipe.name!r} needs {needed}")
    return AnatomySplit(
        tuple(files[: recipe.training_anatomies]), tuple(files[recipe.training_anatomies : needed])
    )


def check_apart(folder: Path, training: Mapping[str, str], validation: Mapping[str, str]) -> None:
    """Check that nobody who validates trains under another name.

    Parameters
    ----------
    folder : Path
        For the message.
    training, validation : mapping of str to str
        Name of each file to the hash of its bytes.

    Raises
    ------
    ConfigError
        Two files hold the same bytes.
    """
    for name, found in validation.items():
        twin = next((other for other, each in training.items() if each == found), None)
        if twin is not None:
            raise ConfigError(
                f"{folder}: {name} is to validate and holds the same bytes as {twin}, which is to train; "
                "validation needs other people"
            )


def orders(
    anatomies: Sequence[Path | None], n: int, seed: tuple[int, ...], protocol: Protocol
) -> list[Order]:
    """Share ``n`` streams out evenly, first to the first anatomies; stream k has the seed ``(*seed, k)``."""
    shares = [range(first, n, len(anatomies)) for first in range(len(anatomies))]
    return [
        Order(anatomy, tuple((*seed, k) for k in share), protocol)
        for anatomy, share in zip(anatomies, shares, strict=True)
        if len(share)
    ]


def draw_scenes(wanted: Sequence[Order], n_procs: int) -> tuple[Scene, ...]:
    """Draw lesion-free scenes; the result depends on the orders alone, not on ``n_procs``."""
    return tuple(scene for group in in_order(scenes_of, wanted, max(1, n_procs)) for scene in group)


def draw_volumes(wanted: Sequence[Order], n_procs: int) -> list[LabelledVolume]:
    """Draw whole volumes with lesions; see `draw_scenes`."""
    return [volume for group in in_order(volumes_of, wanted, max(1, n_procs)) for volume in group]


def scenes_of(order: Order) -> list[Scene]:
    """Draw the scenes of one order."""
    anatomy = bundled_anatomy() if order.anatomy is None else load_anatomy(order.anatomy)
    scenes = []
    for seed in order.seeds:
        rng = np.random.default_rng(seed)
        scenes.append(scene_of(draw_canvas(anatomy, rng, order.protocol), order.protocol, rng))
    _log.info("%s: %d canvases", anatomy.name, len(scenes))
    return scenes


def volumes_of(order: Order) -> list[LabelledVolume]:
    """Draw the whole volumes of one order."""
    anatomy = bundled_anatomy() if order.anatomy is None else load_anatomy(order.anatomy)
    volumes = []
    for seed in order.seeds:
        rng = np.random.default_rng(seed)
        scene = scene_of(draw_canvas(anatomy, rng, order.protocol), order.protocol, rng)
        key = f"{anatomy.name}-" + "-".join(str(part) for part in seed)
        volumes.append(draw_volume(scene, key, order.protocol, rng))
    return volumes
