from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from epvs_cohort.data.identity import FileState, input_files, sha256_of
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


META = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mhd", META.format("b1.raw")),
        ("a.mhd", META.format("LIST\nb0.raw\nb1.raw")),
        ("a.mhd", META.format("b%d.raw 0")),
        ("a.nhdr", NRRD.format("b1.raw")),
        ("a.nhdr", NRRD.format("LIST\nb0.raw\nb1.raw")),
        ("a.nhdr", NRRD.format("b%d.raw 0 1 1")),
    ],
)
def test_a_data_file_that_changes_beside_its_header_is_seen(name: str, text: str, tmp_path: Path) -> None:
    header = tmp_path / name
    header.write_text(text)
    for number in range(2):
        (tmp_path / f"b{number}.raw").write_bytes(bytes(range(8)))
    named = input_files(header)
    assert named[0] == header
    assert named[-1] == tmp_path / "b1.raw"
    state, sha256 = FileState.of(header), sha256_of(header)
    assert (FileState.of(header), sha256_of(header)) == (state, sha256)
    assert state.size == header.stat().st_size + 8 * (len(named) - 1)
    os.utime(tmp_path / "b1.raw", ns=(10**18, 10**18))
    assert FileState.of(header) != state
    assert sha256_of(header) == sha256
    (tmp_path / "b1.raw").write_bytes(bytes(range(1, 9)))
    assert FileState.of(header) != state
    assert sha256_of(header) != sha256


def test_a_missing_data_file_is_named_with_its_header(tmp_path: Path) -> None:
    header = tmp_path / "a.mhd"
    header.write_text(META.format("gone.raw"))
    for look in (FileState.of, sha256_of):
        with pytest.raises(
            UnreadableError, match=r"a\.mhd: its data file .*gone\.raw cannot be read: No such file"
        ):
            look(header)


def test_a_header_with_its_voxels_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(META.format("LOCAL").encode() + bytes(range(8)))
    assert input_files(path) == (path,)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_of_one_file_is_no_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", {"1": b"one"})
    assert input_files(folder) == (folder / "1",)
    assert sha256_of(folder) != sha256_of(folder / "1")
