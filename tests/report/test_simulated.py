"""The pictures of a simulated cohort show its scans and mark the lesions where they are."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from epvs_cohort.data.pictures import SKY, YELLOW, decode
from epvs_cohort.protocol import GridSettings, Protocol
from epvs_cohort.report.simulated import View, scan_picture, view_of, white_level, write_simulated_page
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort

PROTOCOL = Protocol(grid=GridSettings(shape=(64, 48, 36), spacing_mm=(1.3, 1.3, 1.9)))


@pytest.fixture(scope="module", params=["heads", "prepared"])
def cohort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "a & b"
    if request.param == "prepared":
        options = SimulateOptions(scans=2, seed=11, prepared=True, protocol=PROTOCOL)
    else:
        options = SimulateOptions(scans=2, seed=11, voxel_mm=(3.0, 3.0, 3.0))
    simulate_cohort(out, options)
    return out


def is_marked(picture: object) -> bool:
    pixels = np.asarray(picture)
    return any(bool((pixels == colour).all(axis=-1).any()) for colour in (SKY, YELLOW))


def test_page_shows_every_scan_and_escapes_names(cohort: Path) -> None:
    page = write_simulated_page(cohort)
    text = page.read_text()
    sources = [unquote(source) for source in re.findall(r'src="([^"]+)"', text)]
    assert len(sources) == 2
    for source in sources:
        assert (cohort / source).read_bytes().startswith(b"\x89PNG")
        assert decode((cohort / source).read_bytes()).width > 500
    assert html.escape(cohort.name) in text
    assert cohort.name not in text
    assert "<script" not in text


def test_marks_are_on_the_right_half_only(cohort: Path) -> None:
    points = pd.read_csv(cohort / "points.csv", dtype=str, keep_default_na=False)
    scan = points.scan[0]
    rows = points[points.scan == scan].to_dict("records")
    view = view_of(cohort, scan)
    with_marks, without = scan_picture(view, rows), scan_picture(view, [])
    half = with_marks.width // 2
    np.testing.assert_array_equal(np.asarray(with_marks)[:, :half], np.asarray(without)[:, :half])
    assert is_marked(with_marks)
    assert not is_marked(without)


def test_a_circle_lies_around_its_lesion() -> None:
    values = np.zeros((40, 30, 20))
    values[30, 10, 12] = 1.0
    view = View(values, values >= 0, np.diag([1.0, 1.0, 1.0, 1.0]), 12)
    row = {"x_mm": "30", "y_mm": "10", "z_mm": "12", "length_mm": "3", "radius_mm": "1", "in_ac_slice": "0"}
    panel = np.asarray(scan_picture(view, [row]))
    height, width = panel.shape[0] // 3, panel.shape[1] // 2
    middle = panel[height : 2 * height + 4, width:]
    ys, xs = np.nonzero((middle == YELLOW).all(axis=-1))
    # Radiological: i = 30 of 40 lies at the left, j = 10 of 30 towards the bottom; 5 pixels a voxel.
    assert xs.mean() == pytest.approx((40 - 0.5 - 30) * 5, abs=4)
    assert ys.mean() == pytest.approx((30 - 0.5 - 10) * 5, abs=6)
    outer = np.concatenate([panel[:height, width:], panel[-height:, width:]])
    assert not (outer == YELLOW).all(axis=-1).any()


def test_white_is_the_upper_quantile_of_the_mask() -> None:
    values = np.arange(1000.0).reshape(10, 10, 10)
    assert white_level(values, values < 200) == pytest.approx(0.995 * 199)
    assert white_level(np.zeros((2, 2, 2)), np.zeros((2, 2, 2), dtype=bool)) > 0
