"""The libraries that the report carries: unchanged, with their licences, in the package and in its notice."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import epvs_cohort
from epvs_cohort.report.cohort_report import CARRIED_SCRIPTS, CARRIED_STYLE

CARRIED = Path(epvs_cohort.__file__).parent / "report" / "vendor"
NOTICE = Path(__file__).parents[2] / "NOTICE"
#: Of the files in the packages that npm's registry holds.
SHA256 = {
    "d3-7.9.2/LICENSE": "2a6d2d5f32ba0b755ddbc1c833f766e30cdbe6ebe9a6d4e3e24427721f0b63d3",
    "d3-7.9.2/d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot-0.6.17/LICENSE": "4b295e011e0e046170041b5b46f1349393aeceb95797793a55bd21dbb543363a",
    "plot-0.6.17/plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
    "tabulator-6.5.3/LICENSE": "191a2ee554684e1064c897b432f0e1bc6dfa714ca045d3f6ea2cf692cbd398b7",
    "tabulator-6.5.3/tabulator.min.js": "ffac518cb793c672a2f0522b7fc80bf862234d96bb1e581c8aaf7f48f130eafa",
    "tabulator-6.5.3/tabulator_simple.min.css": "edef8839235a4b6a8c3dc391ec93f2ce1bc633dd5270a5f990753b6f9183d32b",
}


def test_libraries_are_carried_unchanged_and_nothing_else_is() -> None:
    found = {
        str(path.relative_to(CARRIED)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in CARRIED.rglob("*")
        if path.is_file()
    }
    assert found == SHA256
    used = {name.removeprefix("vendor/") for name in (*CARRIED_SCRIPTS, CARRIED_STYLE)}
    assert used == {name for name in SHA256 if not name.endswith("LICENSE")}


@pytest.mark.parametrize("folder", sorted({name.split("/")[0] for name in SHA256}))
def test_every_library_is_in_the_notice_with_its_licence(folder: str) -> None:
    name, version = folder.rsplit("-", 1)
    notice = NOTICE.read_text(encoding="utf-8")
    assert re.search(rf"^[\w ]*{name} {re.escape(version)}, ", notice, re.IGNORECASE | re.MULTILINE)
    words = " ".join((CARRIED / folder / "LICENSE").read_text(encoding="utf-8").split())
    assert words in " ".join(notice.split())


@pytest.mark.parametrize("name", CARRIED_SCRIPTS)
def test_no_library_ends_the_element_that_holds_it(name: str) -> None:
    text = (CARRIED.parent / name).read_text(encoding="utf-8").lower()
    assert "</script" not in text
    assert "<!--" not in text
