"""Figures on the counts of held-out people: agreement, readers, second visits, ventricles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from epvs_cohort.compare.agreement import count_figures, icc_agreement, slope
from epvs_cohort.compare.bootstrap import IndexArray, bootstrap
from epvs_cohort.geometry import FloatArray

#: Of the resamples.
BOOTSTRAP_SEED = 1


def count_measures(frame: pd.DataFrame) -> dict[str, Any]:
    """Agreement of estimates with the truth: of all, of each anatomy, by thirds of the count.

    Parameters
    ----------
    frame : DataFrame
        Columns scan, subject, status, flags, error_message, anatomy, truth and estimate. Failed scans have no
        estimate: they are named, and left out of what needs one.
    """
    counted = frame[frame["status"] != "failed"]
    unflagged = frame[frame["status"] == "ok"]
    failed, flagged = frame[frame["status"] == "failed"], frame[frame["status"] == "flagged"]
    return {
        "scans": len(frame),
        "mean_truth": float(frame["truth"].mean()),
        "failed": dict(zip(failed["scan"], failed["error_message"], strict=True)),
        "flagged": dict(zip(flagged["scan"], flagged["flags"], strict=True)),
        "all": _agreement(counted),
        "unflagged": _agreement(unflagged),
        "by_anatomy": {name: _agreement(part) for name, part in counted.groupby("anatomy")},
        "thirds": _thirds(counted),
    }


def _agreement(part: pd.DataFrame) -> dict[str, Any] | None:
    """ICC with its interval and the other figures; None where there are fewer than two scans."""
    if len(part) < 2:
        return None
    truth, estimate = part["truth"].to_numpy(np.float64), part["estimate"].to_numpy(np.float64)
    return {
        "scans": len(part),
        **asdict(count_figures(truth, estimate)),
        "icc": _icc(list(part["subject"]), truth, estimate),
    }


def _icc(subjects: list[str], first: FloatArray, second: FloatArray) -> dict[str, Any]:
    pairs = np.stack([first, second], axis=1)
    return _interval(subjects, lambda rows: icc_agreement(pairs[rows]))


def _interval(subjects: list[str], statistic: Callable[[IndexArray], float]) -> dict[str, Any]:
    return asdict(bootstrap(subjects, statistic, seed=BOOTSTRAP_SEED))


def _thirds(counted: pd.DataFrame) -> list[dict[str, Any]]:
    """Errors among the scans with the fewest, middling and most lesions; scans of one count stay together."""
    truth = counted["truth"].to_numpy(np.float64)
    if truth.size == 0:
        return []
    low, high = np.quantile(truth, [1 / 3, 2 / 3])
    error = counted["estimate"].to_numpy(np.float64) - truth
    thirds = (truth <= low, (truth > low) & (truth <= high), truth > high)
    return [
        {
            "counts": [int(truth[part].min()), int(truth[part].max())],
            "scans": int(part.sum()),
            "mae": float(np.abs(error[part]).mean()),
            "bias": float(error[part].mean()),
        }
        for part in thirds
        if part.any()
    ]


def reader_measures(frame: pd.DataFrame, readings: pd.DataFrame) -> dict[str, Any]:
    """ICC(A,1) of the estimate and of a second reading with the first reading of reader A.

    Parameters
    ----------
    frame : DataFrame
        As for `count_measures`.
    readings : DataFrame
        Columns scan, count, reader; readers A, A again and B.
    """
    counted = frame[frame["status"] != "failed"]
    if len(counted) < 2:
        return {"scans": len(counted)}
    wide = readings.pivot(index="scan", columns="reader", values="count").loc[counted["scan"]]
    a, again, b = (wide[name].to_numpy(np.float64) for name in ("A", "A again", "B"))
    truth, estimate = counted["truth"].to_numpy(np.float64), counted["estimate"].to_numpy(np.float64)
    subjects = list(counted["subject"])

    def gain(rows: IndexArray) -> float:
        ours = icc_agreement(np.stack([a, estimate], axis=1)[rows])
        return ours - icc_agreement(np.stack([a, again], axis=1)[rows])

    return {
        "scans": len(counted),
        "icc_estimate_a": _icc(subjects, a, estimate),
        "icc_a_again_a": _icc(subjects, a, again),
        "icc_b_a": _icc(subjects, a, b),
        "icc_a_truth": _icc(subjects, truth, a),
        "icc_estimate_a_above_a_again_a": _interval(subjects, gain),
        "mean_a": float(a.mean()),
    }


def rescan_measures(frame: pd.DataFrame, second: pd.Series[float]) -> dict[str, Any]:
    """ICC(A,1) between the estimates of both visits of each person, where both were counted."""
    pairs = pd.DataFrame(
        {"first": frame["estimate"].to_numpy(), "second": second.reindex(frame["scan"]).to_numpy()}
    )
    kept = pairs.notna().all(axis=1).to_numpy()
    first, again = (pairs.loc[kept, name].to_numpy(np.float64) for name in ("first", "second"))
    if len(first) < 2:
        return {"pairs": len(first)}
    return {
        "pairs": len(first),
        "left_out": list(frame.loc[~kept, "scan"]),
        "icc": _icc(list(frame.loc[kept, "subject"]), first, again),
        "mean_absolute_difference": float(np.abs(first - again).mean()),
        "mean_difference": float((again - first).mean()),
    }


def ventricle_measures(estimate: pd.Series[float], ventricles_ml: pd.Series[float]) -> dict[str, Any]:
    """What the count of lesion-free heads follows: its line over the size of the lateral ventricles.

    The change is the slope times the range, so what the line says from the smallest to the largest ventricles.
    """
    known = estimate.notna()
    y = np.asarray(estimate[known], dtype=np.float64)
    x = np.asarray(ventricles_ml[known], dtype=np.float64)
    failed = list(estimate.index[~known])
    if len(x) < 2:
        return {"scans": len(x), "failed": failed}
    span = float(x.max() - x.min())
    people = [str(name) for name in estimate.index[known]]
    return {
        "scans": len(x),
        "failed": failed,
        "ventricles_ml": [float(x.min()), float(x.max())],
        "slope_per_ml": slope(x, y),
        "change": _interval(people, lambda rows: slope(x[rows], y[rows]) * span),
        "mean_estimate": float(y.mean()),
        "sd_estimate": float(y.std(ddof=1)),
        "greatest_estimate": float(y.max()),
    }
