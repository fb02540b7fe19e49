"""Acquisition facts from the BIDS JSON side-car of an image; nothing about the person is ever read out."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

from epvs_cohort.data.sniff import stem_of
from epvs_cohort.records import AcquisitionFacts

#: Longest name of a vendor or model that is believed.
_NAME_LIMIT = 64
_MAX_SIDECAR_BYTES = 16 << 20


def facts_beside(path: Path) -> tuple[AcquisitionFacts, tuple[str, ...]]:
    """Facts from ``<stem>.json`` beside the image, and notes on what was unusable there.

    A missing side-car gives empty facts; a damaged one a note, since the image does not depend on it.
    """
    sidecar = path.with_name(f"{stem_of(path)}.json")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > _MAX_SIDECAR_BYTES:
            return AcquisitionFacts(), ()
        fields = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        return AcquisitionFacts(), (f"side-car {sidecar.name} cannot be read: {error}",)
    if not isinstance(fields, dict):
        return AcquisitionFacts(), (f"side-car {sidecar.name} is no JSON object",)
    name = scanner_name(
        fields.get("Manufacturer"), fields.get("ManufacturersModelName"), fields.get("MagneticFieldStrength")
    )
    dates = (iso_date(fields.get(key)) for key in ("AcquisitionDate", "AcquisitionDateTime"))
    return AcquisitionFacts(name, next((found for found in dates if found), None)), ()


def scanner_name(manufacturer: object, model: object, tesla: object) -> str | None:
    """Vendor, model and field strength in one string; None where none is told.

    >>> scanner_name("Siemens", "Prisma", 3)
    'Siemens Prisma 3T'
    """
    words = [" ".join(str(part).split())[:_NAME_LIMIT] for part in (manufacturer, model) if part]
    try:
        strength = float(str(tesla))
    except ValueError:
        strength = 0.0
    if 0.0 < strength < 30.0:
        words.append(f"{strength:g}T")
    return " ".join(word for word in words if word.isprintable() and word) or None


def iso_date(text: object) -> str | None:
    """``YYYY-MM-DD`` from a DICOM date (YYYYMMDD) or an ISO date or time stamp; None where it is neither.

    >>> iso_date("20010316"), iso_date("2001-03-16T10:11:12"), iso_date("March")
    ('2001-03-16', '2001-03-16', None)
    """
    match = re.match(r"\s*(\d{4})[-.]?(\d{2})[-.]?(\d{2})(?!\d{1,5}$)", str(text or ""))
    if match is None:
        return None
    try:
        return date(*(int(part) for part in match.groups())).isoformat()
    except ValueError:
        return None
