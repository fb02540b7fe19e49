"""Runs that are driven from outside, as a person or a batch system does: started, killed, watched, compared."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from epvs_cohort.data.cohort_tables import read_cohort
from epvs_cohort.data.files import TEMPORARY_SUFFIX
from epvs_cohort.data.parts import OutputPaths, Parts
from epvs_cohort.errors import EpvsError

#: Columns that tell how long something took; they differ from run to run.
TIMES = ("seconds_prepare", "seconds_infer")


@dataclass(frozen=True)
class Driver:
    """A run that was started; at the end of its block nothing of it is left, whatever a test found."""

    process: subprocess.Popen[bytes]
    words: Path

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.words.read_text()

    def killed_after(self, seconds: float) -> bool:
        """Kill the driver alone after a time; False where it ended before. Its workers are left to themselves."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return True
        return False

    def orphans(self) -> list[psutil.Process]:
        """Its workers that still run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                own = os.getpgid(process.pid) == self.process.pid
                if own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Command:
    """A call of ``epvs-cohort run``."""

    scans: Path
    protocol: Path
    out: Path
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        names = [str(self.scans), "--protocol", str(self.protocol), "--out", str(self.out)]
        return [
            sys.executable,
            "-m",
            "epvs_cohort.cli.app",
            "run",
            *names,
            *(self.more or ("--n-procs", "2")),
        ]

    def start(self) -> Driver:
        """Start it in a process group of its own, as a terminal does, with its own folder for temporary files."""
        temporary = self.out.parent / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        words = self.out.parent / f"said-{uuid.uuid4().hex}.txt"
        with words.open("w") as file:
            process = subprocess.Popen(
                self.words,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(temporary)},
            )
        return Driver(process, words)

    def finish(self) -> tuple[int, str]:
        """Exit code and words of a run that nobody disturbs."""
        with self.start() as driver:
            code = driver.process.wait()
        return code, driver.said


def column_bytes(path: Path) -> dict[str, bytes]:
    """Each data column of a table as bytes, times left out."""
    table = pq.read_table(path)
    return {name: _bytes(table.column(name)) for name in table.column_names if name not in TIMES}


def _bytes(column: pa.ChunkedArray) -> bytes:
    batch = pa.record_batch([column.combine_chunks()], names=["column"])
    return bytes(batch.serialize())


def tables_of(out: Path) -> dict[str, dict[str, bytes]]:
    """All three tables of a finished run."""
    paths = OutputPaths.of(out)
    return {path.name: column_bytes(path) for path in (paths.counts, paths.lesions, paths.qc)}


def same_tables(out: Path, other: Path) -> None:
    """Check that two runs ended in the same tables, byte for byte, times aside."""
    for mine, theirs in zip(tables_of(out).items(), tables_of(other).items(), strict=True):
        assert list(mine[1]) == list(theirs[1]), mine[0]
        differing = [name for name in mine[1] if mine[1][name] != theirs[1][name]]
        assert not differing, (mine[0], differing)


def leftovers(*folders: Path) -> list[Path]:
    """Temporary files of this program."""
    return [path for folder in folders for path in folder.rglob(f"*{TEMPORARY_SUFFIX}*")]


def check_whole(out: Path) -> None:
    """Check that every Parquet file there can be read, and that no scan is in a table twice."""
    for path in out.parent.rglob("*.parquet"):
        with contextlib.suppress(FileNotFoundError):  # A run that finishes puts its parts into one.
            pq.read_table(path)
    if Parts(OutputPaths.of(out).parts).run() is not None:
        assert read_cohort(out).scans["scan"].is_unique


class Watched:
    """Looks all the time whether every Parquet file can be read."""

    def __init__(self, out: Path) -> None:
        self.looks = 0
        self._out = out
        self._over = threading.Event()
        self._wrong: list[BaseException] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        try:
            while not self._over.wait(0.1):
                check_whole(self._out)
                self.looks += 1
        except (AssertionError, OSError, EpvsError, pa.ArrowException) as error:
            self._wrong.append(error)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._wrong:
            raise AssertionError(f"not readable at an instant: {self._wrong[0]!r}") from self._wrong[0]


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 600.0) -> None:
    """Wait until a function without arguments gives true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def same_rows(out: Path, other: Path, keys: list[str]) -> None:
    """Check that the rows of some scans are the same in the tables of two runs, times and paths aside."""
    mine, theirs = OutputPaths.of(out), OutputPaths.of(other)
    for one, two in ((mine.counts, theirs.counts), (mine.lesions, theirs.lesions), (mine.qc, theirs.qc)):
        tables = [
            pq.read_table(path, filters=[("scan", "in", keys)]).drop_columns(
                [name for name in (*TIMES, "path") if name in pq.read_schema(path).names]
            )
            for path in (one, two)
        ]
        assert tables[0].num_rows > 0
        for name in tables[0].column_names:
            assert _bytes(tables[0].column(name)) == _bytes(tables[1].column(name)), (one.name, name)
