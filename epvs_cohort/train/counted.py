"""From counted scans to a bundle: check, train on whole volumes, judge, tune where lesions were marked, export."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from epvs_cohort import __version__
from epvs_cohort.data.lock import exclusive
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import ConfigError, CountsError, ModelError
from epvs_cohort.geometry import FloatArray
from epvs_cohort.model.bundle import Bundle, Requirements, check_fits, load_bundle
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import Protocol, digest
from epvs_cohort.train.allocator import keep_freed_memory
from epvs_cohort.train.checkpoint import (
    check_folder,
    read_checkpoint,
    require_none,
    write_record,
)
from epvs_cohort.train.counted_export import export_counted
from epvs_cohort.train.distributed import Group, process_group
from epvs_cohort.train.export import write_bundle
from epvs_cohort.train.loop import RunSettings, new_network
from epvs_cohort.train.material import Material
from epvs_cohort.train.points import read_points
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import Sample, Split, check_sides, named
from epvs_cohort.train.scan_loop import train_scans
from epvs_cohort.train.scan_state import ScanTask, TrainedScans, TrainState, Watch
from epvs_cohort.train.volumes import StoredVolumes

__all__ = ["CountedOrder", "TrainState", "check_order", "train_counted"]

_log = logging.getLogger(__name__)


def _unwatched(_state: TrainState) -> None:
    """Nobody looks."""


@dataclass(frozen=True)
class CountedOrder:
    """What is to be trained.

    Attributes
    ----------
    split : Split
        Prepared and counted scans.
    recipe : ScanRecipe
    protocol : Protocol
        That the scans were prepared under; its ``count_target`` is what their counts are of.
    run : RunSettings
    init : Bundle or None
        To start from; None is random weights.
    points : Path or None
        Table of lesions, which the weight of method (f) is tuned on; only validation scans are looked up in it.
    notes : tuple of str
        Sentences about the scans for the card.
    """

    split: Split
    recipe: ScanRecipe
    protocol: Protocol
    run: RunSettings
    init: Bundle | None = None
    points: Path | None = None
    notes: tuple[str, ...] = ()


def train_counted(order: CountedOrder, watch: Watch = _unwatched) -> Bundle:
    """Train a network on counted scans and write its bundle to ``order.run.out``.

    Parameters
    ----------
    order : CountedOrder
    watch : callable
        Called with a `TrainState` at each step, by the first process where several train together.

    Returns
    -------
    Bundle
        As loaded from what was written.

    Raises
    ------
    ConfigError
        Too few scans, a bundle to start from that does not fit, a grid that the network cannot halve, an unreadable
        table of points or one that names no validation scan, nothing to resume from, or a loss that is not finite.
    UsageError
        The folder holds something, and it is not a run to resume.
    StoppedError
        Another run is writing to the folder.
    StoreError
        A prepared volume cannot be read.
    """
    torch.set_num_threads(order.run.threads)
    keep_freed_memory()
    architecture = check_order(order)
    check_sides(order.split)
    points = None if order.points is None else _points_of(order, order.points)
    with process_group(order.run.device) as group:
        task = _task(order, architecture, group)
        check_folder(order.run.out)
        if order.run.resume:
            read_checkpoint(order.run.out, task.identity, torch.device("cpu"))
        else:
            require_none(order.run.out)
        # Nobody writes before all have looked.
        group.wait()
        with _alone(order.run, group):
            trained = _train(order, task, _network(order, architecture), watch)
            if group.is_first:
                material = Material(order.split, order.recipe, order.protocol, order.init, order.notes)
                write_bundle(order.run.out, export_counted(trained, material, order.run, points))
        group.wait()
    return load_bundle(str(order.run.out))


def _points_of(order: CountedOrder, path: Path) -> Mapping[str, FloatArray]:
    """Places of lesions; a table that tells of no validation scan would be noticed after hours of training."""
    points = read_points(path, order.protocol.count_target)
    keys = [sample.key for sample in order.split.validation]
    if not any(key in points for key in keys):
        raise CountsError(
            f"{path}: names none of the {len(keys)} validation scans; they are {named(keys, 3)}, the table's are "
            f"{named(sorted(points), 3)}",
            hint="the column scan holds the key, as in the table of counts",
        )
    return points


def _alone(run: RunSettings, group: Group) -> AbstractContextManager[None]:
    return exclusive(run.out) if group.is_first else nullcontext()


def _train(order: CountedOrder, task: ScanTask, network: GpUnet, watch: Watch) -> TrainedScans:
    record, out = _record(order, task), order.run.out
    if task.group.is_first:
        write_record(out, record)
    fresh = order.init is None or order.init.card.count_target != order.protocol.count_target
    trained = train_scans(task, network, watch, fresh=fresh)
    if task.group.is_first:
        done = {"steps": trained.progress.step, "minutes": round(trained.progress.seconds / 60.0, 2)}
        write_record(out, {**record, "done": {**done, "ended": trained.ended}})
    return trained


def check_order(order: CountedOrder) -> Architecture:
    """Check all of an order that needs none of its scans, so that it may be refused before they are prepared.

    Returns
    -------
    Architecture
        That of the network, see `settled_architecture`.

    Raises
    ------
    ConfigError
        Recipe, protocol, bundle and table of points cannot be used, or do not go together.
    """
    architecture = settled_architecture(order)
    _check(order, architecture)
    if order.points is not None:
        read_points(order.points, order.protocol.count_target)
    return architecture


def settled_architecture(order: CountedOrder) -> Architecture:
    """The network that an order asks for: the recipe's, else that of the bundle to start from, else the default.

    Raises
    ------
    ConfigError
        The recipe's differs from that of the bundle to start from.
    """
    recipe, init = order.recipe, order.init
    wanted = recipe.architecture
    if wanted is None:
        wanted = Architecture() if init is None else init.card.architecture
    if recipe.pool_in_slice and order.protocol.count_target == "ac_slice" and wanted.pool_within == "mask":
        wanted = wanted.model_copy(update={"pool_within": "ac_slice"})
    if init is not None:
        # Where features are pooled changes no weight.
        found = init.card.architecture.model_copy(update={"pool_within": wanted.pool_within})
        if found != wanted:
            raise ModelError(
                f"model {init.card.name!r} has the architecture {init.card.architecture!r}, recipe {recipe.name!r} "
                f"asks for {wanted!r}",
                hint="leave architecture out of the recipe, which then takes the model's",
            )
    return wanted


def _check(order: CountedOrder, architecture: Architecture) -> None:
    if order.recipe.loss != "mse" and architecture.last_layer == "free":
        raise ConfigError(
            f"recipe {order.recipe.name!r}: loss {order.recipe.loss!r}, and the network's last_layer is 'free'; counts "
            "must never be negative, so only 'density' is legal with it"
        )
    # Refuses to pool within a slice where the region was counted.
    StoredVolumes((), order.protocol, architecture)
    if any(size % architecture.stride for size in order.protocol.grid.shape):
        raise ConfigError(
            f"protocol {order.protocol.name!r}: grid.shape {order.protocol.grid.shape}; the network of recipe "
            f"{order.recipe.name!r} needs multiples of {architecture.stride}"
        )
    if order.init is None:
        return
    # Counts of the whole region teach what a lesion is for those of one slice too.
    check_fits(order.init, order.protocol.model_copy(update={"count_target": order.init.card.count_target}))
    if order.recipe.batch_norm:
        raise ConfigError(
            f"recipe {order.recipe.name!r}: batch_norm is true, and the batch norm of model "
            f"{order.init.card.name!r} is folded into its convolutions; only false is legal with a model to start from",
            hint="use the recipe fine-tune",
        )


def _task(order: CountedOrder, architecture: Architecture, group: Group) -> ScanTask:
    spacing = order.protocol.grid.spacing_mm
    augment = order.recipe.augment.model_copy(update={"voxel_mm": spacing})
    return ScanTask(
        recipe=order.recipe.model_copy(update={"augment": augment}),
        training=StoredVolumes(order.split.training, order.protocol, architecture),
        validation=StoredVolumes(order.split.validation, order.protocol, architecture),
        run=replace(order.run, inputs_id=digest(_inputs(order, architecture))),
        group=group,
    )


def _network(order: CountedOrder, architecture: Architecture) -> GpUnet:
    if order.init is None:
        return new_network(architecture, order.run.seed, batch_norm=order.recipe.batch_norm)
    network = GpUnet(architecture)
    network.load_state_dict(order.init.network.state_dict())
    return network


def _inputs(order: CountedOrder, architecture: Architecture) -> dict[str, object]:
    return {
        "protocol": digest(order.protocol.model_dump(mode="json", exclude={"name", "description", "model"})),
        "architecture": architecture.model_dump(mode="json"),
        "init": None if order.init is None else order.init.model_id,
        "training": _samples_id(order.split.training),
        "validation": _samples_id(order.split.validation),
    }


def _samples_id(samples: Sequence[Sample]) -> str:
    made_of = {
        sample.key: [
            sample.count,
            PreparedStore(sample.folder.parent).facts(sample.key).provenance.fingerprint,
        ]
        for sample in samples
    }
    return digest(made_of)


def _record(order: CountedOrder, task: ScanTask) -> Mapping[str, object]:
    run = order.run
    return {
        "recipe": task.recipe.model_dump(mode="json"),
        "requires": Requirements.of(order.protocol).model_dump(mode="json"),
        "count_target": order.protocol.count_target,
        "scans": {"training": len(order.split.training), "validation": len(order.split.validation)},
        "run": {
            "seed": run.seed,
            "max_minutes": run.max_minutes,
            "epochs": task.epochs,
            "device": run.device,
            "threads": run.threads,
            "processes": task.group.size,
            "resumed": run.resume,
            "program_version": __version__,
        },
    }
