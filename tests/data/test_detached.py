from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epvs_cohort.data.detached import check_data_files, data_files_of
from epvs_cohort.data.images import read_image
from epvs_cohort.data.names import is_utf8
from epvs_cohort.errors import UnreadableError
from epvs_cohort.protocol import InputSettings

META = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 2 3 4\nspacings: 1 1 1\nencoding: raw\nendian: little\n"


def slices(folder: Path) -> None:
    """Files of one slice each, s00.raw to s19.raw, that hold their own number; all four.raw counts its voxels."""
    for number in range(20):
        (folder / f"s{number:02d}.raw").write_bytes(np.full((3, 2), number, "<i2").tobytes())
    (folder / "all four.raw").write_bytes(np.arange(24, dtype="<i2").tobytes())


def header(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


FOLLOWED: dict[str, tuple[str, str, Sequence[int]]] = {
    "meta_pattern": ("a.mhd", META + "ElementDataFile = s%02d.raw\n", (1, 2, 3, 4)),
    "meta_first": ("a.mhd", META + "ElementDataFile = s%02d.raw 3\n", (3, 4, 5, 6)),
    "meta_step": ("a.mhd", META + "ElementDataFile = s%02d.raw 3 9 2\n", (3, 5, 7, 9)),
    "meta_list": (
        "a.mhd",
        META + "ElementDataFile = LIST\ns05.raw\ns02.raw\ns09.raw\ns01.raw\nx\n",
        (5, 2, 9, 1),
    ),
    "meta_crlf": (
        "a.mhd",
        META + "ElementDataFile: LIST 2D\r\ns05.raw\r\ns02.raw\r\ns09.raw\r\ns01.raw\r\n",
        (5, 2, 9, 1),
    ),
    "meta_mha": ("a.mha", META + "ElementDataFile = s%02d.raw\n", (1, 2, 3, 4)),
    "nrrd_pattern": ("a.nhdr", NRRD + "data file: s%02d.raw 3 9 2\n", (3, 5, 7, 9)),
    "nrrd_down": ("a.nhdr", NRRD + "DATA FILE: s%02d.raw 6 3 -1 2\n", (6, 5, 4, 3)),
    "nrrd_list": ("a.nhdr", NRRD + "datafile: LIST\ns05.raw\ns02.raw\ns09.raw\ns01.raw\n", (5, 2, 9, 1)),
    "nrrd_nrrd": ("a.nrrd", NRRD + "data file: s%02d.raw 1 4 1\n", (1, 2, 3, 4)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_files_named_are_those_that_are_read(name: str, tmp_path: Path) -> None:
    slices(tmp_path)
    file, text, numbers = FOLLOWED[name]
    path = header(tmp_path, file, text)
    assert data_files_of(path) == tuple(tmp_path / f"s{number:02d}.raw" for number in numbers)
    image = read_image(path, InputSettings())
    assert image.data[0, 0].tolist() == list(numbers)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.mhd", META + "ElementDataFile = all four.raw \n"),
        ("a.mhd", META + "ElementDataFile=./all four.raw"),
        ("a.nhdr", NRRD + "data file: all four.raw\n"),
        ("a.nhdr", NRRD.replace("encoding", "data file:  all four.raw\r\nencoding") + "\n"),
    ],
)
def test_one_file_with_a_space_in_its_name(file: str, text: str, tmp_path: Path) -> None:
    slices(tmp_path)
    path = header(tmp_path, file, text)
    assert data_files_of(path) == (tmp_path / "all four.raw",)
    assert read_image(path, InputSettings()).data[1, 2, 3] == 23


def test_a_full_path_stands_for_itself(tmp_path: Path) -> None:
    slices(tmp_path)
    (tmp_path / "x").mkdir()
    path = header(tmp_path / "x", "a.mhd", META + f"ElementDataFile = {tmp_path}/all four.raw\n")
    assert data_files_of(path) == (tmp_path / "all four.raw",)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.mha", META + "ElementDataFile = LOCAL\n" + "ElementDataFile = x.raw\n"),
        ("a.nrrd", NRRD + "\ndata file: x.raw\n"),
        ("a.nhdr", NRRD + "# data file: x.raw\n"),
        ("a.nii", META + "ElementDataFile = x.raw\n"),
        ("a.mhd", NRRD + "data file: x.raw\n"),
        ("a.raw", b"\0" * 9),
    ],
)
def test_files_that_name_no_other(file: str, content: str | bytes, tmp_path: Path) -> None:
    assert data_files_of(header(tmp_path, file, content)) == ()


