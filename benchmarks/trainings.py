"""Trainings by ``epvs-cohort train`` that are kept; what several benchmarks share."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import epvs_cohort
from epvs_cohort.model.bundle import CARD_FILE, load_bundle
from epvs_cohort.protocol import named_file
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE

log = logging.getLogger("trainings")


def train_once(out: Path, scans: Path, options: Mapping[str, str]) -> Path:
    """Train a bundle unless it is there; one that was interrupted goes on, one that was asked for otherwise is refused.

    Parameters
    ----------
    out : Path
        Folder of the bundle; what it was asked for with lies beside it.
    scans : Path
        Simulated data set of prepared volumes.
    options : mapping of str to str
        Options of the command, among them ``--counts`` and ``--recipe``.
    """
    asked = _asked(scans, options)
    record = out.with_name(out.name + ".asked.json")
    if record.exists() and json.loads(record.read_text()) != asked:
        raise SystemExit(f"{out}: was asked for with other options or files ({record}); name another --work")
    if (out / CARD_FILE).exists() and record.exists():
        log.info("%s: already trained", out.name)
        return out
    resume = (out / CHECKPOINT_FILE).exists() and record.exists()
    if not resume and out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(asked, indent=1) + "\n")
    command = [sys.executable, "-m", "epvs_cohort", "train", str(scans), "--out", str(out)]
    command += [word for pair in options.items() for word in pair]
    command += ["--resume"] if resume else []
    log.info("epvs-cohort %s", " ".join(command[3:]))
    # Standard output is for the figures.
    subprocess.run(command, check=True, stdout=sys.stderr)
    return out


def _asked(scans: Path, options: Mapping[str, str]) -> dict[str, object]:
    """Options, and the content of all that they name."""
    files = [Path(value) for value in options.values() if Path(value).is_file()]
    files.append(named_file("recipes", options["--recipe"]))
    return {
        "program": hashlib.sha256(b"".join(path.read_bytes() for path in _program())).hexdigest(),
        "scans": str(scans),
        "options": dict(options),
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)},
        "init": load_bundle(options["--init"]).model_id if "--init" in options else None,
    }


def _program() -> list[Path]:
    """Source of what is trained and how: with another, a training is not the one that was asked for."""
    package = Path(epvs_cohort.__file__).parent
    return sorted(path for folder in ("model", "train") for path in (package / folder).glob("*.py"))


def toml_of(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: numbers, words and lists of them are written as in JSON, tables below them."""
    flat = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    tables = [f"\n[{key}]\n{toml_of(value)}" for key, value in settings.items() if isinstance(value, dict)]
    return "\n".join(flat + tables) + "\n"


def switches(pairs: Sequence[tuple[str, object]]) -> dict[str, str]:
    """Options with a value, as the command line has them; those without one are left out.

    >>> switches([("--seed", 3), ("--init", None)])
    {'--seed': '3'}
    """
    return {name: str(value) for name, value in pairs if value is not None}
