"""The file that a run in training goes on from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from epvs_cohort.data.files import require_folder, sweep, write_whole
from epvs_cohort.data.lock import LOCK_FILE
from epvs_cohort.errors import ConfigError, UsageError
from epvs_cohort.train.journal import JOURNAL_FILE, PICTURES_FOLDER, TENSORBOARD_FOLDER

CHECKPOINT_FILE = "checkpoint.pt"

#: Says what a run was made of; written before the first checkpoint.
RECIPE_FILE = "recipe.json"

#: What may be in a folder that a run ended in before its first checkpoint.
BEGUN = frozenset({LOCK_FILE, RECIPE_FILE, JOURNAL_FILE, TENSORBOARD_FOLDER, PICTURES_FOLDER})


def check_folder(out: Path) -> None:
    """A new folder, one that a run was begun in, or one that a run ended in before its first checkpoint.

    Raises
    ------
    UsageError
        It holds something else, or is no folder.
    """
    require_folder(out)
    sweep(out)
    found = {path.name for path in out.iterdir()} if out.exists() else set()
    if CHECKPOINT_FILE not in found and (others := sorted(found - BEGUN)):
        raise UsageError(
            f"{out}: a new or empty folder, or that of a run, is needed; found {others[0]}",
            hint="name another --out",
        )


def write_record(out: Path, record: Mapping[str, object]) -> None:
    """Write what a run is made of."""
    write_whole(out / RECIPE_FILE, (json.dumps(record, indent=2) + "\n").encode())


def write_checkpoint(folder: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; the file appears whole."""
    # By way of memory: what torch raises on a full disk does not say so.
    buffer = io.BytesIO()
    torch.save({**state, "identity": identity}, buffer)
    write_whole(folder / CHECKPOINT_FILE, buffer.getvalue())


def read_checkpoint(folder: Path, identity: str, device: torch.device) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    ConfigError
        There is none, it cannot be read, or it is of another run.
    """
    path = _require_one(folder)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ConfigError(f"{path}: not a readable checkpoint", hint="begin in another --out") from error
    if not isinstance(state, dict) or state.get("identity") != identity:
        raise ConfigError(
            f"{path}: the checkpoint is of another recipe or seed, another protocol or simulator, or other label maps, "
            "scans or counts",
            hint="resume with those it was begun with, or begin in another --out",
        )
    return state


def require_startable(folder: Path, *, resume: bool) -> None:
    """Check that a run may begin in a folder, or that there is something to resume; what, `read_checkpoint` looks at.

    Raises
    ------
    ConfigError
        There is no checkpoint to resume from.
    UsageError
        There is one, and ``resume`` is not asked for.
    """
    if resume:
        _require_one(folder)
    else:
        require_none(folder)


def _require_one(folder: Path) -> Path:
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no checkpoint to resume from", hint="start without --resume")
    return path


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
