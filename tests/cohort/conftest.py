"""A small simulated cohort, counted once for all tests of the engine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort

#: Coarse voxels keep reading and registration short; nothing of the engine depends on them.
VOXEL_MM = (1.0, 1.0, 1.6)
TWO_PROCESSES = ClusterChoice(n_procs=2, device="cpu")


@dataclass(frozen=True)
class Counted:
    """A cohort and what a run made of it."""

    scans: Path
    out: Path
    cohort: Cohort


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BIDS data set of three simulated whole heads, and one truncated file."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    simulate_cohort(folder, SimulateOptions(scans=3, seed=11, voxel_mm=VOXEL_MM, n_procs=2))
    good = folder / "sub-0001" / "anat" / "sub-0001_PDw.nii.gz"
    bad = folder / "sub-0004" / "anat" / "sub-0004_PDw.nii.gz"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(good.read_bytes()[:-2000])
    return folder


@pytest.fixture(scope="session")
def counted(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """The cohort after an undisturbed run over two processes."""
    out = tmp_path_factory.mktemp("counted") / "counts.parquet"
    cohort = run_cohort(RunRequest(scans, out, cluster=TWO_PROCESSES, save_maps=True), figures=True)
    return Counted(scans, out, cohort)


@pytest.fixture
def copied(counted: Counted, tmp_path: Path) -> Counted:
    """A finished run that a test may disturb: output, parts and store of its own."""
    folder = tmp_path / "run"
    shutil.copytree(counted.out.parent, folder)
    return Counted(counted.scans, folder / counted.out.name, counted.cohort)
