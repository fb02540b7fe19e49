"""A simulated cohort with its truth beside it: whole heads or prepared volumes. One seed, one set of bytes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from epvs_cohort import __version__
from epvs_cohort.errors import UsageError
from epvs_cohort.protocol import Protocol, digest
from epvs_cohort.simulate.anatomy import (
    BUNDLED_ANATOMY,
    Anatomy,
    anatomy_files,
    bundled_anatomy,
    load_anatomy,
)
from epvs_cohort.simulate.bids import (
    RESCAN_DAYS,
    SIMULATION_FILE,
    Entry,
    ScanTruth,
    write_scan,
    write_tables,
)
from epvs_cohort.simulate.folders import output_errors, require_empty, whole_folder
from epvs_cohort.simulate.heads import (
    LATERAL_VENTRICLES,
    Acquisition,
    Look,
    Person,
    draw_person,
    draw_person_lesions,
    draw_view,
    intracranial_ml,
    scan_person,
    ventricle_ml,
)
from epvs_cohort.simulate.lesions import LesionSpec
from epvs_cohort.simulate.people import Kind, draw_facts, people_settings
from epvs_cohort.simulate.prepared_cohort import (
    Origin,
    Preparation,
    check_protocol,
    preparation_settings,
    scan_prepared,
    write_prepared,
)
from epvs_cohort.simulate.readers import ReaderModel, draw_readings
from epvs_cohort.simulate.settings import file_hashes, image_settings, images_id
from epvs_cohort.simulate.workers import in_order

logger = logging.getLogger(__name__)

RescanScanner = Literal["same", "new"]

#: Edges in mm of the voxels that scans have where no others are asked for (paper, Sec. 3).
DEFAULT_VOXEL_MM = (0.49, 0.49, 0.8)

#: A second visit is written beside ``out``, under its name with this ending.
RESCAN_ENDING = "-rescan"

#: Legal edge of a voxel in mm.
VOXEL_RANGE_MM = (0.3, 6.0)

#: Random streams of one scan; a stream that is not used (lesions) leaves the others alone.
_PERSON, _LESIONS, _SCAN, _FACTS, _READING, _RESCAN, _REREADING = range(7)


@dataclass(frozen=True)
class SimulateOptions:
    """What to simulate.

    Attributes
    ----------
    scans : int
        Number of people, one scan each.
    seed : int
        Scan n is a function of seed and n alone, whatever the number of scans and processes.
    kind : str
        ``evaluation``: count and ventricles rise with age, as in people; ``training``: all independent.
    anatomies : Path or None
        Folder of label maps; None is the bundled one.
    voxel_mm : tuple of float
        Of a whole head. A prepared volume stands for a scan of the default voxels.
    with_lesions : bool
        False: the same heads without perivascular spaces.
    n_procs : int
    prepared : bool
        Prepared volumes in place of whole heads.
    protocol : Protocol
        Grid, mask and trim of prepared volumes.
    true_slice : bool
        Prepared volumes know the true slice of the commissure, as from a manifest.
    rescan : str or None
        Also write a second visit, on the ``same`` scanner or a ``new`` one.
    """

    scans: int
    seed: int
    kind: Kind = "evaluation"
    anatomies: Path | None = None
    voxel_mm: tuple[float, float, float] = DEFAULT_VOXEL_MM
    with_lesions: bool = True
    n_procs: int = 1
    prepared: bool = False
    protocol: Protocol = field(default_factory=Protocol)
    rescan: RescanScanner | None = None
    true_slice: bool = False


def simulate_cohort(
    out: Path, options: SimulateOptions, on_scan: Callable[[int, int], None] | None = None
) -> None:
    """Simulate scans and write them with their truth to a new folder, a second visit to another beside it.

    Parameters
    ----------
    out : Path
        Must not hold anything. It appears whole; in a folder that is there already, ``simulation.json`` appears
        last. The second visit goes to `rescan_folder`.
    options : SimulateOptions
    on_scan : callable, optional
        Called with (done, asked for) after each person.

    Raises
    ------
    UsageError
        An option is out of range, or a folder holds something.
    ConfigError
        The folder of anatomies is unusable, or prepared volumes cannot follow the protocol.
    OutputError
        The data set cannot be written.
    StoppedError
        A worker process was ended from outside.
    """
    targets = (out,) if options.rescan is None else (out, rescan_folder(out))
    _check(targets, options)
    plan = _planned(options)
    logger.info("%s: simulating %d scans, seed %d", out, options.scans, options.seed)
    truths: list[list[ScanTruth]] = [[] for _ in targets]
    with output_errors(out), contextlib.ExitStack() as stack:
        folders = tuple(
            stack.enter_context(whole_folder(target.resolve(), SIMULATION_FILE)) for target in targets
        )
        for visits in _all_scans(folders, plan):
            for own, truth in zip(truths, visits, strict=True):
                own.append(truth)
            if on_scan is not None:
                on_scan(len(truths[0]), options.scans)
        for visit, (folder, own) in enumerate(zip(folders, truths, strict=True), start=1):
            write_tables(folder, own, parameters(options) | {"visit": visit})


def rescan_folder(out: Path) -> Path:
    """Where the second visit of the data set ``out`` goes.

    Raises
    ------
    UsageError
        ``out`` is the root of a file system, which nothing lies beside.

    >>> rescan_folder(Path("data/cohort")).name
    'cohort-rescan'
    """
    whole = out.resolve()
    if not whole.name:
        raise UsageError(f"{out}: a second visit goes beside the first, and nothing lies beside {whole}")
    return whole.with_name(whole.name + RESCAN_ENDING)


def parameters(options: SimulateOptions) -> dict[str, object]:
    """Settings that scans and tables depend on, and their hash, for ``simulation.json``.

    Label maps are named by their SHA-256; what is no named setting is of ``program_version``.
    """
    settings: dict[str, object] = {
        "kind": options.kind,
        "voxel_mm": list(options.voxel_mm),
        "with_lesions": options.with_lesions,
        "anatomies": file_hashes(_paths(options.anatomies) or [BUNDLED_ANATOMY]),
        "acquisition": asdict(Acquisition(voxel_mm=options.voxel_mm)),
        **people_settings(),
        "readers": asdict(ReaderModel()),
        "prepared": preparation_settings(options.protocol, true_slice=options.true_slice)
        if options.prepared
        else None,
        "rescan": None if options.rescan is None else {"scanner": options.rescan, "days": RESCAN_DAYS},
        "program_version": __version__,
        **image_settings(),
    }
    return {
        "seed": options.seed,
        "scans": options.scans,
        "images_id": images_id(),
        "settings_id": digest(settings),
        "settings": settings,
    }


@dataclass(frozen=True)
class _Plan:
    """All that the scans of a cohort have in common."""

    options: SimulateOptions
    ventricle_ranks: tuple[float, ...]
    origin: Origin


_Folders = tuple[Path, ...]
_Visits = tuple[ScanTruth, ...]


def _planned(options: SimulateOptions) -> _Plan:
    drawn_by = {"settings": parameters(options)["settings_id"], "seed": options.seed}
    return _Plan(
        options=options,
        ventricle_ranks=_ventricle_ranks(options),
        origin=Origin(digest(drawn_by), options.protocol.prepare_id),
    )


def _all_scans(folders: _Folders, plan: _Plan) -> Iterator[_Visits]:
    jobs = ((folders, plan, index) for index in range(plan.options.scans))
    return in_order(_one_person, jobs, min(plan.options.n_procs, plan.options.scans))


def _one_person(job: tuple[_Folders, _Plan, int]) -> _Visits:
    """Draw a person and write each visit."""
    folders, plan, index = job
    options = plan.options
    facts = draw_facts(_stream(options.seed, index, _FACTS), options.kind, plan.ventricle_ranks)
    count = facts.count if options.with_lesions else 0
    anatomy = _anatomy(options.anatomies, facts.anatomy)
    person = draw_person(_stream(options.seed, index, _PERSON), anatomy, facts.growth)
    lesions = draw_person_lesions(_stream(options.seed, index, _LESIONS), person, count)
    covariates: dict[str, str | int | float] = {
        "age": facts.age,
        "sex": facts.sex,
        "icv_ml": round(intracranial_ml(person), 1),
        "ventricle_ml": round(ventricle_ml(person), 1),
        # Names of label maps, so that a table can be split by the people who were deformed.
        "anatomy": anatomy.name,
    }
    truths = []
    for visit, folder in enumerate(folders, start=1):
        rng = _stream(options.seed, index, _READING if visit == 1 else _REREADING)
        readings = draw_readings(rng, lesions, ReaderModel())
        entry = Entry(index + 1, covariates, readings, visit)
        truths.append(_one_scan(folder, plan, entry, person, lesions))
    logger.info("scan %d: %s, %d lesions", index + 1, anatomy.name, len(lesions))
    return tuple(truths)


def _one_scan(
    folder: Path, plan: _Plan, entry: Entry, person: Person, lesions: list[LesionSpec]
) -> ScanTruth:
    """Scan a person once and write the scan."""
    options, index = plan.options, entry.number - 1
    acquisition = Acquisition(voxel_mm=options.voxel_mm)
    look: Look | None = None
    if entry.visit > 1 and options.rescan == "same":
        look = draw_view(_stream(options.seed, index, _SCAN), person, acquisition).look
    rng = _stream(options.seed, index, _SCAN if entry.visit == 1 else _RESCAN)
    if options.prepared:
        how = Preparation(acquisition, options.protocol, options.true_slice)
        return write_prepared(folder, entry, scan_prepared(rng, person, lesions, how, look), plan.origin)
    return write_scan(folder, entry, scan_person(rng, person, lesions, acquisition, look))


def _stream(seed: int, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, stream)))


def _paths(folder: Path | None) -> list[Path]:
    return [] if folder is None else anatomy_files(folder)


@lru_cache(maxsize=16)
def _anatomy(folder: Path | None, number: int) -> Anatomy:
    return bundled_anatomy() if folder is None else load_anatomy(_paths(folder)[number])


def _ventricle_ranks(options: SimulateOptions) -> tuple[float, ...]:
    """Rank of each anatomy by its ventricles' part of the intracranial volume, 0 to 1."""
    paths = _paths(options.anatomies)
    if len(paths) < 2:
        return (0.5,)
    share = []
    for path in paths:
        anatomy = load_anatomy(path)
        share.append(anatomy.volume_ml(LATERAL_VENTRICLES) / anatomy.intracranial_ml)
    order = np.argsort(np.argsort(share))
    return tuple(float(rank) / (len(share) - 1) for rank in order)


def _check(targets: tuple[Path, ...], options: SimulateOptions) -> None:
    if options.scans < 1 or options.n_procs < 1 or options.seed < 0:
        raise UsageError(
            f"scans {options.scans}, n_procs {options.n_procs}, seed {options.seed}: "
            "at least 1, 1 and 0 are legal"
        )
    low, high = VOXEL_RANGE_MM
    if not all(low <= edge <= high for edge in options.voxel_mm):
        raise UsageError(f"voxel {options.voxel_mm} mm: edges of {low} to {high} mm are legal")
    if options.prepared:
        _check_prepared(options)
    for out in targets:
        require_empty(out)


def _check_prepared(options: SimulateOptions) -> None:
    if options.voxel_mm != DEFAULT_VOXEL_MM:
        raise UsageError(
            f"voxel {options.voxel_mm} mm for prepared volumes: theirs are the protocol's, "
            f"{options.protocol.grid.spacing_mm} mm",
            hint="name a protocol with another grid.spacing_mm",
        )
    check_protocol(options.protocol)
