"""The report of a cohort in a real browser: opened as a file, without a network."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from epvs_cohort.data.decisions import Decision, read_decisions
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.report.cohort_report import ReportRequest, files_folder, write_report
from tests.report.conftest import Watched
from tests.report.made_up import HOSTILE, MadeUp, write_made_up

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> ReportRequest:
    """A made-up run of 120 scans, the first one with a hostile name."""
    out = tmp_path_factory.mktemp("report") / "counts.parquet"
    write_made_up(out, MadeUp(scans=120, hostile=True))
    return ReportRequest(out, out.with_name("report.html"), OutputPaths.of(out).store)


@pytest.fixture(scope="session")
def page(request_of: ReportRequest) -> Path:
    from epvs_cohort.data.cohort_tables import read_cohort

    return write_report(read_cohort(request_of.counts), request_of)


def _names(page: Page) -> list[str]:
    return page.locator("#grid .tabulator-row [role=rowheader] a").all_inner_texts()


def _column(page: Page, name: str) -> list[str]:
    """Cells of a column that are drawn: those in sight and some beyond."""
    head = page.locator(f".tabulator-col:has(button[data-column='{name}'])")
    field = head.get_attribute("tabulator-field")
    return page.locator(f"#grid .tabulator-row [tabulator-field={field}]").all_inner_texts()


def test_overview_answers_the_three_questions(watched: Watched, page: Path) -> None:
    shown = watched.open(page)
    assert shown.locator("#overview").is_visible()
    assert not shown.locator("#scans").is_visible()
    answers = shown.locator(".brief dd").all_inner_texts()
    assert answers[0].startswith("12 of 120: 6 × ")
    assert answers[1].startswith("16 counted scans are flagged. Begin with sub-")
    assert answers[2].startswith("Yes: Maker Two 1.5T counts")
    shown.locator(".brief a.jump").first.click()
    expect(shown.locator("#failed-title")).to_be_focused()
    assert shown.locator(".kind", has_text="6 × unreadable").is_visible()
    assert shown.get_by_text("What to do: copy the file anew").is_visible()
    assert shown.locator(".looks > li").count() == 16
    assert "Maker Two 1.5T" in shown.locator("#overview .answer").inner_text()
    assert shown.locator("#counts svg[role=img]").count() == 2
    shown.select_option("#group-by", label="sex")
    assert shown.locator("#counts tbody th").all_inner_texts() == ["F", "M"]


def test_a_reason_leads_to_its_scan_and_back_leads_back(watched: Watched, page: Path) -> None:
    shown = watched.open(page)
    shown.get_by_role("link", name="sub-0010_PDw", exact=True).first.click()
    expect(shown.locator("#scan-title")).to_have_text("sub-0010_PDw")
    assert "truncated file: 12 of 90 MB" in shown.locator("#scan-body .warning").inner_text()
    expect(shown.get_by_text("failed before any picture of it was made")).to_be_visible()
    shown.go_back()
    expect(shown.locator("#overview")).to_be_visible()


def test_table_sorts_by_number_with_unknown_last(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.locator("button[data-column=count]").click()
    first = [float(text) for text in _column(shown, "count")]
    assert first == sorted(first, reverse=True)
    assert len(first) > 10
    head = shown.locator(".tabulator-col:has(button[data-column=count])")
    assert head.get_attribute("aria-sort") == "descending"
    # By the keyboard as by the mouse.
    shown.locator("button[data-column=count]").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    counts = shown.evaluate("EPVS.table.order().map((row) => EPVS.value(row, 'count'))")
    assert counts[-12:] == [None] * 12
    assert counts[:-12] == sorted(counts[:-12])
    # The last rows are drawn when they are scrolled to.
    assert "–" not in _column(shown, "count")
    shown.locator("#grid .tabulator-tableholder").evaluate(
        "holder => { holder.scrollTop = holder.scrollHeight; }"
    )
    expect(shown.locator("#grid").get_by_text("✕ failed").last).to_be_visible()
    assert _column(shown, "count")[-12:] == ["–"] * 12


def test_columns_are_chosen_and_sorted_by(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.get_by_text("Columns", exact=True).click()
    shown.get_by_label("Signal to noise").check()
    shown.locator("button[data-column='measure roi_snr']").click()
    values = [float(text) for text in _column(shown, "measure roi_snr")]
    assert len(values) > 10
    assert values == sorted(values, reverse=True)
    shown.get_by_label("sex", exact=True).uncheck()
    expect(shown.locator("button[data-column=sex]")).to_have_count(0)


def test_table_filters_and_searches(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.select_option("#status", "failed")
    expect(shown.locator(".said")).to_have_text("12 of 120 scans")
    assert _names(shown) == [f"sub-{n:04d}_PDw" for n in range(10, 121, 10)]
    shown.fill("#search", "similarity 0.02")
    expect(shown.locator(".said")).to_have_text("6 of 120 scans")
    shown.get_by_role("button", name="Clear").click()
    expect(shown.locator(".said")).to_have_text("120 scans")
    shown.select_option("#where-column", "count")
    shown.fill("#where-value", "15")
    expect(shown.locator(".said")).not_to_have_text("120 scans")
    assert min(float(text) for text in _column(shown, "count")) >= 15
    shown.fill("#search", "no such scan")
    expect(shown.get_by_text("No scan passes these filters.")).to_be_visible()


def test_figures_of_the_overview_lead_to_their_scans(watched: Watched, page: Path) -> None:
    shown = watched.open(page)
    shown.get_by_role("link", name="show them (failed)").click()
    expect(shown.locator(".said")).to_have_text("12 of 120 scans")
    assert shown.input_value("#status") == "failed"
    shown.fill("#search", "similarity 0.02")
    expect(shown.locator(".said")).to_have_text("6 of 120 scans")
    shown.get_by_role("link", name="Overview").click()
    shown.get_by_role("link", name="show them (flagged)").click()
    expect(shown.locator(".said")).to_have_text("16 of 120 scans")
    assert shown.input_value("#search") == ""


def test_scan_named_as_a_part_of_the_language_is_decided_as_any(watched: Watched, tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    cohort = write_made_up(out, MadeUp(scans=3))
    cohort.scans.loc[0, "scan"] = "__proto__"
    decisions = {"__proto__": Decision("reject")}
    request = ReportRequest(out, tmp_path / "r.html", OutputPaths.of(out).store, decisions)
    shown = watched.open(write_report(cohort, request), "#scan=__proto__")
    assert shown.get_by_label("reject").is_checked()
    shown.get_by_label("doubt").check()
    assert "__proto__,doubt" in shown.evaluate("EPVS.decisions.table()")


def test_next_and_previous_follow_the_filtered_table(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.select_option("#status", "flagged")
    expect(shown.locator("#grid .tabulator-row")).to_have_count(16)
    names = _names(shown)
    shown.get_by_role("link", name=names[0], exact=True).click()
    shown.wait_for_selector(".pictures img")
    assert "1 of 16 that pass the filters" in shown.locator(".walk").inner_text()
    shown.keyboard.press("ArrowRight")
    expect(shown.locator("#scan-title")).to_have_text(names[1])
    shown.keyboard.press("ArrowLeft")
    expect(shown.locator("#scan-title")).to_have_text(names[0])
    assert shown.locator("#previous").is_disabled()
    shown.locator("#single-keys").uncheck()
    shown.locator("#scan-title").focus()
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("r")
    expect(shown.locator("#scan-title")).to_have_text(names[0])
    assert shown.get_by_label("undecided").is_checked()


def test_scan_shows_its_pictures_and_its_place_in_the_cohort(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scan=sub-0007_PDw")
    shown.wait_for_selector(".pictures img")
    widths = shown.locator(".pictures img").evaluate_all("all => all.map((image) => image.naturalWidth)")
    assert widths == [112, 112, 112]
    assert shown.locator(".flags").inner_text() == "Longest voxel edge is 5.5 mm; at most 2 mm passes"
    first = shown.locator(".quality tbody tr").first
    assert "Longest voxel edge" in first.inner_text()
    assert "▲ at most 2 mm" in first.inner_text()


def test_mosaic_shows_every_scan_and_sorts(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#cohort")
    expect(shown.locator(".mosaic li")).to_have_count(108)
    expect(shown.locator("#mosaic")).to_contain_text("12 have no picture")
    loaded = "getComputedStyle(document.querySelector('.thumb')).backgroundImage.startsWith('url(\"data:image/webp')"
    for _ in range(50):
        if shown.evaluate(loaded):
            break
        shown.wait_for_timeout(100)
    assert shown.evaluate(loaded)
    # Flagged scans come first of themselves.
    assert shown.locator(".mosaic a").evaluate_all("all => all.slice(0, 17).map((a) => a.className)") == [
        *["flagged"] * 16,
        "ok",
    ]
    shown.select_option("#mosaic-by", "count")
    counts = [float(text.strip("▲ ")) for text in shown.locator(".mosaic .value").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    shown.select_option("#mosaic-order", "up")
    assert shown.locator(".mosaic .value").first.inner_text().strip("▲ ") == f"{counts[-1]:g}"
    shown.locator(".mosaic a").first.click()
    expect(shown.locator("#scan-body .pictures img").first).to_be_visible()


def test_measures_are_drawn_over_the_date_by_scanner(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#cohort")
    assert shown.locator("#dates .key li").all_inner_texts() == ["Maker One 3T", "Maker Two 1.5T"]
    shown.select_option("#date-measure", label="Signal to noise")
    chart = shown.locator("#dates svg.chart")
    # 60 scans of each; the 12 that failed are all of the second.
    words = str(chart.get_attribute("aria-label"))
    assert re.match(r"Signal to noise over the date of acquisition. Maker One 3T: 60 scans, median 2", words)
    assert re.search(r"Maker Two 1.5T: 48 scans, median 2[\d.]+, 2[\d.]+ in the earliest part and 1", words)
    colours = chart.locator(".dot path").evaluate_all("all => all.map((p) => p.getAttribute('fill'))")
    assert sorted(set(map(colours.count, colours))) == [48, 60]
    # Two scanners, each with a line and its rim.
    assert chart.locator(".line path").count() == 4
    assert chart.get_by_text("date of acquisition").is_visible()


def test_layers_are_turned_on_and_off_and_stay_so(watched: Watched, page: Path) -> None:
    # The scans that did not fail have layers one in five, from the first on.
    shown = watched.open(page, "#scan=sub-0006_PDw")
    expect(shown.locator(".layers")).to_be_visible()
    heat, marks = (shown.locator(f".slices .layer.{name}") for name in ("heat", "marks"))
    expect(heat).to_be_visible()
    expect(marks).to_be_visible()
    assert marks.locator("text").text_content() == "1"
    shown.get_by_label("Heat (h)").uncheck()
    expect(heat).to_be_hidden()
    expect(marks).to_be_visible()
    shown.locator("#scan-title").focus()
    shown.keyboard.press("l")
    expect(marks).to_be_hidden()
    assert not shown.get_by_label("Lesions (l)").is_checked()
    # The next scan with layers is shown as the last one was.
    shown.goto(page.as_uri() + "#scan=sub-0012_PDw")
    expect(shown.locator("#scan-title")).to_have_text("sub-0012_PDw")
    expect(heat).to_be_hidden()
    shown.keyboard.press("h")
    expect(heat).to_be_visible()


def test_edges_of_the_template_flicker_until_told_to_stop(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scan=sub-0006_PDw")
    edges = shown.locator(".registration .edges")
    expect(edges).to_be_visible()
    shown.get_by_role("button", name="Flicker (f)").click()
    expect(edges).to_be_hidden()
    expect(edges).to_be_visible()
    shown.locator("#scan-title").focus()
    shown.keyboard.press("f")
    expect(shown.locator("#flicker")).to_have_attribute("aria-pressed", "false")
    shown.wait_for_timeout(800)
    expect(edges).to_be_visible()


def test_hostile_name_is_text_everywhere(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.fill("#search", "onerror")
    expect(shown.locator("#grid .tabulator-row")).to_have_count(1)
    shown.locator("#grid [role=rowheader] a").click()
    shown.wait_for_selector(".pictures img")
    assert shown.locator("#scan-title").text_content() == HOSTILE
    shown.get_by_label("reject").check()
    shown.get_by_text("Everything in the table about this scan").click()
    assert shown.locator("img[src=x]").count() == 0
    assert shown.locator("body script").count() == 5


def test_print_holds_every_row_that_passes_as_text(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    expect(shown.locator("#grid .tabulator-row").first).to_be_visible()
    shown.select_option("#status", "ok")
    expect(shown.locator(".said")).to_have_text("92 of 120 scans")
    shown.get_by_text("Columns", exact=True).click()
    shown.get_by_label("path", exact=True).check()
    expect(shown.locator("button[data-column=path]")).to_be_visible()
    shown.emulate_media(media="print")
    shown.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    rows = shown.locator(".tabulator-print-table tbody tr")
    expect(rows).to_have_count(92)
    assert rows.first.locator("td").first.text_content() == HOSTILE
    assert shown.locator("img[src=x]").count() == 0
    assert not shown.locator(".filters").is_visible()
    shown.evaluate("window.dispatchEvent(new Event('afterprint'))")
    expect(shown.locator(".tabulator-print-table")).to_have_count(0)


def test_dot_tells_its_scan_and_opens_it(watched: Watched, page: Path) -> None:
    shown = watched.open(page)
    chart = shown.locator("#counts svg.chart").last
    dot = chart.locator(".dot circle").last
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    tip = chart.locator("[aria-label=tip]")
    expect(tip).to_contain_text("_PDw")
    expect(tip).to_contain_text(re.compile(r"Maker .*: [\d.]+ lesions$"))
    name = re.search(r"sub-\d{4}_PDw", str(tip.text_content()))
    assert name is not None
    dot.click(force=True)
    expect(shown.locator("#scan-title")).to_have_text(name[0])


def test_decision_is_seen_at_once_and_undoes_no_walk(watched: Watched, page: Path) -> None:
    shown = watched.open(page, "#scans")
    shown.select_option("#decided", "undecided")
    shown.select_option("#status", "flagged")
    expect(shown.locator(".said")).to_have_text("16 of 120 scans")
    names = _names(shown)
    shown.get_by_role("link", name=names[0], exact=True).click()
    expect(shown.locator(".walk")).to_contain_text("1 of 16 that pass the filters")
    shown.keyboard.press("a")
    expect(shown.locator("#decided-now")).to_have_text("Decided: accept")
    # It passes the filter no more, yet the next one is the next one.
    shown.keyboard.press("ArrowRight")
    expect(shown.locator("#scan-title")).to_have_text(names[1])
    expect(shown.locator("#decided-now")).to_have_text("")
    shown.get_by_role("link", name="Back to the table").click()
    expect(shown.locator(".said")).to_have_text("15 of 120 scans")


def test_decision_is_kept_exported_and_read_again(watched: Watched, page: Path, tmp_path: Path) -> None:
    shown = watched.open(page, "#scan=sub-0002_PDw")
    shown.get_by_label("reject").check()
    shown.fill("#decide-reason", "motion, strong")
    shown.fill("#decide-initials", "AB")
    shown.fill("#decide-comment", 'said "no"')
    shown.reload()
    shown.wait_for_selector("html[data-ready]")
    assert shown.get_by_label("reject").is_checked()
    assert shown.input_value("#decide-comment") == 'said "no"'
    assert "1 changed since the last export" in shown.locator("#review").inner_text()
    shown.keyboard.press("ArrowRight")
    expect(shown.locator("#scan-title")).to_have_text("sub-0003_PDw")
    shown.keyboard.press("d")
    assert shown.input_value("#decide-initials") == "AB"
    with shown.expect_download() as download:
        shown.get_by_role("button", name="Export decisions").click()
    path = tmp_path / "decisions.csv"
    download.value.save_as(path)
    assert read_decisions(path) == {
        "sub-0002_PDw": Decision("reject", "motion, strong", "AB", 'said "no"'),
        "sub-0003_PDw": Decision("doubt", "", "AB", ""),
    }
    assert "All exported" in shown.locator("#review").inner_text()


def test_export_brings_the_file_s_decisions_along_unless_changed(
    watched: Watched, request_of: ReportRequest, tmp_path: Path
) -> None:
    from epvs_cohort.data.cohort_tables import read_cohort

    decisions = {
        HOSTILE: Decision("reject", "motion", "CD"),
        "sub-0002_PDw": Decision("accept"),
        "gone": Decision("doubt"),
    }
    request = replace(request_of, out=tmp_path / "again.html", decisions=decisions)
    shown = watched.open(write_report(read_cohort(request.counts), request), "#scan=sub-0002_PDw")
    assert shown.get_by_label("accept").is_checked()
    shown.get_by_label("reject").check()
    with shown.expect_download() as download:
        shown.get_by_role("button", name="Export decisions").click()
    download.value.save_as(tmp_path / "decisions.csv")
    found = read_decisions(tmp_path / "decisions.csv")
    assert {key: decision.verdict for key, decision in found.items()} == {
        HOSTILE: "reject", "sub-0002_PDw": "reject", "gone": "doubt"
    }  # fmt: skip
    shown.reload()
    shown.wait_for_selector("html[data-ready]")
    assert shown.get_by_text("What was decided in this browser goes before it.").is_visible()


def test_decisions_of_another_browser_are_read_and_undo_nothing(
    watched: Watched, page: Path, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(
        "scan,decision,reason,initials,comment\r\n"
        'sub-0008_PDw,Reject,"motion, strong",CD,"said ""no"""\r\n'
        "sub-0009_PDw,accept,,CD,\r\nsub-0011_PDw,maybe,,CD,\r\n"
    )
    shown = watched.open(page, "#scan=sub-0009_PDw")
    shown.get_by_label("doubt").check()
    shown.get_by_text("Read decisions").click()
    shown.set_input_files("#read-decisions", path)
    expect(shown.locator(".reader")).to_contain_text(
        "1 decisions taken from the file. 1 scans are decided otherwise here"
    )
    expect(shown.locator(".reader")).to_contain_text("1 rows name no scan or no legal decision")
    shown.reload()
    shown.wait_for_selector("html[data-ready]")
    table = shown.evaluate("EPVS.decisions.table()")
    assert 'sub-0008_PDw,reject,"motion, strong",CD,"said ""no"""\n' in table
    assert "sub-0009_PDw,doubt," in table
    path.write_text("name,verdict\na,b\n")
    shown.get_by_text("Read decisions").click()
    shown.set_input_files("#read-decisions", path)
    expect(shown.locator(".reader")).to_contain_text(
        "Nothing is read: the file has no columns scan and decision."
    )


