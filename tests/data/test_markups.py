"""Markups of 3D Slicer: both coordinate systems, units, patterns of names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epvs_cohort.data.markups import is_markups, read_markup, read_markups
from epvs_cohort.errors import CountsError


def write(path: Path, points: list[list[float]], **markup: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    controls = [
        {"id": str(n), "label": f"F-{n}", "position": point} for n, point in enumerate(points, start=1)
    ]
    content = {
        "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": controls, **markup}]
    }
    path.write_text(json.dumps(content))
    return path


def test_lps_is_turned_into_ras_and_ras_stays(tmp_path: Path) -> None:
    points = [[10.0, -20.0, 30.0], [1.0, 2.0, -3.0]]
    assert read_markup(write(tmp_path / "a.mrk.json", points)).tolist() == [
        [-10.0, 20.0, 30.0],
        [-1.0, -2.0, -3.0],
    ]
    assert read_markup(write(tmp_path / "b.mrk.json", points, coordinateSystem="RAS")).tolist() == points


def test_without_a_word_of_it_coordinates_are_lps_and_mm(tmp_path: Path) -> None:
    path = tmp_path / "a.mrk.json"
    path.write_text(
        json.dumps({"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2, 3]}]}]})
    )
    assert read_markup(path).tolist() == [[-1.0, -2.0, 3.0]]


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("um", 0.001), (["mm", "UCUM", "millimeter"], 1.0)])
def test_units_are_honoured(tmp_path: Path, unit: object, scale: float) -> None:
    path = write(tmp_path / "a.mrk.json", [[1000.0, 0, 0]], coordinateSystem="RAS", coordinateUnits=unit)
    assert read_markup(path)[0, 0] == pytest.approx(1000.0 * scale)


def test_points_that_were_begun_but_not_placed_are_left_out(tmp_path: Path) -> None:
    controls = [
        {"position": [1, 2, 3], "positionStatus": "defined"},
        {"position": [0, 0, 0], "positionStatus": "undefined"},
        {"positionStatus": "preview", "position": []},
    ]
    assert len(read_markup(write(tmp_path / "a.mrk.json", [], controlPoints=controls))) == 1


def test_a_file_without_a_point_is_a_scan_without_a_lesion(tmp_path: Path) -> None:
    write(tmp_path / "a.mrk.json", [])
    assert read_markups([str(tmp_path / "*.mrk.json")], ["a"]).points["a"].shape == (0, 3)


def test_several_lists_of_one_file_are_one_scan(tmp_path: Path) -> None:
    lists = [
        {"type": "Fiducial", "coordinateSystem": system, "controlPoints": [{"position": [1, 1, 1]}]}
        for system in ("LPS", "RAS")
    ]
    path = tmp_path / "a.mrk.json"
    path.write_text(json.dumps({"markups": lists}))
    assert read_markup(path).tolist() == [[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]


def test_files_are_found_by_name_or_by_the_place_of_the_key(tmp_path: Path) -> None:
    write(tmp_path / "plain" / "sub-1_T2w.mrk.json", [[1, 0, 0]])
    write(tmp_path / "plain" / "other.mrk.json", [[1, 0, 0]])
    write(tmp_path / "deep" / "sub-1_T2w" / "F_AB.mrk.json", [[2, 0, 0]])
    keys = ["sub-1_T2w", "sub-2_T2w"]
    by_name = read_markups([str(tmp_path / "plain" / "*.mrk.json")], keys)
    assert list(by_name.points) == ["sub-1_T2w"]
    assert [path.name for path in by_name.strays] == ["other.mrk.json"]
    by_place = read_markups([str(tmp_path / "deep" / "{scan}" / "*.mrk.json")], keys)
    assert by_place.points["sub-1_T2w"].tolist() == [[-2.0, 0.0, 0.0]]
    one = read_markups([str(tmp_path / "plain" / "sub-1_T2w.mrk.json")], keys)
    assert list(one.points) == ["sub-1_T2w"]


def test_keys_with_slashes_and_brackets_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "p1" / "pd [2].mrk.json", [[1, 0, 0]])
    assert list(read_markups([f"{tmp_path}/{{scan}}.mrk.json"], ["p1/pd [2]"]).points) == ["p1/pd [2]"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no readable JSON"),
        ("[]", "no list named markups"),
        ({"markups": [{"type": "Line"}]}, r"markup 1: type 'Line'; 'Fiducial'"),
        (
            {"markups": [{"type": "Fiducial", "coordinateSystem": "IJK"}]},
            r"coordinate system 'IJK'; LPS and RAS",
        ),
        ({"markups": [{"type": "Fiducial", "coordinateUnits": "inch"}]}, r"unit 'inch'.*mm and um are legal"),
        (
            {"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2]}]}]},
            r"position \[1, 2\]; three",
        ),
        ({"markups": [{"type": "Fiducial", "controlPoints": [{"label": "x"}]}]}, r"'x': position None"),
        (
            {"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2, float("nan")]}]}]},
            r"position",
        ),
        (
            {"markups": [{"type": "Fiducial", "controlPoints": [{"position": [10**400, 2, 3]}]}]},
            r"position \[10{38} \.\.\. .*three numbers of at most 1e\+09",
        ),
        ("[" * 200_000, r"nested too deep"),
    ],
)
def test_what_is_no_list_of_points_is_refused(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "a.mrk.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CountsError, match=words) as raised:
        read_markup(path)
    assert str(path) in raised.value.message


def test_names_that_do_not_tell_the_scan_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mrk.json", [])
    write(tmp_path / "ab.mrk.json", [])
    with pytest.raises(CountsError, match="of scan 'a', as is"):
        read_markups([str(tmp_path / "{scan}*.mrk.json")], ["a"])
    (tmp_path / "a.mrk.json").unlink()
    with pytest.raises(CountsError, match="fits scan 'a' and scan 'ab'"):
        read_markups([str(tmp_path / "{scan}*.mrk.json")], ["a", "ab"])
    with pytest.raises(CountsError, match="no such file"):
        read_markups([str(tmp_path / "x*.mrk.json")], ["a"])
    with pytest.raises(CountsError, match="no such file for any of the 1 scans"):
        read_markups([str(tmp_path / "{scan}_no.mrk.json")], ["a"])
    assert is_markups("a/{scan}.mrk.json")
