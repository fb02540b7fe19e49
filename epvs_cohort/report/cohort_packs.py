"""Pictures and lesions of the scans, in packs of bounded size that the page loads when it needs them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

from epvs_cohort.data.picture_layers import stored_layers
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.report.cohort_mosaic import Sheets
from epvs_cohort.report.cohort_payload import Reviewed, lesion_rows

#: A pack is closed when it holds so many characters or scans.
PACK_CHARACTERS: Final = 4_000_000
PACK_SCANS: Final = 64
#: Pictures that the layers say better.
_FLAT: Final = frozenset({"lesions_ac.webp", "lesions_most.webp"})


class Packer:
    """Goes through the scans once, holding one pack and one sheet of small pictures in memory at a time.

    Parameters
    ----------
    reviewed : Reviewed
    store : PreparedStore
        Pictures; a scan without any is packed without.

    Attributes
    ----------
    pack_of : list of int
        Number of the pack of each scan, once all packs are made.
    placed : list of int or None
        Place of each scan on the sheets; None where it has no slice to show.
    """

    def __init__(self, reviewed: Reviewed, store: PreparedStore) -> None:
        self._keys = reviewed.cohort.scans["scan"].tolist()
        self._lesions = lesion_rows(reviewed.cohort.lesions)
        self._store = store
        self.pack_of = [0] * len(self._keys)
        self.placed: list[int | None] = [None] * len(self._keys)

    def packs(self) -> Iterator[tuple[str, Any]]:
        """Name and content of every pack and sheet."""
        sheets = Sheets()
        number, size, content = 0, 0, dict[str, Any]()
        for row, key in enumerate(self._keys):
            pictures = self._store.pictures(key)
            for sheet, picture in sheets.add(row, pictures):
                yield f"sheet-{sheet:04d}", _text(picture)
            layers = stored_layers(pictures)
            left_out = _FLAT if layers else frozenset[str]()
            texts = {
                name: _text(blob)
                for name, blob in sorted(pictures.items())
                if name.endswith(".webp") and name not in left_out
            }
            content[str(row)] = {"pictures": texts, "layers": layers, "lesions": self._lesions.get(key, [])}
            self.pack_of[row] = number
            size += sum(map(len, texts.values()))
            if size >= PACK_CHARACTERS or len(content) >= PACK_SCANS:
                yield f"pack-{number:04d}", content
                number, size, content = number + 1, 0, {}
        if content:
            yield f"pack-{number:04d}", content
        for sheet, picture in sheets.finish():
            yield f"sheet-{sheet:04d}", _text(picture)
        for row, place in sheets.placed.items():
            self.placed[row] = place


def _text(blob: bytes) -> str:
    return base64.b64encode(blob).decode("ascii")
