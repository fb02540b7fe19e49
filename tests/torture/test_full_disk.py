"""A disk that is full at whatever point, or turns read-only: a clear stop, nothing corrupt, and it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.run import Watcher
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.errors import EpvsError, OutputError, StoppedError, UsageError
from tests.torture.conftest import Counted
from tests.torture.drive import check_whole, leftovers, same_tables

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")

#: What one scan takes in the store, about, and all that a run of four writes beside its output.
SCAN_KIB, OUTPUT_KIB = 350, 250


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of that size, for the length of the block."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def stops_and_goes_on(run: Counted, disk: Path) -> bool:
    """Whether the disk was too small; then it is enlarged and the run goes on. The tables come out the same."""
    stop = stop_of(run)
    if stop is not None:
        assert isinstance(stop, StoppedError | OutputError), stop
        assert stop.exit_code == 5
        assert "o space left on" in stop.message, stop.message
        assert "start again" in stop.hint
        check_whole(run.out)
        remount(disk, "size=50m")
        run.again()
    same_tables(run.out, run.whole)
    assert not leftovers(disk, run.out.parent)
    return stop is not None


def stop_of(run: Counted, watch: Watcher = lambda _progress, _line: None) -> EpvsError | None:
    """What a run stops with; None where it ends well."""
    try:
        run_cohort(run.request, watch=watch)
    except EpvsError as error:
        return error
    return None


def beside(counted: Counted, disk: Path, store: Path) -> Counted:
    """An output on the disk, with the store of the counted cohort elsewhere: nothing is left but to commit."""
    shutil.copytree(OutputPaths.of(counted.whole).store, store)
    return replace(counted, request=replace(counted.request, out=disk / "counts.parquet", store=store))


@pytest.mark.parametrize(
    "free_kib",
    [
        16,
        64,
        120,
        *(pytest.param(kib, marks=pytest.mark.torture) for kib in range(10, OUTPUT_KIB, 12)),
    ],
)
def test_a_disk_full_while_results_are_committed_and_compacted(
    counted: Counted, tmp_path: Path, free_kib: int
) -> None:
    with small_disk(tmp_path / "disk", free_kib) as disk:
        stopped = stops_and_goes_on(beside(counted, disk, tmp_path / "store"), disk)
    assert stopped or free_kib > 100


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scans", [n / 10 for n in range(1, 40, 3)])
def test_a_disk_full_while_volumes_are_prepared(counted: Counted, tmp_path: Path, scans: float) -> None:
    with small_disk(tmp_path / "disk", int(scans * SCAN_KIB)) as disk:
        out = tmp_path / "out" / "counts.parquet"
        run = replace(counted, request=replace(counted.request, out=out, store=disk / "store"))
        assert stops_and_goes_on(run, disk)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_store_that_turns_read_only_stops_the_run_and_it_goes_on(counted: Counted, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 50_000) as disk:
        out, store = tmp_path / "out" / "counts.parquet", disk / "store"
        shutil.copytree(OutputPaths.of(counted.whole).store, store)
        for heat in sorted(store.rglob("heat.safetensors"))[2:]:
            heat.unlink()
        run = replace(counted, request=replace(counted.request, out=out, store=store))
        remount(disk, "ro")
        with pytest.raises(UsageError, match="cannot be written"):
            run.again()
        remount(disk, "rw")
        turned: list[bool] = []

        def turn(*_: object) -> None:
            if not turned:
                remount(disk, "ro")
                turned.append(True)

        stop = stop_of(run, turn)
        assert isinstance(stop, StoppedError | OutputError)
        assert "ead-only" in stop.message
        check_whole(out)
        remount(disk, "rw")
        run.again()
        same_tables(out, run.whole)
        assert not leftovers(disk, out.parent)
