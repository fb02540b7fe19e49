"""The file that a run in training goes on from."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from epvs_cohort.data.files import whole_file
from epvs_cohort.errors import ConfigError, UsageError

CHECKPOINT_FILE = "checkpoint.pt"


def write_checkpoint(folder: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; the file appears whole."""
    with whole_file(folder / CHECKPOINT_FILE) as temporary:
        torch.save({**state, "identity": identity}, temporary)


def read_checkpoint(folder: Path, identity: str, device: torch.device) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    ConfigError
        There is none, it cannot be read, or it is of another run.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no checkpoint to resume from", hint="start without --resume")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ConfigError(f"{path}: not a readable checkpoint", hint="begin in another --out") from error
    if not isinstance(state, dict) or state.get("identity") != identity:
        raise ConfigError(
            f"{path}: the checkpoint is of another recipe or seed, another protocol or simulator, or other label maps",
            hint="resume with those it was begun with, or begin in another --out",
        )
    return state


def require_none(folder: Path) -> None:
    """Check that a run may begin in a folder.

    Raises
    ------
    UsageError
        It holds a checkpoint.
    """
    path = folder / CHECKPOINT_FILE
    if path.exists():
        raise UsageError(
            f"{path}: a checkpoint is there already, and resuming was not asked for",
            hint="--resume goes on from it, or exports a finished run again; else begin in another --out",
        )
