"""Hostile inputs end in a clear error or a usable image: no crash, no hang, bounded memory, nothing executed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from epvs_cohort.data.images import read_image
from epvs_cohort.errors import UnreadableError
from epvs_cohort.protocol import InputSettings
from tests.hostile.bounded import Ending, read_bounded
from tests.hostile.cases import Case
from tests.hostile.corpus import corpus, fast_corpus

pytestmark = pytest.mark.timeout(900)

#: The least that the corpus holds.
LEAST = 300


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    names = Counter(case.name for case in corpus())
    assert len(names) >= LEAST
    assert [name for name, times in names.items() if times > 1] == []
    assert {"image", "labels", "scans"} == {case.way for case in fast_corpus()}


def _ended(cases: list[Case], folder: Path) -> list[Ending]:
    endings = read_bounded(cases, folder)
    assert [ending.name for ending in endings] == [case.name for case in cases]
    return endings


def _assert_held(endings: list[Ending], folder: Path) -> None:
    assert [ending for ending in endings if ending.broken] == []
    # An error must name the file and be of a scan or a table; both ends must occur, or nothing was tried.
    assert {ending.end for ending in endings} == {"good", "error"}
    assert [e for e in endings if e.end == "error" and str(folder) not in e.what] == []
    assert list(folder.rglob("executed")) == []


@pytest.mark.slow
def test_a_part_of_the_corpus_is_read_or_refused(tmp_path: Path) -> None:
    _assert_held(_ended(fast_corpus(), tmp_path), tmp_path)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_the_whole_corpus_is_read_or_refused(tmp_path: Path) -> None:
    _assert_held(_ended(corpus(), tmp_path), tmp_path)


def test_limits_are_real(tmp_path: Path) -> None:
    """A reader that crashes, hangs, takes too much or executes is seen: the watch itself is tried."""
    traps = {
        "dies": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        "spins": "while True: pass\n",
        "hoards": "held = bytearray(3 << 30)\n",
        "executes": "import os\nos.system('true')\n",
    }
    cases = []
    for name, program in traps.items():

        def make(folder: Path, program: str = program) -> Path:
            (folder / "trap.py").write_text(program)
            return folder / "trap.py"

        cases.append(Case(name, make, "trap"))
    endings = {ending.name: ending for ending in read_bounded(cases, tmp_path)}
    assert {name for name, ending in endings.items() if ending.broken} == set(traps)
    assert "SIGSEGV" in endings["dies"].what
    assert endings["spins"].what.startswith(("SIGPROF", "SIGALRM"))
    assert "MemoryError" in endings["hoards"].what
    assert "os.system" in endings["executes"].what


def test_a_pipe_in_place_of_a_scan_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(UnreadableError, match="a pipe, socket or device"):
        read_image(tmp_path / "a.nii.gz", InputSettings())
