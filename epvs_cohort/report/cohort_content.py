"""What stands on the page of a cohort report before any script runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import VERDICTS
from epvs_cohort.geometry import FloatArray
from epvs_cohort.report.cohort_brief import answers
from epvs_cohort.report.cohort_drift import drifts, outliers
from epvs_cohort.report.cohort_maps import density_map, region_rows, sides_sentence
from epvs_cohort.report.cohort_methods import cited, facts, methods_text, model_words
from epvs_cohort.report.cohort_payload import Reviewed
from epvs_cohort.report.measure_words import measure_words, number, unit_words

#: Failed scans that the page names; the table holds all.
MOST_FAILED: Final = 40


def page_content(reviewed: Reviewed) -> Mapping[str, Any]:
    """Values of the page's template, but for its script, style, policy and data."""
    cohort = reviewed.cohort
    trained_on, limits = model_words(cohort.about)
    methods = methods_text(cohort)
    keys = cohort.scans["scan"].tolist()
    return {
        "tiles": _tiles(reviewed),
        "answers": answers(reviewed),
        "finished": cohort.finished,
        "trained_on": trained_on,
        "limits": limits,
        "facts": facts(cohort),
        "failures": _failures(cohort),
        "most_failed": MOST_FAILED,
        "flagged": _flagged(reviewed),
        "looks": [(keys[look.row], look.reasons) for look in reviewed.looks],
        "drifts": drifts(cohort.scans, reviewed.measures),
        "outliers": outliers(cohort.scans, reviewed.measures),
        **_places(reviewed),
        "methods": methods,
        "references": cited(methods),
        "n": len(keys),
    }


def _flagged(reviewed: Reviewed) -> list[tuple[str, int, str]]:
    """Measure out of bounds, in how many scans, and the first bound that was broken, the commonest measure first."""
    qc = reviewed.cohort.qc
    outside = qc[qc["passed"].eq(False)]
    found = []
    for measure, rows in outside.groupby("measure"):
        row = rows.iloc[0]
        after = unit_words(str(row["unit"] or ""))
        bounds = [
            f"{word} {number(float(row[side]))}{after}"
            for word, side in (("at least", "low"), ("at most", "high"))
            if pd.notna(row[side])
        ]
        found.append((measure_words(str(measure))[0], len(rows), " and ".join(bounds)))
    return sorted(found, key=lambda each: -each[1])


def kept_lesions(reviewed: Reviewed) -> tuple[FloatArray, int]:
    """Centres of lesions in MNI mm, shape (N, 3), of counted scans that nobody rejected, and how many scans."""
    kept, lesions = _kept(reviewed)
    return lesions[["mni_x_mm", "mni_y_mm", "mni_z_mm"]].dropna().to_numpy(dtype=np.float64), len(kept)


def _kept(reviewed: Reviewed) -> tuple[pd.DataFrame, pd.DataFrame]:
    scans = reviewed.cohort.scans
    kept = scans[scans["count"].notna() & ~scans["scan"].isin(reviewed.rejected)]
    lesions = reviewed.cohort.lesions
    return kept, lesions[lesions["scan"].isin(set(kept["scan"]))]


def _places(reviewed: Reviewed) -> dict[str, Any]:
    """Where the lesions lie."""
    kept, lesions = _kept(reviewed)
    return {
        "density": density_map(*kept_lesions(reviewed)),
        "sides": sides_sentence(kept),
        "regions": region_rows(lesions, reviewed.cohort.about["protocol"]["roi"]["regions"]),
    }


def _tiles(reviewed: Reviewed) -> list[tuple[str, str, str, str]]:
    """Name, figure, explanation, and the status whose scans it counts (empty where it counts others)."""
    cohort = reviewed.cohort
    numbers = cohort.scans["status"].value_counts()
    n = {name: f"{int(numbers.get(name, 0))}" for name in ("ok", "flagged", "failed")}
    counts = cohort.scans["count"].dropna()
    keys = set(cohort.scans["scan"])
    verdicts = [decision.verdict for key, decision in reviewed.decisions.items() if key in keys]
    done = "" if cohort.finished else f"{len(cohort.scans)} done so far"
    tiles = [
        ("Scans asked for", f"{cohort.n_asked}", done, ""),
        ("Counted, ok", n["ok"], "every quality measure within bounds", "ok"),
        ("Counted, flagged", n["flagged"], "a quality measure is out of bounds", "flagged"),
        ("Failed", n["failed"], "no count; the reason is below", "failed"),
    ]
    if len(counts):
        low, high = counts.quantile([0.25, 0.75])
        middle = f"lesions; middle half {low:.1f} to {high:.1f}"
        tiles.append(("Median count", f"{counts.median():.1f}", middle, ""))
    if verdicts:
        said = ", ".join(f"{verdicts.count(name)} {name}" for name in VERDICTS)
        tiles.append(("Decided by people", f"{len(verdicts)}", said, ""))
    return tiles


def _failures(cohort: Cohort) -> list[dict[str, Any]]:
    """Failed scans by kind, the commonest kind first."""
    failed = cohort.scans[cohort.scans["status"] == "failed"]
    kinds = []
    for (stage, kind), rows in failed.groupby(["stage", "error_kind"], dropna=False):
        hints = [hint for hint in rows["hint"].unique() if isinstance(hint, str)]
        kinds.append(
            {
                "kind": str(kind).replace("_", " "),
                "stage": str(stage),
                "n": len(rows),
                "hints": hints[:3],
                "scans": list(zip(rows["scan"].tolist(), rows["error_message"].tolist(), strict=True)),
            }
        )
    return sorted(kinds, key=lambda kind: -int(kind["n"]))
