"""What whole evaluations are tested on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.compare.evaluate import EvaluateInput
from epvs_cohort.compare.readers import reader_counts
from tests.compare.cohorts import COUNTS, POINTS, ROWS, readings, write_cohort


@pytest.fixture
def given(tmp_path: Path) -> EvaluateInput:
    points = {key: np.array(rows) for key, rows in POINTS.items()}
    cohort = write_cohort(tmp_path / "counts.parquet", ROWS)
    return EvaluateInput(cohort, reader_counts(readings(COUNTS), {}), points)
