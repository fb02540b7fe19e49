"""Small pictures of all scans at the anterior commissure, many of them on a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from PIL import Image as Pillow

from epvs_cohort.data.pictures import decode, encode

#: Width and height of a small picture, and how many stand beside and above one another on a sheet.
THUMB: Final = (108, 84)
ACROSS, DOWN = 16, 16
ON_SHEET: Final = ACROSS * DOWN
_START: Final = "slice_"


class Sheets:
    """Sheets of small pictures, one of which is held in memory at a time."""

    def __init__(self) -> None:
        self.placed: dict[int, int] = {}
        self._sheet: Pillow.Image | None = None

    def add(self, row: int, pictures: Mapping[str, bytes]) -> Iterator[tuple[int, bytes]]:
        """Put the slice of one scan on the sheet; yields number and content of a sheet that is full.

        A scan without such a slice is left out, and told by ``placed``: row of the table to place on the sheets.
        """
        slice_ = ac_picture(pictures)
        if slice_ is None:
            return
        place = len(self.placed)
        if self._sheet is None:
            self._sheet = Pillow.new("L", (THUMB[0] * ACROSS, THUMB[1] * DOWN))
        at = place % ON_SHEET
        small = decode(slice_).convert("L").resize(THUMB, Pillow.Resampling.LANCZOS)
        self._sheet.paste(small, (at % ACROSS * THUMB[0], at // ACROSS * THUMB[1]))
        self.placed[row] = place
        if at == ON_SHEET - 1:
            yield from self.finish()

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """Yield the sheet that is begun, if one is."""
        if self._sheet is not None:
            yield (len(self.placed) - 1) // ON_SHEET, encode(self._sheet, quality=65)
            self._sheet = None


def ac_picture(pictures: Mapping[str, bytes]) -> bytes | None:
    """The slice at the anterior commissure: the middle one of those stored around it.

    >>> ac_picture({"slice_030.webp": b"a", "slice_031.webp": b"b", "slice_032.webp": b"c", "roi.webp": b""})
    b'b'
    """
    slices = sorted(name for name in pictures if name.startswith(_START))
    return pictures[slices[len(slices) // 2]] if slices else None
