"""Every page carries a Content-Security-Policy that lets nothing in from outside, before anything else is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import epvs_cohort.report
from epvs_cohort.report.cohort_report import ReportRequest, write_report
from tests.report.made_up import MadeUp, write_made_up

TEMPLATES = sorted(Path(epvs_cohort.report.__file__).parent.rglob("*.html"))
PAGES = [path for path in TEMPLATES if "<html" in path.read_text(encoding="utf-8")]
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">')


def _before(text: str, at: int) -> str:
    return text[text.index("<head") : at]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_template_of_a_page_has_a_policy_first(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = _POLICY.search(text)
    assert found is not None
    assert re.search(r"<(script|style|link|img)\b", _before(text, found.start())) is None
    if "{{" not in found[1]:
        assert found[1].startswith("default-src 'none'")
        assert "script-src" not in found[1]


def test_the_cohort_page_allows_its_own_scripts_by_hash_alone(tmp_path: Path) -> None:
    cohort = write_made_up(tmp_path / "counts.parquet", MadeUp(scans=12, hostile=True))
    page = tmp_path / "report.html"
    write_report(cohort, ReportRequest(tmp_path / "counts.parquet", page, tmp_path / "store"))
    found = _POLICY.search(page.read_text(encoding="utf-8"))
    assert found is not None
    policy = dict(
        part.strip().split(" ", 1) for part in found[1].replace("&#39;", "'").split(";") if part.strip()
    )
    assert policy["default-src"] == "'none'"
    scripts = policy["script-src"].split()
    assert scripts
    assert all(word.startswith("'sha256-") or word == "'self'" or word == "file:" for word in scripts), (
        scripts
    )
    assert not {"*", "'unsafe-eval'", "http:", "https:"} & set(found[1].replace("&#39;", "'").split())
