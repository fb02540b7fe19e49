"""The page of one scan: written whole, named safely, legible width, nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from epvs_cohort.data.pictures import encode, grey_panel
from epvs_cohort.report.figures import PAGE_WIDTH, PARTS, write_figures


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
