"""The cohort as a whole: sheets of small pictures, drift, outliers, the map of lesions, left and right."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow
from scipy import stats

from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.pictures import decode, encode
from epvs_cohort.report.cohort_content import page_content
from epvs_cohort.report.cohort_drift import drifts, outliers
from epvs_cohort.report.cohort_maps import density_map, region_rows, sides_sentence
from epvs_cohort.report.cohort_mosaic import ACROSS, ON_SHEET, THUMB, Sheets
from epvs_cohort.report.cohort_payload import review
from tests.report.made_up import MadeUp, write_made_up


def _slice(level: int) -> dict[str, bytes]:
    picture = encode(Pillow.new("L", (168, 128), level).convert("RGB"))
    return {"slice_030.webp": b"", "slice_031.webp": picture, "slice_032.webp": b""}


def test_every_scan_with_a_slice_has_its_place_on_a_sheet() -> None:
    sheets, found = Sheets(), dict[int, bytes]()
    levels = {row: 20 + row * 7 % 200 for row in range(ON_SHEET + 5)}
    for row, level in levels.items():
        found.update(sheets.add(row, {} if row == 3 else _slice(level)))
    found.update(sheets.finish())
    assert sorted(found) == [0, 1]
    assert sorted(set(levels) - set(sheets.placed)) == [3]
    pictures = {number: np.asarray(decode(content).convert("L")) for number, content in found.items()}
    for row in (0, 2, 4, ON_SHEET - 1, ON_SHEET, ON_SHEET + 4):
        sheet, at = divmod(sheets.placed[row], ON_SHEET)
        x, y = at % ACROSS * THUMB[0] + THUMB[0] // 2, at // ACROSS * THUMB[1] + THUMB[1] // 2
        assert abs(int(pictures[sheet][y, x]) - levels[row]) <= 3, row


def test_full_sheets_leave_nothing_to_finish() -> None:
    sheets = Sheets()
    found = [number for row in range(ON_SHEET) for number, _ in sheets.add(row, _slice(50))]
    assert (found, list(sheets.finish())) == ([0], [])


def test_failing_coil_and_scanner_that_counts_more_are_named(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=400, pictures=False))
    found = drifts(cohort.scans, review(cohort, {}).measures)
    said = [f"{each.title} {each.sentence}" for each in found]
    falls = [words for words in said if words.startswith("Signal to noise falls with the date on Maker")]
    assert len(falls) == 2
    assert any(words.startswith("Count differs between scanners: median") for words in said)
    # Nothing else was made to differ.
    assert len(said) == 3


def test_correlation_with_the_date_is_that_of_scipy() -> None:
    rng = np.random.default_rng(5)
    value = np.arange(60) + 20 * rng.standard_normal(60)
    dates = [str(np.datetime64("2018-01-01") + 11 * n) for n in range(60)]
    scans = pd.DataFrame({"count": np.nan, "scanner": "one", "acquisition_date": dates})
    (drift,) = drifts(scans, pd.DataFrame({"roi_snr": value}))
    assert f"correlation {stats.spearmanr(np.arange(60), value).statistic:+.2f}, 60 scans" in drift.sentence


def test_noise_drifts_hardly_ever() -> None:
    """The level of 5 % is that of all tests together."""
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scans = pd.DataFrame(
            {
                "count": rng.gamma(2, 5, 300),
                "scanner": rng.choice(np.array(["a", "b", None], dtype=object), 300),
                "acquisition_date": [str(np.datetime64("2018-01-01") + n) for n in range(300)],
            }
        )
        alarms += bool(drifts(scans, pd.DataFrame(rng.normal(size=(300, 30))).rename(columns=str)))
    assert alarms <= 2


def test_unknown_scanners_and_dates_are_no_drift() -> None:
    scans = pd.DataFrame({"count": np.arange(50.0), "scanner": None, "acquisition_date": None})
    assert drifts(scans, pd.DataFrame({"roi_snr": np.arange(50.0)})) == []


def test_outliers_are_named_farthest_first() -> None:
    values = np.random.default_rng(7).normal(20.0, 1.0, 100)
    values[[4, 50]] = 60.0, -90.0
    scans = pd.DataFrame({"scan": [f"s{n}" for n in range(100)], "count": np.nan})
    (found,) = outliers(scans, pd.DataFrame({"roi_snr": values}))
    assert (found.title, found.number, found.scans) == ("Signal to noise", 2, (("s50", "−90"), ("s4", "60")))


def test_density_is_lesions_over_all_counted_scans() -> None:
    points = np.tile([-25.0, 3.0, -4.0], (40, 1))
    found = density_map(points, 200)
    assert found is not None
    # 40 lesions in 200 scans, smoothed by 2 mm: the peak of the sum is 20 per 100 scans over 2 pi (2 mm)² = 25.1 mm².
    top = float(re.findall(r"highest ([\d.]+\d)", str(found.svg))[0])
    assert top == pytest.approx(20.0 / (2 * np.pi * 4.0) * 100.0, rel=0.02)
    assert "axial, z = −4 mm" in found.svg
    assert "40 located lesions of 200 counted" in found.caption
    assert density_map(np.zeros((0, 3)), 200) is None


def test_density_lies_on_the_side_of_the_lesions() -> None:
    """Radiological: what is on the person's left is on the right of the axial and the coronal picture."""
    found = density_map(np.tile([-30.0, 25.0, 20.0], (40, 1)), 10)
    assert found is not None
    pictures = [decode(base64.b64decode(text)) for text in re.findall(r"base64,([^\"]*)", str(found.svg))]
    shown = [np.asarray(picture, dtype=float) for picture in pictures]
    # Heat has colour, the template has none.
    centres = [np.argwhere(np.ptp(each, axis=2) > 60).mean(axis=0) / each.shape[:2] for each in shown]
    (axial_y, axial_x), (coronal_y, coronal_x), (sagittal_y, sagittal_x) = centres
    assert min(axial_x, coronal_x) > 0.7
    assert max(axial_y, coronal_y, sagittal_y, sagittal_x) < 0.35