def test_two_windows_do_not_undo_each_other(watched: Watched, page: Path) -> None:
    first = watched.open(page, "#scan=sub-0004_PDw")
    second = first.context.new_page()
    second.goto(page.as_uri() + "#scan=sub-0005_PDw")
    second.wait_for_selector("html[data-ready]")
    first.get_by_label("accept").check()
    second.get_by_label("doubt").check()
    expect(first.locator("#review")).to_contain_text("2 decided")
    # What the other window decides about the scan that is looked at is seen at once.
    second.goto(page.as_uri() + "#scan=sub-0004_PDw")
    expect(second.get_by_label("accept")).to_be_checked()
    second.get_by_label("reject").check()
    second.fill("#decide-reason", "motion")
    expect(first.get_by_label("reject")).to_be_checked()
    expect(first.locator("#decide-reason")).to_have_value("motion")
    assert len(list(csv.reader(first.evaluate("EPVS.decisions.table()").splitlines()))) == 3


def test_one_file_does_what_the_folder_does(watched: Watched, tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    cohort = write_made_up(out, MadeUp(scans=12, hostile=True))
    request = ReportRequest(out, tmp_path / "one #1%20.html", OutputPaths.of(out).store, single_file=True)
    shown = watched.open(write_report(cohort, request), "#scan=sub-0003_PDw")
    shown.wait_for_selector(".pictures img")


def test_folder_of_any_name_is_found_and_a_lost_one_is_told(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    request = ReportRequest(out, tmp_path / "a #1%20?&.html", OutputPaths.of(out).store)
    page = write_report(write_made_up(out, MadeUp(scans=3)), request)
    shown = browser.new_page()
    shown.goto(page.as_uri())
    shown.wait_for_selector("html[data-ready]")
    files_folder(page).rename(tmp_path / "elsewhere")
    shown.goto(page.as_uri())
    assert "belongs beside the page" in shown.locator("#trouble").inner_text()
    shown.close()


@pytest.mark.parametrize(
    "plan", [MadeUp(scans=3, failed_every=1), MadeUp(scans=1, covariates=False, pictures=False)]
)
def test_empty_states_say_so(plan: MadeUp, watched: Watched, tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    request = ReportRequest(out, tmp_path / "r.html", OutputPaths.of(out).store)
    shown = watched.open(write_report(write_made_up(out, plan), request))
    assert shown.locator("#overview .empty").count() >= 1
    shown.goto(shown.url + "#scan=sub-0001_PDw")
    expect(shown.locator("#scan-body .empty").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "part",
    [
        "#overview",
        "#scans",
        "#cohort",
        "#scan=sub-0006_PDw",
        "#scan=sub-0007_PDw",
        "#scan=sub-0010_PDw",
        "#methods",
    ],
)
def test_nobody_is_shut_out(part: str, scheme: str, watched: Watched, page: Path) -> None:
    watched.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    shown = watched.open(page, part)
    shown.wait_for_timeout(300)
    if part.startswith("#scans"):
        expect(shown.locator("#grid .tabulator-header")).to_be_visible()
    if part.startswith("#scan="):
        expect(shown.locator(".quality tbody tr, #scan-body .empty").first).to_be_visible()
    found = Axe().run(shown).response["violations"]
    told = [(each["id"], node["target"]) for each in found for node in each["nodes"]]
    assert told == []
