"""Places of lesions that people marked, or a simulator drew: a table ``scan,lesion,x_mm,y_mm,z_mm``, native RAS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from epvs_cohort.data.manifest import Table, read_table
from epvs_cohort.errors import CountsError, ManifestError
from epvs_cohort.geometry import FloatArray
from epvs_cohort.protocol import CountTarget
from epvs_cohort.train.samples import Sample

#: Native RAS mm of the lesions of each marked scan, shape (N, 3).
Points = Mapping[str, FloatArray]

COLUMNS = ("x_mm", "y_mm", "z_mm")
#: Columns of a simulated cohort: whether a lesion crosses the slice, and the middle of its cross-section.
IN_SLICE, SLICE_COLUMNS = "in_ac_slice", ("ac_x_mm", "ac_y_mm", "ac_z_mm")

#: Who marked.
READER = "reader"

#: As other programs write them; pandas makes 1.0 of a 1 beside an empty cell.
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


def read_points(path: Path, target: CountTarget) -> Points:
    """Read places of lesions by scan.

    Parameters
    ----------
    path : Path
    target : {"roi", "ac_slice"}
        With ``ac_slice`` only lesions of that slice are meant: those that ``in_ac_slice`` says, at the middle of their
        cross-section, or all where there is no such column.

    Returns
    -------
    mapping of str to ndarray, shape (N, 3)
        Native RAS mm. A scan of which the table names lesions, but none in the slice, has N = 0.

    Raises
    ------
    CountsError
        The table cannot be read, lacks a column, or holds a row without a scan, a lesion or a place of a scan twice,
        the marks of several readers, a coordinate that is no number, or an ``in_ac_slice`` that is neither 1 nor 0.
    """
    try:
        table = read_table(path)
    except ManifestError as error:
        raise CountsError(error.message, hint=error.hint) from error
    in_slice = target == "ac_slice" and IN_SLICE in table.columns
    wanted = SLICE_COLUMNS if in_slice else COLUMNS
    needed = ("scan", *wanted)
    if missing := [name for name in needed if name not in table.columns]:
        raise CountsError(
            f"{path}: column {missing[0]} is missing; found {', '.join(table.columns)}",
            hint="needed are scan, x_mm, y_mm and z_mm",
        )
    _check_one_reader(table)
    chosen = table.column(IN_SLICE) if in_slice else ("1",) * len(table.rows)
    seen: dict[tuple[str, str], int] = {}
    numbers = table.column("lesion") if "lesion" in table.columns else ("",) * len(table.rows)
    places: dict[str, list[tuple[float, ...]]] = {}
    columns = [table.column(name) for name in needed]
    for (line, _), counts, number, scan, *cells in zip(table.rows, chosen, numbers, *columns, strict=True):
        if not scan:
            raise CountsError(f"{path}: line {line}: the scan has no name")
        if number and (first := seen.setdefault((scan, number), line)) != line:
            raise CountsError(
                f"{path}: line {line}: lesion {number} of scan {scan!r} stands on line {first} already; each once is "
                "legal"
            )
        found = places.setdefault(scan, [])
        if not _is_yes(table, line, counts):
            continue
        place = tuple(_number(table, line, cell) for cell in cells)
        if place in found:
            raise CountsError(
                f"{path}: line {line}: scan {scan!r} has a mark at {', '.join(cells)} already; each place once is legal"
            )
        found.append(place)
    return {scan: np.array(found, dtype=np.float64).reshape(-1, 3) for scan, found in places.items()}


def _check_one_reader(table: Table) -> None:
    """Marks of two readers are no truth of twice as many lesions."""
    readers = sorted(set(table.column(READER))) if READER in table.columns else []
    if len(readers) > 1:
        raise CountsError(
            f"{table.path}: marks of {len(readers)} readers ({', '.join(repr(name) for name in readers[:4])}) in "
            f"column {READER}; those of one are legal",
            hint="keep the rows of one reader, or the lesions that readers agreed on",
        )


def lesions_of(sample: Sample, points: Points) -> FloatArray | None:
    """Lesions of a scan, native RAS mm; None where they are not known, which is not the same as none."""
    found = points.get(sample.key)
    if found is None and sample.count == 0 and points:
        return next(iter(points.values()))[:0]
    return found


def tuning_scans(samples: Sequence[Sample], points: Points, most: int) -> tuple[Sample, ...]:
    """Scans that the weight of method (f) is tuned on: evenly spaced among those with lesions, then those without.

    Parameters
    ----------
    samples : sequence of Sample
        In a fixed order.
    points : mapping of str to ndarray, shape (N, 3)
    most : int
        How many scans at most; without lesions only where fewer have some.

    Returns
    -------
    tuple of Sample
        In the order of ``samples``; empty where no lesion is marked on any.
    """
    lesions = {sample.key: lesions_of(sample, points) for sample in samples}
    number = {key: len(found) for key, found in lesions.items() if found is not None}
    some = _spaced([sample for sample in samples if number.get(sample.key)], most)
    none = _spaced([sample for sample in samples if number.get(sample.key) == 0], most - len(some))
    chosen = {sample.key for sample in (*some, *none)} if some else set()
    return tuple(sample for sample in samples if sample.key in chosen)


def _spaced(samples: Sequence[Sample], most: int) -> list[Sample]:
    n = len(samples)
    return [samples[number * n // min(n, most)] for number in range(min(n, most))]


def _is_yes(table: Table, line: int, cell: str) -> bool:
    if cell.lower() not in YES | NO:
        raise CountsError(
            f"{table.path}: line {line}: {IN_SLICE} is {cell!r}; 1 or 0, true or false are legal"
        )
    return cell.lower() in YES


def _number(table: Table, line: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CountsError(
            f"{table.path}: line {line}: {cell!r} is no coordinate; a finite number of mm is legal"
        )
    return value