def test_rejected_scans_are_left_out_of_the_map(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=40, pictures=False))
    keys = cohort.scans.loc[cohort.scans["n_lesions"] > 0, "scan"].tolist()
    gone = int(cohort.scans.set_index("scan")["n_lesions"][keys[0]])
    for decisions, n_lesions, n_scans in (
        ({}, len(cohort.lesions), 36),
        ({keys[0]: Decision("reject"), keys[1]: Decision("doubt")}, len(cohort.lesions) - gone, 35),
    ):
        content = page_content(review(cohort, decisions))
        assert content["density"].caption.startswith(f"{n_lesions} located lesions of {n_scans} counted")
        assert sum(left + right for _, left, right, _ in content["regions"]) == n_lesions


def test_sides_are_compared_over_scans() -> None:
    rng = np.random.default_rng(8)
    left, right = rng.poisson(6, 300), rng.poisson(4, 300)
    words = sides_sentence(pd.DataFrame({"n_left": left, "n_right": right}))
    interval = stats.ttest_rel(left, right).confidence_interval()
    assert f"interval {interval.low:.2f} to {interval.high:.2f}, 300 scans): more on the left" in words
    even = sides_sentence(pd.DataFrame({"n_left": [3, 1, 2], "n_right": [2, 2, 2]}))
    assert even.endswith("no more than chance may give.")
    assert sides_sentence(pd.DataFrame({"n_left": [0, 0], "n_right": [0, 0]})).startswith("Too few")


def test_regions_without_lesions_have_no_index() -> None:
    lesions = pd.DataFrame({"region": ["putamen"] * 4, "hemisphere": ["left"] * 3 + ["right"]})
    assert region_rows(lesions, ["caudate", "putamen"]) == [
        ("caudate", 0, 0, "–"),
        ("putamen", 3, 1, "0.50"),
        ("other", 0, 0, "–"),
    ]
