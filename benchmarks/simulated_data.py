"""Simulated data sets of chosen people, made once and kept; what several benchmarks share."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainings import toml_of

from epvs_cohort.cli.options import DEFAULT_PROTOCOL
from epvs_cohort.protocol import load_protocol
from epvs_cohort.simulate.anatomy import anatomy_files
from epvs_cohort.simulate.bids import SIMULATION_FILE
from epvs_cohort.simulate.cohort import DEFAULT_VOXEL_MM, SimulateOptions, parameters, rescan_folder
from epvs_cohort.simulate.people import Kind
from epvs_cohort.simulate.settings import file_hashes

log = logging.getLogger("simulated")

#: Label maps by what they are for, in order of name (README of the anatomies): the same for every network.
TRAINING, VALIDATION, HELD_OUT = slice(0, 9), slice(9, 11), slice(11, 14)


#: Coarse grids keep the field of view, rounded up to what four levels can halve.
STRIDE = 8


def coarse_protocol(factor: int, folder: Path) -> Path:
    """The default protocol on a grid of at least its extent whose voxels are ``factor`` times as long, as a file."""
    protocol = load_protocol(DEFAULT_PROTOCOL)
    shape = [-(-size // (factor * STRIDE)) * STRIDE for size in protocol.grid.shape]
    spacing = [factor * edge for edge in protocol.grid.spacing_mm]
    grid = protocol.grid.model_copy(update={"shape": tuple(shape), "spacing_mm": tuple(spacing)})
    name = f"{DEFAULT_PROTOCOL}-coarse-{factor}"
    path = folder / f"{name}.toml"
    coarse = protocol.model_copy(update={"grid": grid, "name": name})
    path.write_text(toml_of(coarse.model_dump(mode="json", exclude_defaults=True)))
    return path


@dataclass(frozen=True)
class Wanted:
    """A data set to simulate; ``people`` is a folder of label maps, None the bundled one."""

    scans: int
    seed: int
    people: Path | None
    kind: Kind = "evaluation"
    voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM
    rescan: bool = False
    lesions: bool = True
    prepared: bool = False
    protocol: str | None = None
    n_procs: int = 1


def people_of(anatomies: Path | None, which: slice, folder: Path) -> Path | None:
    """Folder of links to the label maps of some of 14 people; None, the bundled map, where there are none."""
    if anatomies is None:
        log.info("no --anatomies: the one bundled label map stands for everybody, so nobody is held out")
        return None
    files = anatomy_files(anatomies)
    if len(files) < HELD_OUT.stop:
        raise SystemExit(
            f"{anatomies}: {len(files)} label maps found, those of {HELD_OUT.stop} people are needed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Links of an earlier start may be to other people.
    for old in folder.iterdir():
        old.unlink()
    for path in files[which]:
        (folder / path.name).symlink_to(path.resolve())
    return folder


def simulated(out: Path, wanted: Wanted) -> None:
    """Simulate a data set by ``epvs-cohort simulate``, unless it is there."""
    targets = [out, rescan_folder(out)] if wanted.rescan else [out]
    if all((target / SIMULATION_FILE).exists() for target in targets):
        known, asked = simulation(out), parameters(_options(wanted))
        # One with second visits holds all that one without them does.
        both = parameters(_options(replace(wanted, rescan=True)))
        asked = both if known["settings_id"] == both["settings_id"] else asked
        if differing := [key for key in ("scans", "seed", "settings_id") if known[key] != asked[key]]:
            found = ", ".join(f"{key} {known[key]} where {asked[key]} is asked for" for key in differing)
            raise SystemExit(f"{out}: holds another data set ({found}); name another --work")
        log.info("%s: already simulated", out)
        return
    command = [sys.executable, "-m", "epvs_cohort", "simulate", str(out), "--kind", wanted.kind]
    command += ["--scans", str(wanted.scans), "--seed", str(wanted.seed), "--n-procs", str(wanted.n_procs)]
    if wanted.prepared:
        command += ["--prepared", *(["--protocol", wanted.protocol] if wanted.protocol else [])]
    else:
        command += ["--voxel", ",".join(str(edge) for edge in wanted.voxel_mm)]
    command += ["--anatomies", str(wanted.people)] if wanted.people is not None else []
    command += ["--rescan"] if wanted.rescan else []
    command += [] if wanted.lesions else ["--no-lesions"]
    log.info("epvs-cohort %s", " ".join(command[3:]))
    # Standard output is for the figures.
    subprocess.run(command, check=True, stdout=sys.stderr)


def _options(wanted: Wanted) -> SimulateOptions:
    """What the command makes of its options."""
    return SimulateOptions(
        scans=wanted.scans,
        seed=wanted.seed,
        kind=wanted.kind,
        anatomies=wanted.people,
        voxel_mm=DEFAULT_VOXEL_MM if wanted.prepared else wanted.voxel_mm,
        with_lesions=wanted.lesions,
        prepared=wanted.prepared,
        protocol=load_protocol(wanted.protocol or DEFAULT_PROTOCOL),
        rescan="same" if wanted.rescan else None,
    )


def is_held_out(drawn: Mapping[str, Any], people: Path | None) -> bool:
    """Whether a data set was deformed from these people's maps and no others."""
    return people is not None and drawn["settings"]["anatomies"] == file_hashes(anatomy_files(people))


def simulation(folder: Path) -> dict[str, Any]:
    """What a simulated data set was drawn by."""
    record: dict[str, Any] = json.loads((folder / SIMULATION_FILE).read_text())
    return record
