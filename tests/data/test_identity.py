from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from epvs_cohort.data.identity import FileState, sha256_of
from epvs_cohort.errors import UnreadableError


def test_state_and_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"x" * 3_000_000)
    found = path.stat()
    assert FileState.of(path) == FileState(3_000_000, found.st_mtime_ns, found.st_ino)
    assert sha256_of(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_file_written_again_has_another_state(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"old")
    before = FileState.of(path)
    other = tmp_path / "b.nii"
    other.write_bytes(b"new")
    os.utime(other, ns=(before.mtime_ns, before.mtime_ns))
    other.replace(path)
    after = FileState.of(path)
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after != before


def folder_of(path: Path, contents: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
        os.utime(path / name, ns=(10**18, 10**18))
    return path


def test_a_folder_is_told_by_names_and_contents_not_by_place(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "a", {"1": b"one", "2": b"two"})
    same = folder_of(tmp_path / "b", {"2": b"two", "1": b"one"})
    assert sha256_of(first) == sha256_of(same)
    for number, contents in enumerate(
        [{"1": b"one"}, {"1": b"two", "2": b"one"}, {"1": b"onet", "2": b"wo"}, {"1": b"one", "3": b"two"}]
    ):
        assert sha256_of(folder_of(tmp_path / f"c{number}", contents)) != sha256_of(first)


def test_state_of_a_folder_sees_a_file_exchanged(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", {"1": b"one", "2": b"two"})
    before = FileState.of(folder)
    assert (before.size, before.mtime_ns) == (6, 10**18)
    assert FileState.of(folder) == before
    (folder / "new").write_bytes(b"TWO")
    os.utime(folder / "new", ns=(10**18, 10**18))
    (folder / "new").replace(folder / "2")
    after = FileState.of(folder)
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after != before


def test_hidden_files_of_a_folder_do_not_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", {"1": b"one"})
    before = (FileState.of(folder), sha256_of(folder))
    (folder / ".DS_Store").write_bytes(b"junk")
    assert (FileState.of(folder), sha256_of(folder)) == before


def test_an_empty_file_in_a_folder_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", {"1": b"one", "2": b""})
    assert sha256_of(folder) != sha256_of(folder_of(tmp_path / "b", {"1": b"one"}))


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "gone.nii"
    with pytest.raises(UnreadableError, match=r"gone\.nii"):
        FileState.of(missing)
    with pytest.raises(UnreadableError, match=r"gone\.nii: no such file"):
        sha256_of(missing)
    empty = tmp_path / "empty.nii"
    empty.touch()
    with pytest.raises(UnreadableError, match="empty"):
        sha256_of(empty)
