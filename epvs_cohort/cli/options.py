"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from epvs_cohort.errors import UsageError

# Loaded where they are made: a command that only shares a name of an option must not load Dask and SimpleITK.
if TYPE_CHECKING:
    from epvs_cohort.cohort.cluster import ClusterChoice
    from epvs_cohort.data.discover import DiscoverOptions

Scans = Annotated[
    Path, typer.Argument(help="Folder, BIDS data set, CSV/TSV manifest, single file or DICOM folder.")
]
ProtocolName = Annotated[str, typer.Option("--protocol", metavar="NAME|FILE", help="Study settings.")]
NProcs = Annotated[
    int | None,
    typer.Option("--n-procs", min=1, help="Scans prepared at the same time (default: one a core)."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--participant-label", help="Only this subject, with or without sub-; repeatable."),
]
Include = Annotated[
    str | None, typer.Option("--include", metavar="GLOB", help="Only relative paths that match.")
]
Suffixes = Annotated[
    list[str] | None, typer.Option("--suffix", help="Only these BIDS suffixes (PDw, T2w ...); repeatable.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N scans, by key.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask cluster.")
]
ClusterFile = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME|FILE", help="Settings of the local processes.")
]
Tls = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        metavar="DIR",
        help="ca.pem, cert.pem and key.pem: the cluster talks encrypted, and to no stranger.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do everything again, whatever is there.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Hash every input again instead of trusting its mtime.")
]

#: What torch takes.
MOST_SEED = 2**63 - 1

BundleOut = Annotated[Path, typer.Option("--out", help="New folder of the bundle and of the checkpoints.")]
MaxMinutes = Annotated[
    float | None,
    typer.Option("--max-minutes", min=0.01, help="Time for training steps; without it the recipe's."),
]
ModelSeed = Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="One seed, one model.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")]

DeviceName = Literal["auto", "cpu", "cuda"]
Device = Annotated[DeviceName, typer.Option("--device", help="auto is cuda where there is one.")]

#: Of arguments and options that commands need in different ways.
COUNTED_SCANS = (
    "Counted scans: all that run takes, or a prepared cohort (a store, or a folder that holds prepared/)."
)
COUNTS = "Table scan,count[,reader]."
STORE = "Prepared volumes, shared with run (default: beside the output)."

DEFAULT_PROTOCOL = "rotterdam-basal-ganglia"


def discover_options(
    labels: list[str] | None, include: str | None, suffixes: list[str] | None, limit: int | None
) -> DiscoverOptions:
    """Which scans of SCANS are asked for."""
    from epvs_cohort.data.discover import DiscoverOptions

    return DiscoverOptions(
        suffixes=tuple(suffixes or ()), participant_labels=tuple(labels or ()), include=include, limit=limit
    )


def usable_device(asked: DeviceName) -> Literal["cpu", "cuda"]:
    """The device that is asked for; ``auto`` is the best that is there.

    Raises
    ------
    ModelError
        It is not there.
    """
    from epvs_cohort.model.predict import best_device, require_device

    where = best_device() if asked == "auto" else asked
    require_device(where)
    return where


def cluster_choice(
    n_procs: int | None, device: str, scheduler: str | None, cluster: str | None, tls: Path | None = None
) -> ClusterChoice:
    """Where to compute.

    Raises
    ------
    UsageError
        A scheduler and settings of local processes at once.
    """
    from epvs_cohort.cluster_settings import load_cluster
    from epvs_cohort.cohort.cluster import ClusterChoice

    if scheduler is not None and (n_procs is not None or cluster is not None):
        raise UsageError(
            "--scheduler names a cluster that is there; --n-procs and --cluster start a local one"
        )
    settings = load_cluster(cluster) if cluster is not None else None
    return ClusterChoice(n_procs, device, scheduler, settings, tls)