REFUSED: dict[str, tuple[str, str]] = {
    # ITK would loop for ever, or read on behind the memory of the image.
    "step_0": (META + "ElementDataFile = s%02d.raw 3 6\n", "steps of 0"),
    "too_many": (META + "ElementDataFile = s%02d.raw 3 19 2\n", "4 files"),
    "too_few": (META + "ElementDataFile = s%02d.raw 3 4 1\n", "4 files"),
    "down": (META + "ElementDataFile = s%02d.raw 6 3 -1\n", "steps of -1"),
    "percent": (META + "ElementDataFile = 50%.raw\n", "one %d"),
    "two_patterns": (META + "ElementDataFile = s%d%s.raw\n", "one %d"),
    "wide": (META + "ElementDataFile = s%099999d.raw\n", "one %d"),
    "unfinished": (META + "ElementDataFile = LIST\ns01.raw\ns02.raw\ns03.raw\ns04.raw", "names 3"),
    "short": (META + "ElementDataFile = LIST\ns01.raw\n\ns03.raw\n", "names 2"),
    "whole_list": (META + "ElementDataFile = LIST 3\nall four.raw\n", "1 to 2 axes"),
    "list_name": (META + "ElementDataFile = LISTING.raw\n", "legal is LIST"),
    "no_size": ("NDims = 3\nElementType = MET_SHORT\nElementDataFile = LIST\n", "DimSize"),
    "huge": (META.replace("2 3 4", "2 3 999999999") + "ElementDataFile = s%d.raw\n", "at most 65536"),
    "huge_list": (META.replace("2 3 4", "2 3 999999999") + "ElementDataFile = LIST\n", "at most 65536"),
    "zero": (META + "ElementDataFile = a\0b.raw\n", "zero byte"),
    "endless": (META + "Comment = " + "x" * (5 << 20), "no end"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_lines_that_cannot_be_followed(name: str, tmp_path: Path) -> None:
    slices(tmp_path)
    text, says = REFUSED[name]
    path = header(tmp_path, "a.mhd", text)
    with pytest.raises(UnreadableError, match=says) as caught:
        data_files_of(path)
    assert caught.value.message.startswith(f"{path}: ")
    with pytest.raises(UnreadableError, match=says):
        read_image(path, InputSettings())


def test_a_step_of_0_in_an_nrrd(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="step must not be 0"):
        data_files_of(header(tmp_path, "a.nhdr", NRRD + "data file: s%d.raw 1 4 0\n"))


def test_a_missing_data_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = header(tmp_path, "a.mhd", META.encode() + b"ElementDataFile = gone\xff.raw\n")
    assert data_files_of(path) == (tmp_path / os.fsdecode(b"gone\xff.raw"),)
    for look in (check_data_files, lambda one: read_image(one, InputSettings())):
        with pytest.raises(
            UnreadableError, match=r"a\.mhd: its data file .*/gone\\xff\.raw cannot be read: No such"
        ):
            look(path)


@given(
    start=st.tuples(st.sampled_from([META, NRRD]), st.sampled_from(["ElementDataFile = ", "data file: "])),
    rest=st.text(st.sampled_from("LIST%d0129- .\n\0x/"), max_size=30).map(str.encode)
    | st.binary(max_size=30),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_line_gives_files_or_an_error(start: tuple[str, str], rest: bytes, tmp_path: Path) -> None:
    for name in ("a.mhd", "a.nhdr"):
        path = header(tmp_path, name, "".join(start).encode() + rest)
        try:
            says = "".join(str(file.parent) for file in data_files_of(path))
        except UnreadableError as error:
            says = error.message
        # Neither a crash nor words that cannot be written.
        assert is_utf8(says) or "/" in os.fsdecode(rest)


PAIR = "Segmentation_ConversionParameters:="


@pytest.mark.parametrize(
    "line", [PAIR + "Smoothing factor: 0.5|".ljust(1121 - len(PAIR), "x"), "content: ".ljust(1121, "x")]
)
def test_a_long_pair_or_description_in_an_nrrd_is_legal(line: str, tmp_path: Path) -> None:
    slices(tmp_path)
    path = header(tmp_path, "a.nhdr", NRRD + line + "\ndata file: all four.raw\n")
    assert data_files_of(path) == (tmp_path / "all four.raw",)
    assert read_image(path, InputSettings()).data[1, 2, 3] == 23


@pytest.mark.parametrize("line", ["space: ".ljust(1121, "x"), "units: a:=".ljust(1121, "x")])
def test_a_long_field_in_an_nrrd_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="a field of 1121 bytes"):
        data_files_of(header(tmp_path, "a.nhdr", NRRD + line + "\ndata file: all four.raw\n"))
