"""Reads hostile inputs in bounded processes and collects how each ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.cases import Case, Way
from tests.hostile.child import CPU_SECONDS

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ending:
    """How an input ended: ``good``, ``error``, ``fault`` (an error that is not ours) or ``died``."""

    name: str
    end: str
    what: str
    cpu: float

    @property
    def broken(self) -> bool:
        """Whether a promise was broken."""
        return self.end not in ("good", "error") or self.cpu > CPU_SECONDS


def read_bounded(cases: Iterable[Case], folder: Path) -> list[Ending]:
    """Make each case in a folder of its own and read all in bounded processes, a new one after each that died."""
    left: list[tuple[str, Way, str]] = []
    for case in cases:
        place = folder / f"{len(left):04d}"
        place.mkdir()
        left.append((case.name, case.way, str(case.make(place))))
    endings: list[Ending] = []
    while left:
        ended = _one_process(left, folder)
        endings += ended
        left = left[len(ended) :]
    return endings


def _one_process(cases: Sequence[tuple[str, Way, str]], folder: Path) -> list[Ending]:
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(limits, "1"), "PYTHONPATH": str(_ROOT)}
    environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    asked = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.child"],
        input=asked,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ended = [Ending(t["ended"], t["end"], t["what"], t["cpu"]) for t in told if "ended" in t]
    if len(ended) < len(cases):
        name = cases[len(ended)][0]
        if done.returncode < 0:
            what = signal.Signals(-done.returncode).name
        else:
            what = f"exit code {done.returncode}: {[t['executed'] for t in told if 'executed' in t]}"
        ended.append(Ending(name, "died", f"{what}: {done.stderr[-500:]}", 0.0))
    return ended
