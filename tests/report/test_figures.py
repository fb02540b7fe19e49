"""Pictures as files, of a scan and of the cohort: written whole, named safely, as the report shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.picture_layers import LAYERS
from epvs_cohort.data.pictures import encode, grey_panel
from epvs_cohort.report.cohort_figures import ACROSS, write_cohort_figures
from epvs_cohort.report.cohort_mosaic import THUMB
from epvs_cohort.report.figures import PAGE_WIDTH, PARTS, write_figures
from tests.report.made_up import MadeUp, write_made_up


def _picture(width: int, height: int, level: int) -> bytes:
    return encode(grey_panel(np.full((height, width), level, dtype=np.uint8), (width, height)))


def test_page_holds_every_picture(tmp_path: Path) -> None:
    pictures = {name: _picture(600, 100, 60 + 40 * n) for n, name in enumerate(PARTS)}
    (path,) = write_figures(tmp_path / "figures", "sub-01_PDw", pictures)
    assert path.suffix == ".png"
    assert path.parent == tmp_path / "figures"
    with Pillow.open(path) as page:
        assert page.format == "PNG"
        column = np.asarray(page.convert("L"))[:, 300]
    assert [int(np.any(np.abs(column.astype(int) - (60 + 40 * n)) < 5)) for n in range(len(PARTS))] == [1] * 4


def test_wide_pictures_are_shrunk(tmp_path: Path) -> None:
    (path,) = write_figures(tmp_path, "s", {"roi.webp": _picture(2200, 300, 100)})
    with Pillow.open(path) as page:
        assert page.width == PAGE_WIDTH + 24


def test_key_with_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    pictures = {"roi.webp": _picture(50, 50, 100)}
    first = write_figures(tmp_path, "../site a/scan", pictures)
    second = write_figures(tmp_path, "../site_a/scan", pictures)
    assert {path.parent for path in first + second} == {tmp_path}
    assert first != second
    assert sorted(tmp_path.iterdir()) == sorted(first + second)


def test_no_pictures_no_file(tmp_path: Path) -> None:
    assert write_figures(tmp_path / "f", "s", {"slice_042.webp": _picture(5, 5, 1)}) == []
    assert not (tmp_path / "f").exists()


def _layers(lesions: list[list[float]]) -> dict[str, bytes]:
    """One slice of 100 by 50: grey under, heat on its left half, lines on its lowest fifth; planes with a mark."""
    heat, lines = Pillow.new("RGBA", (100, 50)), Pillow.new("RGBA", (100, 50))
    heat.paste((255, 80, 0, 255), (0, 0, 50, 50))
    lines.paste((0, 158, 115, 255), (0, 40, 100, 50))
    view = {"title": "AC", "slice": 31, "size": [100, 50], "under": "slice_031.webp", "lesions": lesions}
    planes = {"under": "roi_plain.webp", "outline": "roi.webp", "heat": "layer_p.webp", "size": [200, 100]}
    layers = {
        "slices": [view | {"heat": "layer_0_heat.webp", "lines": "layer_0_lines.webp"}],
        "planes": planes | {"lesions": []},
    }
    return {
        "slice_031.webp": _picture(100, 50, 100),
        "layer_0_heat.webp": encode(heat),
        "layer_0_lines.webp": encode(lines),
        "roi_plain.webp": _picture(100, 50, 60),
        "roi.webp": _picture(200, 100, 140),
        "layer_p.webp": encode(Pillow.new("RGBA", (100, 50))),
        "registration.webp": _picture(200, 100, 200),
        "lesions_ac.webp": _picture(300, 100, 250),
        LAYERS: json.dumps(layers).encode(),
    }


def test_page_lays_over_one_another_what_the_report_does(tmp_path: Path) -> None:
    (path,) = write_figures(tmp_path, "s", _layers([[7, 75.0, 10.0]]))
    with Pillow.open(path) as page:
        pixels = np.asarray(page.convert("RGB")).astype(int)
    # The one slice begins behind title and legend, 544 pixels wide: heat left, grey right, lines at its foot.
    top, width = 90, 544
    at = {name: pixels[top + y, 12 + x] for name, (x, y) in {
        "heat": (width // 4, 100), "grey": (width // 2 + 30, 200), "lines": (3 * width // 4, 260)}.items()}  # fmt: skip
    assert at["heat"][0] - at["heat"][2] > 150
    assert np.ptp(at["grey"]) < 10
    assert abs(int(at["grey"][0]) - 100) < 10
    assert at["lines"][1] - at["lines"][0] > 80
    # The circle of lesion 7 around (75, 10), in sky blue.
    circle = pixels[top + round(10 * 5.44), 12 + round((75 + 5) * 5.44) - 4 : 12 + round((75 + 5) * 5.44) + 5]
    assert (circle[:, 2] - circle[:, 0]).max() > 80
    # The outline of the region and the registration follow; the flat picture of earlier versions does not.
    column = pixels[top + 300 :, 100, 0]
    assert (np.abs(column - 140) < 5).any()
    assert (np.abs(column - 200) < 5).any()
    assert not (np.abs(column - 250) < 4).any()


def test_cohort_is_drawn_flagged_scans_first_with_the_density(tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    cohort = write_made_up(out, MadeUp(scans=130))
    drawn = write_cohort_figures(tmp_path / "figures", cohort, OutputPaths.of(out).store)
    # 117 of 130 scans did not fail: they fill one page of 120.
    assert [path.name for path in drawn] == ["cohort.scans-001.png", "cohort.lesions.png"]
    with Pillow.open(drawn[0]) as page:
        mosaic = np.asarray(page.convert("RGB")).astype(int)
    assert mosaic.shape[1] == 2 * 12 + ACROSS * (THUMB[0] + 4)
    flagged = int((cohort.scans["status"] == "flagged").sum())
    corners = [
        mosaic[34 + n // ACROSS * (THUMB[1] + 34), 12 + n % ACROSS * (THUMB[0] + 4) + 50] for n in range(117)
    ]
    # A frame of orange, whose red outweighs its blue, around each flagged scan and around no other.
    assert [bool(r - b > 60) for r, _, b in corners] == [True] * flagged + [False] * (117 - flagged)
    with Pillow.open(drawn[1]) as page:
        density = np.asarray(page.convert("RGB")).astype(int)
    # Heat on both sides of the middle of the axial plane, which is 312 pixels wide and begins at 62.
    hot = np.argwhere(np.ptp(density[34:310, 62:374], axis=2) > 60)[:, 1]
    assert (hot < 156).any()
    assert (hot > 156).any()


def test_cohort_without_pictures_and_lesions_draws_nothing(tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    cohort = write_made_up(out, MadeUp(scans=3, failed_every=1))
    assert write_cohort_figures(tmp_path / "figures", cohort, OutputPaths.of(out).store) == []
    assert not (tmp_path / "figures").exists()
