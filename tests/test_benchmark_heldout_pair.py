"""Two ways of counting the same heads are compared head by head."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def figures(estimates: list[float], seed: int = 1) -> dict[str, Any]:
    interval = {"value": 0.9, "low": 0.8, "high": 0.95}
    return {
        "about": {"seed": seed, "images_id": "i", "count_target": "roi", "model_id": "m"},
        "counts": {
            "scans": 3,
            "failed": {},
            "flagged": {"c": []},
            "all": {"icc": interval, "mae": 1.0, "bias": 0.25},
        },
        "lesions": {"measures": {"roi f": {"sensitivity": interval, "false_discovery_rate": interval}}},
        "scans": [
            {"scan": name, "subject": name, "truth": 4, "estimate": estimate}
            for name, estimate in zip("abc", estimates, strict=True)
        ],
    }


def test_errors_are_compared_scan_by_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("heldout_pair")
    before, after, other = (tmp_path / f"{name}.json" for name in ("before", "after", "other"))
    before.write_text(json.dumps(figures([5.0, 3.0, 4.0])))
    after.write_text(json.dumps(figures([4.5, 3.5, 5.0])))
    other.write_text(json.dumps(figures([4.5, 3.5, 5.0], seed=2)))
    module.main([str(before), str(after)])
    told = capsys.readouterr().out
    # Errors were 1, 1 and 0, and are 0.5, 0.5 and 1: on average nothing changed.
    assert "Absolute error, after minus before, of 3 pairs: 0.000 (-0.500 to 1.000)." in told
    assert "| scans, failed, flagged | 3, 0, 1 | 3, 0, 1 |" in told
    assert "| bias | +0.250 | +0.250 |" in told
    with pytest.raises(SystemExit, match="differ in seed"):
        module.main([str(before), str(other)])
