from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epvs_cohort.data.manifest import check_clash, read_manifest, typed_cells
from epvs_cohort.errors import ManifestError
from epvs_cohort.records import Scan


def written(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_all_columns(delimiter: str, mark: bytes, newline: str, tmp_path: Path) -> None:
    lines = [
        "scan,path,subject,session,aseg,aseg_to_scan,mask,ac_slice,age,sex",
        "s1,img/a.nii.gz,007,1,aseg.mgz,t.lta,/abs/mask.nii,12,71,F",
        "s2,b.nii,,,,,,,n/a,M",
    ]
    text = newline.join(line.replace(",", delimiter) for line in lines) + newline
    path = written(tmp_path, mark + text.encode())
    assert read_manifest(path) == (
        Scan(
            key="s1",
            path=tmp_path / "img/a.nii.gz",
            subject="007",
            session="1",
            aseg=tmp_path / "aseg.mgz",
            aseg_to_scan=tmp_path / "t.lta",
            mask=Path("/abs/mask.nii"),
            ac_slice=12,
            covariates={"age": 71, "sex": "F"},
        ),
        Scan(key="s2", path=tmp_path / "b.nii", covariates={"age": None, "sex": "M"}),
    )


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2"], (1, 2)),
        (["1", "", "3"], (1, None, 3)),
        (["1", "2.5"], (1.0, 2.5)),
        (["1e3", "-.5"], (1000.0, -0.5)),
        (["007", "12"], ("007", "12")),
        (["0", "-3", "+4"], (0, -3, 4)),
        (["0.5", "00.5"], ("0.5", "00.5")),
        (["true", "false"], ("true", "false")),
        (["1", "x"], ("1", "x")),
        (["n/a", "NA", ""], (None, None, None)),
        (["inf", "1"], ("inf", "1")),
        (["1_000", "2"], ("1_000", "2")),
        (["١", "٢"], ("١", "٢")),
        (["12345678901234567890"], ("12345678901234567890",)),
        (["1,5", "2"], ("1,5", "2")),
    ],
)
def test_one_type_for_each_column(cells: list[str], expected: tuple[object, ...]) -> None:
    found = typed_cells(cells)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


BAD: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("empty",)),
    "empty_first_line": ("\nscan,path\n", ("header",)),
    "no_rows": ("scan,path\n", ("no scan", "only a header")),
    "no_path": ("scan,file\na,b\n", ("line 1", "no column path", "file", "ac_slice")),
    "neither": ("id,file\na,b\n", ("no column scan and path",)),
    "doubled_scan": ("scan,path\na,1\nb,2\na,3\n", ("line 4", "'a'", "line 2")),
    "nameless_scan": ("scan,path\n,1\n", ("line 2", "no name")),
    "blank_scan": ('scan,path\n"  ",1\nb,2\n', ("line 2", "no name")),
    "empty_path": ("scan,path\na,\n", ("line 2", "'a' has no path")),
    "doubled_column": ("scan,path,age,age\na,1,2,3\n", ("'age'", "2 times")),
    "nameless_column": ("scan,path,\na,1,2\n", ("''",)),
    "ragged": ("scan,path\na,1\nb,2,3\nc\n", ("line 3: 3 cells", "line 4: 1 cells", "has 2")),
    "ac_slice": (
        "scan,path,ac_slice\na,1,-3\nb,2,1.5\nc,3,x\n",
        ("line 2", "'-3'", "line 3", "line 4", "from 0"),
    ),
    "not_utf8": (b"scan,path\na,1\nM\xfcller,2\n", ("line 3", "0xfc", "UTF-8")),
    "path_not_utf8": (b"scan,path\na,1\nb,bad\xff.nii.gz\n", ("line 3", "0xff", "UTF-8")),
    "surrogate": (b"scan,path\na,bad\xed\xb3\xbf.nii\n", ("line 2", "0xed", "UTF-8")),
    "zero_byte": (b"scan,path\na\x00,1\n", ("line 2", "zero byte")),
    "open_quote": ('scan,path\n"a,1\nb,2\n', ("line", "malformed")),
    "text_behind_quote": ('scan,path\n"a"b,1\n', ("line 2", "malformed")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_manifest_names_file_line_and_finding(name: str, tmp_path: Path) -> None:
    content, says = BAD[name]
    path = written(tmp_path, content)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert caught.value.message.startswith(f"{path}: ")
    for words in says:
        assert words in caught.value.message
    assert caught.value.exit_code == 3


def test_paths_of_a_relative_manifest_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    written(tmp_path / "in", "scan,path,aseg,aseg_to_scan,mask\na,x/a.nii,b.mgz,c.lta,../d.nii\n")
    monkeypatch.chdir(tmp_path)
    (scan,) = read_manifest(Path("in/m.csv"))
    assert (scan.path, scan.aseg) == (tmp_path / "in/x/a.nii", tmp_path / "in/b.mgz")
    assert (scan.aseg_to_scan, scan.mask) == (tmp_path / "in/c.lta", tmp_path / "in/../d.nii")


def test_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"m\.csv: cannot be read"):
        read_manifest(tmp_path / "m.csv")


def test_ten_faults_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    rows = "".join(f"s{number},\n" for number in range(25))
    with pytest.raises(ManifestError) as caught:
        read_manifest(written(tmp_path, "scan,path\n" + rows))
    assert caught.value.message.count("has no path") == 10
    assert "and 15 more" in caught.value.message


def test_lines_are_counted_through_blank_lines_and_quoted_newlines(tmp_path: Path) -> None:
    text = 'scan,path,note\n\na,1,"two\nlines"\n\nb,,x\n'
    with pytest.raises(ManifestError, match="line 6: scan 'b'"):
        read_manifest(written(tmp_path, text))


def test_clash_with_a_column_of_the_counts(tmp_path: Path) -> None:
    check_clash(tmp_path, ["age"], frozenset({"count"}))
    with pytest.raises(ManifestError, match="count"):
        check_clash(tmp_path, ["age", "count"], frozenset({"count"}))


WORDS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Z")) | st.sampled_from(',;\t"\n é'), min_size=1, max_size=8
).filter(lambda word: word.strip() == word and word != "")
VALUES = {
    "whole": st.none() | st.integers(-(10**17), 10**17),
    "real": st.none() | st.floats(-1e6, 1e6).filter(lambda value: not 0 < abs(value) < 1e-6),
    "words": st.none() | WORDS.map(lambda word: f"w{word}"),
}
ROWS = st.lists(st.fixed_dictionaries({"scan": WORDS, "path": WORDS, **VALUES}), min_size=1, max_size=6)


@given(rows=ROWS, delimiter=st.sampled_from(",;\t"))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(
    rows: list[dict[str, str | int | float | None]], delimiter: str, tmp_path: Path
) -> None:
    rows = list({row["scan"]: row for row in rows}.values())
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["scan", "path", *VALUES], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    scans = read_manifest(written(tmp_path, text.getvalue()))
    assert [scan.key for scan in scans] == [row["scan"] for row in rows]
    assert [scan.path for scan in scans] == [tmp_path / str(row["path"]) for row in rows]
    for name in VALUES:
        assert [scan.covariates[name] for scan in scans] == [row[name] for row in rows]


@given(
    content=st.binary(max_size=200)
    | st.text(st.sampled_from('scanpath,;\t"\n\r01.n/a'), max_size=80).map(str.encode)
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_else_is_a_manifest_error(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, b"scan,path\n" + content)
    try:
        scans = read_manifest(path)
    except ManifestError:
        return
    assert scans
    assert len({scan.key for scan in scans}) == len(scans)
