"""The command that the documented speed of reports comes from: that it runs, and says what it measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.mark.browser
@pytest.mark.slow
def test_benchmark_makes_and_opens_a_report(browser: Browser, tmp_path: Path) -> None:
    assert browser.is_connected()
    command = [sys.executable, str(BENCHMARK), str(tmp_path), "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert re.search(r"^30 scans, pictures of \d+ kB a scan\n  made in [\d.]+ s", done.stdout)
    files = re.search(r"page [\d.]+ MB, (\d+) files beside it", done.stdout)
    assert files is not None
    # Of 27 counted scans: data, a sheet, and packs of at most four million characters.
    assert 3 <= int(files[1]) <= 6
    assert re.search(r"opened in [\d.]+ s \(aim 3\), the table in [\d.]+ s, sorted in [\d.]+ s", done.stdout)
