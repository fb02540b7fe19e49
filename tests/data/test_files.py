"""Files appear whole, and what a crash left behind is told from what is being written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epvs_cohort.data.files import (
    ABANDONED_SECONDS,
    TEMPORARY_SUFFIX,
    began,
    is_abandoned,
    sweep,
    temporary_beside,
    whole_file,
)

_CODE = """
import pathlib, sys
from epvs_cohort.data.files import temporary_beside
path = temporary_beside(pathlib.Path(sys.argv[1]) / "x")
path.mkdir()
(path / "half").write_text("half")
print(path, flush=True)
sys.stdin.read()
"""


def writer(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that writes, and its temporary folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with whole_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with contextlib.suppress(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("sec")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["table"]


def test_what_a_live_process_writes_stays_and_what_a_dead_one_left_is_swept(tmp_path: Path) -> None:
    process, folder = writer(tmp_path)
    with process:
        assert not is_abandoned(folder)
        assert sweep(tmp_path) == 0
        process.kill()
        # Nobody has waited for it yet, as in a container whose first process waits for nobody.
        deadline = time.monotonic() + 20
        while not is_abandoned(folder):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert Path(f"/proc/{process.pid}").exists()
        assert began(process.pid) is None
        assert sweep(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_another_process_with_the_same_number_does_not_keep_what_an_earlier_one_left(tmp_path: Path) -> None:
    mine = temporary_beside(tmp_path / "x")
    start = began(os.getpid())
    assert start is not None
    earlier = mine.with_name(mine.name.replace(f"-{start}-", f"-{start - 1}-"))
    mine.touch()
    earlier.touch()
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [mine]


def test_a_file_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    path = tmp_path / f".elsewhere_1-77-88-0123456789ab{TEMPORARY_SUFFIX}"
    path.touch()
    assert sweep(tmp_path) == 0
    past = time.time() - ABANDONED_SECONDS - 60
    os.utime(path, (past, past))
    assert sweep(tmp_path) == 1


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    link = tmp_path / f".elsewhere_1-77-88-0123456789ab{TEMPORARY_SUFFIX}"
    link.symlink_to(tmp_path / "kept")
    past = time.time() - ABANDONED_SECONDS - 60
    os.utime(link, (past, past), follow_symlinks=False)
    assert sweep(tmp_path) == 1
    assert (tmp_path / "kept" / "file").exists()


def test_links_that_lead_nowhere_and_others_files_stop_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = tmp_path / f".x{TEMPORARY_SUFFIX}"
    loop.symlink_to(loop.name)
    assert sweep(tmp_path) == 0
    past = time.time() - ABANDONED_SECONDS - 60
    os.utime(loop, (past, past), follow_symlinks=False)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: loop.lstat().st_uid + 1)
        assert sweep(tmp_path) == 0
    assert sweep(tmp_path) == 1


def test_a_shared_folder_is_swept_of_what_this_machine_left_alone(tmp_path: Path) -> None:
    mine = temporary_beside(tmp_path / "x")
    start = began(os.getpid())
    assert start is not None
    earlier = mine.with_name(mine.name.replace(f"-{start}-", f"-{start - 1}-"))
    elsewhere = tmp_path / f".elsewhere_1-77-88-0123456789ab{TEMPORARY_SUFFIX}"
    past = time.time() - ABANDONED_SECONDS - 60
    for path in (mine, earlier, elsewhere):
        path.mkdir()
        os.utime(path, (past, past))
    assert sweep(tmp_path, own_kind=True) == 1
    assert set(tmp_path.iterdir()) == {mine, elsewhere}
