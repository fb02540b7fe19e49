"""What ``epvs-cohort evaluate`` compares: tables, readers' counts and marks, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epvs_cohort.data.counts import read_readings
from epvs_cohort.data.decisions import decisions_in, read_decisions
from epvs_cohort.data.manifest import read_table
from epvs_cohort.data.markups import is_markups, read_markups
from epvs_cohort.errors import UsageError
from epvs_cohort.train.points import read_points

if TYPE_CHECKING:
    from epvs_cohort.compare.evaluate import EvaluateInput
    from epvs_cohort.compare.marked import Reach
    from epvs_cohort.data.cohort_tables import Cohort
    from epvs_cohort.data.decisions import Decision
    from epvs_cohort.geometry import FloatArray


#: Columns that an evaluation needs.
_OF_COUNTS: Final = (
    "scan", "subject", "session", "status", "count", "flags", "notes", "error_message", "scanner", "grid_from_native",
    "input_sha256",
)  # fmt: skip
_OF_LESIONS: Final = (
    "scan", "lesion", "x_mm", "y_mm", "z_mm", "ac_x_mm", "ac_y_mm", "ac_z_mm", "mni_x_mm", "mni_y_mm", "mni_z_mm",
    "in_ac_slice", "peak_heat", "mean_heat",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluateFiles:
    """The files that the command line names.

    Attributes
    ----------
    points : tuple of str
        One table, or paths and patterns of Slicer's markups.
    same_reader : tuple of str
        ``NAME=READER``: counts under NAME are another reading of READER.
    """

    table: Path
    counts: Path
    points: tuple[str, ...] = ()
    same_reader: tuple[str, ...] = ()
    rescan: Path | None = None
    rescan_pairs: Path | None = None
    decisions: Path | None = None
    participants: Path | None = None

    @property
    def words(self) -> Mapping[str, str]:
        """Option to what it names, for the record; what was not given is not there."""
        named = {name: value for name, value in vars(self).items() if value}
        return {
            name.replace("_", "-"): ", ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in named.items()
        }


def read_inputs(files: EvaluateFiles) -> EvaluateInput:
    """Read all that is compared.

    Raises
    ------
    EpvsError
        A file cannot be read, or holds what is not legal.
    """
    from epvs_cohort.compare.evaluate import EvaluateInput
    from epvs_cohort.compare.readers import reader_counts
    from epvs_cohort.compare.rescan import read_pairs

    if files.rescan_pairs is not None and files.rescan is None:
        raise UsageError(
            "--rescan-pairs names pairs with the scans of another table: legal with --rescan only"
        )
    cohort = _cohort(files.table)
    return EvaluateInput(
        cohort=cohort,
        readers=reader_counts(read_readings(files.counts), same_readers(files.same_reader)),
        points=_points(files.points, cohort) if files.points else None,
        rescan=_second(files),
        rescan_pairs=None if files.rescan_pairs is None else read_pairs(files.rescan_pairs),
        decisions=_decisions(files, cohort),
        participants=None if files.participants is None else read_table(files.participants),
    )


def _decisions(files: EvaluateFiles, cohort: Cohort) -> Mapping[str, Decision] | None:
    """Of the file that is named, else of the table, where its run was given decisions."""
    if files.decisions is not None:
        return read_decisions(files.decisions)
    return decisions_in(cohort.scans) or None


def _cohort(path: Path) -> Cohort:
    from epvs_cohort.data.cohort_tables import read_cohort

    if path.suffix != ".parquet":
        raise UsageError(f"{path}: no table of counts: run writes it as a file ending in .parquet")
    cohort = read_cohort(path)
    if cohort.scans.empty:
        raise UsageError(f"{path}: no scan in it yet", hint="count some with epvs-cohort run")
    for name, frame, needed in (
        ("counts", cohort.scans, _OF_COUNTS),
        ("lesions", cohort.lesions, _OF_LESIONS),
    ):
        if missing := [column for column in needed if column not in frame.columns]:
            raise UsageError(
                f"{path}: the table of {name} has no column {', '.join(missing)}; version "
                f"{cohort.about.get('version', 'unknown')} of epvs-cohort wrote it",
                hint="count the scans again with this version: epvs-cohort run with a new --out",
            )
    return cohort


def _second(files: EvaluateFiles) -> Cohort | None:
    if files.rescan is None:
        return None
    if files.rescan.resolve() == files.table.resolve() and files.rescan_pairs is None:
        raise UsageError(
            f"--rescan {files.rescan}: the same table as the first, in which every scan would be its own pair",
            hint="where one table holds both visits, --rescan-pairs FILE names its pairs (columns scan, rescan)",
        )
    return _cohort(files.rescan)


def _points(patterns: Sequence[str], cohort: Cohort) -> Mapping[str, FloatArray]:
    markups = [is_markups(pattern) for pattern in patterns]
    if not any(markups):
        if len(patterns) > 1:
            raise UsageError(f"--points: {len(patterns)} tables; one table, or several *.mrk.json, is legal")
        return read_points(Path(patterns[0]), cohort.about["count_target"])
    if not all(markups):
        raise UsageError("--points: a table and *.mrk.json at once; one or the other is legal")
    found = read_markups(patterns, [str(key) for key in cohort.scans["scan"]])
    # A file of no scan is kept under its name, so that it is named with the other strangers.
    import numpy as np

    return {**found.points, **{str(path): np.zeros((0, 3)) for path in found.strays}}


def same_readers(texts: Sequence[str]) -> Mapping[str, str]:
    """Names of later readings to the reader whose they are.

    Raises
    ------
    UsageError
        No ``NAME=READER``, or a name twice.

    >>> same_readers(["A again=A"])
    {'A again': 'A'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, reader = (part.strip() for part in text.partition("="))
        if not name or not reader or name == reader or name in found:
            raise UsageError(f"--same-reader {text!r}: NAME=READER, each NAME once, is legal")
        found[name] = reader
    return found


def reach_of(voxels: float | None, mm: float | None) -> Reach:
    """How near lesions must lie to be one.

    Raises
    ------
    UsageError
        Both a distance in voxels and one in mm.
    """
    from epvs_cohort.compare.marked import Reach

    if voxels is not None and mm is not None:
        raise UsageError("--radius is in voxels, --radius-mm in mm: one of them is legal")
    if mm is not None:
        return Reach(mm, "mm")
    return Reach() if voxels is None else Reach(voxels)
