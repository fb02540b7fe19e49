"""What the script of the cohort report is given: the tables by columns, as plain values that JSON can hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.tables import DECISION_COLUMNS
from epvs_cohort.report.cohort_groups import Grouping, groupings
from epvs_cohort.report.cohort_mosaic import ACROSS, DOWN, THUMB
from epvs_cohort.report.cohort_outliers import Look, look_first
from epvs_cohort.report.measure_words import column_words, flag_words, measure_words

#: Columns of the table of counts that say the same of every scan, serve programs only or are shown another way.
_LEFT_OUT: Final = frozenset(
    {
        "count_target", "method", "flags", "notes", "grid_from_native", "input_sha256", "protocol_id", "model_id",
        "trained_on", *(column.name for column in DECISION_COLUMNS),
    }
)  # fmt: skip
#: Columns of a lesion in the view of a scan, in their order.
LESION_FIELDS: Final = (
    "lesion", "region", "hemisphere", "peak_heat", "component_mm3", "in_ac_slice", "x_mm", "y_mm", "z_mm", "mni_x_mm",
    "mni_y_mm", "mni_z_mm",
)  # fmt: skip


@dataclass(frozen=True)
class Reviewed:
    """A cohort as the report shows it.

    Attributes
    ----------
    cohort : Cohort
    measures : DataFrame
        A row a scan, in the order of the table of counts, a column a quality measure.
    flags : list of list of str
        Of each scan, in words.
    looks : list of Look
    groupings : list of Grouping
    decisions : mapping of str to Decision
    """

    cohort: Cohort
    measures: pd.DataFrame
    flags: list[list[str]]
    looks: list[Look]
    groupings: list[Grouping]
    decisions: Mapping[str, Decision]

    @property
    def rejected(self) -> frozenset[str]:
        """Scans that somebody rejected: shown, but in no figure about the cohort's counts."""
        return frozenset(key for key, decision in self.decisions.items() if decision.verdict == "reject")


def review(cohort: Cohort, decisions: Mapping[str, Decision]) -> Reviewed:
    """Work out of the tables all that the report says beside what stands in them."""
    scans = cohort.scans
    known = cohort.qc.dropna(subset=["value"]).drop_duplicates(["scan", "measure"])
    measures = known.pivot(index="scan", columns="measure", values="value")
    measures = measures.reindex(index=scans["scan"], columns=list(dict.fromkeys(known["measure"])))
    flags = _flags(cohort)
    not_covariates = column_words(_regions(cohort)).keys() | _LEFT_OUT
    covariates = [name for name in scans.columns if name not in not_covariates]
    looks = look_first(scans, measures, flags)
    reviewed = Reviewed(cohort, measures, flags, looks, [], decisions)
    kept = scans.assign(count=scans["count"].where(~scans["scan"].isin(reviewed.rejected)))
    return replace(reviewed, groupings=groupings(kept, covariates))


def _regions(cohort: Cohort) -> tuple[str, ...]:
    return tuple(cohort.about["protocol"]["roi"]["regions"])


def _flags(cohort: Cohort) -> list[list[str]]:
    said: dict[str, list[str]] = {}
    outside = cohort.qc[cohort.qc["passed"].eq(False)]
    for key, measure, value, unit, low, high in zip(
        *(outside[name].tolist() for name in ("scan", "measure", "value", "unit", "low", "high")), strict=True
    ):
        words = flag_words(str(measure), float(value), str(unit or ""), (_bound(low), _bound(high)))
        said.setdefault(str(key), []).append(words)
    return [
        said.get(str(key)) or [str(flag) for flag in flags]
        for key, flags in zip(cohort.scans["scan"], cohort.scans["flags"], strict=True)
    ]


def _bound(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def payload(
    reviewed: Reviewed, *, study: str, packs: Sequence[int], placed: Sequence[int | None]
) -> dict[str, Any]:
    """Everything but pictures and lesions, which lie in packs.

    Parameters
    ----------
    study : str
        Under which the browser keeps decisions.
    packs : sequence of int
        Number of the pack of each scan.
    placed : sequence of int or None
        Place of each scan on the sheets of small pictures.
    """
    cohort, scans = reviewed.cohort, reviewed.cohort.scans
    words = column_words(_regions(cohort))
    columns = [
        {
            "name": name,
            "unit": words.get(name, ("", ""))[0],
            "about": words.get(name, ("", "Covariate of the input"))[1],
            "kind": "number" if _is_number(scans[name]) else "text",
            "values": [_plain(value) for value in scans[name].tolist()],
        }
        for name in scans.columns
        if name not in _LEFT_OUT
    ]
    return {
        "study": study,
        "columns": columns,
        "measures": _measures(reviewed),
        "flags": reviewed.flags,
        "notes": [[str(note) for note in notes] for notes in scans["notes"]],
        "groupings": [
            {"column": each.column, "names": each.names, "of": each.of, "sentence": each.sentence}
            for each in reviewed.groupings
        ],
        # Pairs: an object of the script would take a scan named __proto__ for its own.
        "decisions": [[key, vars(decision)] for key, decision in reviewed.decisions.items()],
        "packs": packs,
        "placed": placed,
        "sheet": {"thumb": THUMB, "across": ACROSS, "down": DOWN},
        "lesion_fields": LESION_FIELDS,
    }


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _measures(reviewed: Reviewed) -> list[dict[str, Any]]:
    first = reviewed.cohort.qc.drop_duplicates("measure").set_index("measure")
    found = []
    for name in reviewed.measures.columns:
        title, meaning = measure_words(str(name))
        row = first.loc[name]
        found.append(
            {
                "name": name,
                "title": title,
                "about": meaning,
                "unit": _plain(row["unit"]) or "",
                "low": _plain(row["low"]),
                "high": _plain(row["high"]),
                "values": [_plain(value) for value in reviewed.measures[name].tolist()],
            }
        )
    return found


def _plain(value: object) -> str | int | float | None:
    """Value as JSON holds it: unknown is null, numbers with six digits, anything else its text."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        real = float(value)
        if not math.isfinite(real):
            return None
        short = float(f"{real:.6g}")
        return int(short) if short.is_integer() else short
    return str(value)


def lesion_rows(lesions: pd.DataFrame) -> dict[str, list[list[Any]]]:
    """Lesions of each scan, a list of ``LESION_FIELDS`` each."""
    rows: dict[str, list[list[Any]]] = {}
    columns = [lesions[name].tolist() for name in LESION_FIELDS]
    for key, *fields in zip(lesions["scan"].tolist(), *columns, strict=True):
        rows.setdefault(str(key), []).append([_plain(field) for field in fields])
    return rows


def study_id(path: Path) -> str:
    """Name under which a browser keeps decisions: of the table's place, so that the next report finds them again."""
    return hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def script_json(value: object) -> str:
    r"""JSON that is safe within a script element and within a script file, whatever text it holds.

    >>> script_json("</script>&\u2028")
    '"\\u003c/script\\u003e\\u0026\\u2028"'
    """
    # ASCII alone: lone surrogates and line separators stay escaped, so any bytes of a file name survive.
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
