"""Set two ways of counting the same simulated heads side by side, head by head.

Run ``python benchmarks/heldout_pair.py BEFORE.json AFTER.json`` on what two runs of ``heldout.py`` left, of the same
scans (the same seed and number) under two protocols or models. Printed are the figures of both, and the mean difference
of the absolute error of the count, after minus before, with a 95 % bootstrap interval over people.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from epvs_cohort.compare.bootstrap import bootstrap

#: Of the resamples.
SEED = 1
#: What both must be of.
SAME = ("seed", "images_id", "count_target", "model_id")
PLACES = {
    "roi f": "whole region, (f)",
    "ac f": "slice as the program finds it, (f)",
    "ac_given f": "slice named, (f)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, check, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args(arguments)
    before, after = (json.loads(path.read_text()) for path in (given.before, given.after))
    if differing := [name for name in SAME if before["about"][name] != after["about"][name]]:
        raise SystemExit(f"{given.before} and {given.after} differ in {', '.join(differing)}; no pairs")
    print(markdown(before, after))


def paired(before: dict[str, Any], after: dict[str, Any]) -> pd.DataFrame:
    """One row a scan that both counted: subject, truth, and both estimates."""
    tables = [pd.DataFrame(each["scans"]).set_index("scan") for each in (before, after)]
    if list(tables[0].index) != list(tables[1].index):
        raise SystemExit("the two are not of the same scans; no pairs")
    frame = tables[0][["subject", "truth"]].assign(
        before=tables[0]["estimate"].astype(float), after=tables[1]["estimate"].astype(float)
    )
    return frame.dropna()


def markdown(before: dict[str, Any], after: dict[str, Any]) -> str:
    """One row a figure."""
    frame = paired(before, after)
    worse = ((frame["after"] - frame["truth"]).abs() - (frame["before"] - frame["truth"]).abs()).to_numpy()
    change = bootstrap(list(frame["subject"]), lambda rows: float(np.mean(worse[rows])), seed=SEED)
    lines = ["| | before | after |", "|---|---|---|"]

    def row(name: str, *values: str) -> None:
        lines.append(f"| {name} | {' | '.join(values)} |")

    both = (before, after)
    row("scans, failed, flagged", *(_states(each) for each in both))
    row("ICC(A,1)", *(_interval(each["counts"]["all"]["icc"]) for each in both))
    row("mean absolute error", *(f"{each['counts']['all']['mae']:.3f}" for each in both))
    row("bias", *(f"{each['counts']['all']['bias']:+.3f}" for each in both))
    for key, words in PLACES.items():
        found = [each["lesions"]["measures"].get(key) for each in both]
        if all(found):
            row(f"sensitivity, {words}", *(_interval(each["sensitivity"]) for each in found))
            row(
                f"false discovery rate, {words}", *(_interval(each["false_discovery_rate"]) for each in found)
            )
    lines.append("")
    lines.append(f"Absolute error, after minus before, of {len(frame)} pairs: {change}.")
    return "\n".join(lines)


def _states(figures: dict[str, Any]) -> str:
    counts = figures["counts"]
    return f"{counts['scans']}, {len(counts['failed'])}, {len(counts['flagged'])}"


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


if __name__ == "__main__":
    main()
