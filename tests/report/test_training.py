"""The page of a training: says what the journal holds, stands alone, trusts no name."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image as Pillow

from epvs_cohort.errors import OutputError
from epvs_cohort.model.bundle import bundles_dir
from epvs_cohort.report.training import MOST_PICTURES, PAGE_FILE, training_page
from epvs_cohort.train.journal import Journal

HOSTILE = '"><script>alert(1)</script>&\u202e'


def _train(folder: Path, *, epochs: int = 3, key: str = "a") -> None:
    """Journal of three epochs of 100 steps; the second has the lowest error."""
    with Journal(folder) as journal:
        for epoch in range(1, epochs + 1):
            for step in range(100 * epoch - 99, 100 * epoch + 1):
                journal.step(step, epoch, 1000.0 / step, 0.001, 36.6 * step)
            off = abs(epoch - 2) + 0.5
            estimate = [2 + off, 6 + off]
            journal.validation(100 * epoch, epoch, [key, "b"], [2, 6], estimate, off**2, 1 / (1 + off))
            journal.picture(100 * epoch, key, np.full((8, 6), 0.4), np.eye(8, 6))


def _charts(text: str) -> dict[str, ET.Element]:
    found = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]
    return {root.attrib["aria-labelledby"].split("-title")[0]: root for root in found}


def test_page_says_what_the_journal_holds(tmp_path: Path) -> None:
    _train(tmp_path)
    path = training_page(tmp_path)
    text = path.read_text()
    assert path == tmp_path / PAGE_FILE
    assert "300 steps, last in epoch 3, 3 h 3 min of training." in text
    assert re.search(
        r"Best validation MSE</span><strong>0\.25</strong><span>counts², epoch 2, step 200", text
    )
    assert re.search(r"Last validation MSE</span><strong>2\.25</strong>", text)
    charts = _charts(text)
    assert set(charts) == {"loss", "validation-mse", "validation-icc", "scatter-best", "scatter-last"}
    assert len(list(charts["validation-mse"].iter("circle"))) == 4
    labels = [dot[0].text for dot in charts["scatter-best"].iter("circle")]
    assert labels == ["a: counted 2, predicted 2.50", "b: counted 6, predicted 6.50"]
    assert "2 scans, ICC(A,1) 0.667, MSE 0.25, mean absolute error 0.50, mean error +0.50." in text
    # Of the weights that are kept, not of the last ones.
    assert "counted 2.0, predicted 2.5; highest heat 1, step 200" in text


def test_scans_counted_rightly_lie_on_the_identity_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.validation(1, 1, ["a", "b", "c"], [0, 3, 17], [0, 3, 17], 0.0, 1.0)
    scatter = _charts(training_page(tmp_path).read_text())["scatter-last"]
    (line,) = scatter.iter("polyline")
    (x1, y1), (x2, y2) = ([float(v) for v in end.split(",")] for end in line.attrib["points"].split())
    for dot in scatter.iter("circle"):
        share = (float(dot.attrib["cx"]) - x1) / (x2 - x1)
        assert float(dot.attrib["cy"]) == pytest.approx(y1 + share * (y2 - y1), abs=0.2)


def test_every_chart_has_a_table_beside_it_and_words_for_the_blind(tmp_path: Path) -> None:
    _train(tmp_path)
    text = training_page(tmp_path).read_text()
    for root in _charts(text).values():
        assert root[0].tag == "title"
        assert root[1].tag == "desc"
        assert root[1].text
    assert text.count("<table>") == 4
    assert re.search(r"<bdi>200</bdi></th><td>2</td><td>0\.250</td><td>0\.667</td><td>2</td>", text)
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", text))


def test_page_stands_alone(tmp_path: Path) -> None:
    _train(tmp_path)
    text = training_page(tmp_path).read_text()
    assert "<script" not in text
    assert not re.search(r"https?://|<link|@import|url\(|src=\"(?!data:)", text)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    (best,) = (tmp_path / "pictures").glob("*-000000200.png")
    assert base64.b64decode(data) == best.read_bytes()
    with Pillow.open(best) as picture:
        assert f'width="{picture.width}" height="{picture.height}"' in text


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(2)>"
    _train(folder, key=HOSTILE)
    text = training_page(folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;img src=x onerror" in text


def test_the_card_says_what_the_bundle_is(tmp_path: Path) -> None:
    _train(tmp_path)
    assert "No model bundle lies in this folder" in training_page(tmp_path).read_text()
    for file in (bundles_dir() / "gp-unet-sim").iterdir():
        shutil.copy(file, tmp_path / file.name)
    text = training_page(tmp_path).read_text()
    assert "<h1>Training of <bdi>gp-unet-sim</bdi></h1>" in text
    assert "simulated" in text
    assert "Must not be used for" in text


def test_a_run_without_figures_is_told_as_such(tmp_path: Path) -> None:
    with Journal(tmp_path):
        pass
    text = training_page(tmp_path).read_text()
    assert "Nothing is trained yet." in text
    assert "Nothing was validated yet." in text
    assert "There are no pictures." in text
    with Journal(tmp_path) as journal:
        journal.step(1, 1, 3.0, 0.1, 2.0)
        journal.validation(1, 1, ["a", "b"], [1, 2], [np.nan, 2.5], np.nan, np.nan)
    text = training_page(tmp_path).read_text()
    assert "No validation gave a finite error." in text
    assert "1 not shown, for their count is not finite." in text


def test_several_validations_of_an_epoch_are_drawn_over_steps(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in (10, 20, 30):
            journal.validation(step, 1, ["a"], [1], [step / 10], step / 10, 0.5)
    text = training_page(tmp_path).read_text()
    assert "Validation over steps" in text
    places = [float(dot.attrib["cx"]) for dot in _charts(text)["validation-mse"].iter("circle")]
    assert len(set(places)) == 3


def test_a_long_run_makes_a_small_page(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in range(1, 30001):
            journal.step(step, 1, 1.0, 0.1, step)
        for n in range(MOST_PICTURES + 3):
            journal.picture(30000, f"s{n}", np.zeros((4, 4)), np.zeros((4, 4)))
    path = training_page(tmp_path)
    assert path.stat().st_size < 100_000
    text = path.read_text()
    assert text.count("<img") == MOST_PICTURES
    assert "3 more scans have pictures" in text


def test_a_falling_loss_is_drawn_logarithmically(tmp_path: Path) -> None:
    _train(tmp_path)
    names = [text.text for text in _charts(training_page(tmp_path).read_text())["loss"].iter("text")]
    assert "loss, log scale" in names


def test_no_journal_no_page(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no journal"):
        training_page(tmp_path)
    assert not (tmp_path / PAGE_FILE).exists()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "low", "high"), [("1", 200, 255), ("0", 0, 80)], ids=["light", "dark"])
def test_page_follows_the_colours_of_the_screen(scheme: str, low: int, high: int, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    _train(tmp_path / "run")
    page, picture = training_page(tmp_path / "run"), tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,800"]
    options += [f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, *options, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Pillow.open(picture) as shot:
        grey = np.asarray(shot.convert("L"))
    assert low <= np.median(grey) <= high
    assert np.ptp(grey) > 150
