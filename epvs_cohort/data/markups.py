"""Points marked in 3D Slicer: ``*.mrk.json`` files, one a scan."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any, Final

import numpy as np

from epvs_cohort.errors import CountsError
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray, apply_affine

ENDING: Final = ".mrk.json"
#: Stands for the key of the scan in a pattern of file names.
KEY: Final = "{scan}"
#: What points of one of these kinds mean is a place; a line or a curve has points too, which are none.
_KIND: Final = "Fiducial"
#: Position statuses (Slicer's markups schema 1.0.3) of points that were begun, but lie nowhere.
_UNPLACED: Final = frozenset({"undefined", "preview"})
#: Of a coordinate, in any unit: a kilometre, in micrometres.
_FARTHEST: Final = 1e9
#: Characters of a value that an error shows.
_MOST_SHOWN: Final = 80
_MM: Final = {"mm": 1.0, "um": 0.001}


@dataclass(frozen=True)
class Markups:
    """Points of the scans whose files were found.

    Attributes
    ----------
    points : mapping of str to ndarray, shape (N, 3)
        Scan key to native RAS mm; N = 0 where a file holds no point.
    strays : tuple of Path
        Files that are of none of the scans.
    """

    points: Mapping[str, FloatArray]
    strays: tuple[Path, ...]


def is_markups(pattern: str) -> bool:
    """Whether a path or pattern is of Slicer's markups.

    >>> is_markups("marks/*.mrk.json"), is_markups("points.csv")
    (True, False)
    """
    return pattern.endswith(ENDING)


def read_markups(patterns: Sequence[str], keys: Iterable[str]) -> Markups:
    """Read the markups of scans.

    Parameters
    ----------
    patterns : sequence of str
        Paths, with ``*``, ``?`` and ``**`` as in a shell. Where ``{scan}`` stands, once or more often, it is the key
        of the scan; without it the file is named ``<key>.mrk.json``.
    keys : iterable of str
        Keys of the scans.

    Raises
    ------
    CountsError
        No file is found, two are of one scan, or one cannot be read.
    """
    known = sorted(set(keys))
    found: dict[str, Path] = {}
    for pattern in patterns:
        own = _by_scan(pattern, known) if KEY in pattern else _by_name(pattern, known)
        for key, path in own:
            if found.setdefault(key, path) != path:
                raise CountsError(f"{path}: of scan {key!r}, as is {found[key]}; one file a scan is legal")
    _check_shared(found)
    taken = set(found.values())
    everything = {Path(name) for pattern in patterns for name in _glob(pattern.replace(KEY, "*"))}
    return Markups({key: read_markup(path) for key, path in found.items()}, tuple(sorted(everything - taken)))


def _glob(pattern: str) -> list[str]:
    return [pattern] if os.path.isfile(pattern) else sorted(glob(pattern, recursive=True))


def _by_scan(pattern: str, keys: Sequence[str]) -> list[tuple[str, Path]]:
    """Key and file of each scan that has one."""
    found = [(key, Path(name)) for key in keys for name in _glob(pattern.replace(KEY, escape(key)))]
    if not found:
        raise CountsError(
            f"{pattern}: no such file for any of the {len(keys)} scans",
            hint=f"{KEY} stands for the key of a scan",
        )
    return found


def _by_name(pattern: str, keys: Sequence[str]) -> list[tuple[str, Path]]:
    """Files whose names are the keys of scans."""
    files = [Path(name) for name in _glob(pattern)]
    if not files:
        raise CountsError(
            f"{pattern}: no such file", hint="quote a pattern, so that the shell leaves it alone"
        )
    known = set(keys)
    return [(key, path) for path in files if (key := path.name.removesuffix(ENDING)) in known]


def _check_shared(found: Mapping[str, Path]) -> None:
    owner: dict[Path, str] = {}
    for key, path in found.items():
        if owner.setdefault(path, key) != key:
            raise CountsError(
                f"{path}: fits scan {owner[path]!r} and scan {key!r}",
                hint=f"name files so that {KEY} is seen at once",
            )


def read_markup(path: Path) -> FloatArray:
    """Read the points of one file, (N, 3) in RAS mm.

    The coordinate system and unit are those that the file names, LPS and mm where it names none (the defaults of
    Slicer's schema of markups). Points without a position are left out.

    Raises
    ------
    CountsError
        The file cannot be read, is no markups file, holds a line, a curve or the like in place of points, another
        coordinate system than LPS or RAS, another unit than mm or um, or a position that is not three numbers.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError as error:
        raise CountsError(f"{path}: no readable JSON: nested too deep") from error
    except (OSError, ValueError) as error:
        raise CountsError(f"{path}: no readable JSON: {error}") from error
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not all(isinstance(each, dict) for each in lists):
        raise CountsError(f"{path}: no list named markups; a file that 3D Slicer saved as {ENDING} is legal")
    points = [point for number, each in enumerate(lists, start=1) for point in _points(path, number, each)]
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def _points(path: Path, number: int, markup: Mapping[str, Any]) -> list[list[float]]:
    where = f"{path}: markup {number}"
    if (kind := markup.get("type")) != _KIND:
        raise CountsError(f"{where}: type {kind!r}; {_KIND!r}, a list of points, is legal")
    system = markup.get("coordinateSystem", "LPS")
    if system not in ("LPS", "RAS"):
        raise CountsError(f"{where}: coordinate system {system!r}; LPS and RAS are legal")
    scale = _scale(where, markup.get("coordinateUnits", "mm"))
    points = markup.get("controlPoints", [])
    if not isinstance(points, list) or not all(isinstance(each, dict) for each in points):
        raise CountsError(f"{where}: controlPoints is no list of points")
    placed = [point for point in points if point.get("positionStatus", "defined") not in _UNPLACED]
    found = np.array([_position(where, each) for each in placed], dtype=np.float64).reshape(-1, 3) * scale
    rows: list[list[float]] = (apply_affine(LPS_FROM_RAS, found) if system == "LPS" else found).tolist()
    return rows


def _scale(where: str, unit: object) -> float:
    """Mm in a unit; a coded one is a list of code, scheme and meaning."""
    code = unit[0] if isinstance(unit, list) and unit else unit
    if not isinstance(code, str) or code not in _MM:
        raise CountsError(f"{where}: unit {unit!r} of the coordinates; {' and '.join(_MM)} are legal")
    return _MM[code]


def _position(where: str, point: Mapping[str, Any]) -> list[float]:
    position = point.get("position")
    if (
        isinstance(position, list)
        and len(position) == 3
        and all(type(each) in (int, float) and abs(each) <= _FARTHEST for each in position)
    ):
        return [float(each) for each in position]
    raise CountsError(
        f"{where}: point {point.get('label', '')!r}: position {_short(position)}; three numbers of at most "
        f"{_FARTHEST:g} are legal"
    )


def _short(value: object) -> str:
    """How a value is written, its middle left out where that is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} ... {text[-_MOST_SHOWN // 2 :]}"
