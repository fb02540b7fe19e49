"""The files of a simulated cohort: BIDS images, side-cars, tables and truth."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from epvs_cohort.data.atlas import REGIONS
from epvs_cohort.data.files import write_whole
from epvs_cohort.data.sidecar import scanner_name
from epvs_cohort.geometry import FloatArray
from epvs_cohort.records import AcquisitionFacts
from epvs_cohort.simulate.heads import Head
from epvs_cohort.simulate.lesions import LesionSpec
from epvs_cohort.simulate.scanner import Scanner

SUFFIX = "PDw"
SIMULATION_FILE = "simulation.json"
#: Of every simulated scanner: the column scanner of a table of counts begins with it.
MANUFACTURER = "Simulated"
STATEMENT = "Simulated by epvs-cohort simulate; not a scan of a person."

POINT_COLUMNS = (
    "scan", "lesion", "x_mm", "y_mm", "z_mm", "region", "length_mm", "radius_mm", "contrast",
    "in_ac_slice", "ac_x_mm", "ac_y_mm", "ac_z_mm",
)  # fmt: skip

#: Noise above this, relative to white matter, passes for the weaker of two scanners.
_WEAK_FIELD_NOISE = 0.04
_FIRST_DATE = date(2015, 1, 5)
#: Days from the first visit to the second.
RESCAN_DAYS = 21


@dataclass(frozen=True)
class Entry:
    """One scan of a cohort, as known without its image.

    Attributes
    ----------
    number : int
        Of the person, from 1.
    covariates : mapping of str to value
        Columns of ``participants.tsv``.
    readings : mapping of str to int
        Count of each simulated reading.
    visit : int
        1, or 2 for the rescan.
    """

    number: int
    covariates: Mapping[str, str | int | float]
    readings: Mapping[str, int]
    visit: int = 1

    @property
    def participant(self) -> str:
        """BIDS name of the person."""
        return f"sub-{self.number:04d}"

    @property
    def scan(self) -> str:
        """Key of the scan."""
        return f"{self.participant}_{SUFFIX}"


@dataclass(frozen=True)
class ScanTruth:
    """What the tables hold of one scan."""

    entry: Entry
    points: tuple[Mapping[str, str | int | float], ...]

    @property
    def count(self) -> int:
        """Perivascular spaces in the whole ROI."""
        return len(self.points)

    @property
    def ac_count(self) -> int:
        """Those that the AC slice cuts."""
        return sum(int(point["in_ac_slice"]) for point in self.points)


def write_scan(out: Path, entry: Entry, head: Head) -> ScanTruth:
    """Write one scan, its side-car and its truth images; return its rows."""
    participant, scan = entry.participant, entry.scan
    folder = out / participant / "anat"
    truth = out / "derivatives" / "truth" / participant / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    affine = head.grid.affine
    _write_image(folder / f"{scan}.nii.gz", head.data, affine)
    _write_json(folder / f"{scan}.json", _side_car(entry, head.scanner))
    _write_image(truth / f"{participant}_desc-lesions_dseg.nii.gz", head.lesion_labels, affine)
    _write_image(truth / f"{participant}_desc-regions_dseg.nii.gz", head.region_labels, affine)
    _write_json(truth / f"{participant}_desc-truth.json", _truth(head))
    return scan_truth(entry, head.lesions, head.crossings_mm)


def write_tables(out: Path, truths: Sequence[ScanTruth], parameters: Mapping[str, object]) -> None:
    """Write the tables and descriptions of a cohort whose scans are written."""
    names = sorted({name for truth in truths for name in truth.entry.covariates})
    people = [{"participant_id": t.entry.participant, **t.entry.covariates} for t in truths]
    _write_table(out / "participants.tsv", ("participant_id", *names), people, "\t")
    counts = [{"scan": t.entry.scan, "count": t.count} for t in truths]
    _write_table(out / "counts.csv", ("scan", "count"), counts, ",")
    in_slice = [{"scan": t.entry.scan, "count": t.ac_count} for t in truths]
    _write_table(out / "counts_ac_slice.csv", ("scan", "count"), in_slice, ",")
    read = [
        {"scan": t.entry.scan, "count": count, "reader": reader}
        for t in truths
        for reader, count in t.entry.readings.items()
    ]
    _write_table(out / "counts_rater.csv", ("scan", "count", "reader"), read, ",")
    points = [point for truth in truths for point in truth.points]
    _write_table(out / "points.csv", POINT_COLUMNS, points, ",")
    truth_folder = out / "derivatives" / "truth"
    _write_json(out / "dataset_description.json", _description("raw"))
    # What BIDS has no name for; its validator calls such files errors otherwise.
    ignored = ("counts*.csv", "points.csv", SIMULATION_FILE, "prepared/", "figures/", "figures.html")
    write_whole(out / ".bidsignore", ("\n".join(ignored) + "\n").encode())
    if truth_folder.exists():
        _write_json(truth_folder / "dataset_description.json", _description("derivative"))
    _write_json(out / SIMULATION_FILE, {"statement": STATEMENT, **parameters})


def scan_truth(
    entry: Entry, lesions: Sequence[LesionSpec], crossings_mm: Sequence[FloatArray | None]
) -> ScanTruth:
    """Rows of one scan in the tables.

    Parameters
    ----------
    lesions : sequence of LesionSpec
        In native RAS mm.
    crossings_mm : sequence of ndarray, shape (3,), or None
        For each lesion the middle of its part within the AC slice, native RAS mm.
    """
    return ScanTruth(entry, tuple(_points(entry.scan, lesions, crossings_mm)))


def facts_of(entry: Entry, scanner: Scanner) -> AcquisitionFacts:
    """Scanner and date of a scan, as its side-car tells them."""
    car = _side_car(entry, scanner)
    name = scanner_name(car["Manufacturer"], car["ManufacturersModelName"], car["MagneticFieldStrength"])
    return AcquisitionFacts(name, str(car["AcquisitionDate"]))


def _points(
    scan: str, lesions: Sequence[LesionSpec], crossings_mm: Sequence[FloatArray | None]
) -> Iterable[dict[str, str | int | float]]:
    for number, (lesion, crossing) in enumerate(zip(lesions, crossings_mm, strict=True), start=1):
        row: dict[str, str | int | float] = {"scan": scan, "lesion": number}
        row |= _millimetres(("x_mm", "y_mm", "z_mm"), lesion.center_mm)
        row["region"] = REGIONS.get(lesion.region, "")
        row["length_mm"] = round(lesion.length_mm, 3)
        row["radius_mm"] = round(lesion.radius_mm, 3)
        row["contrast"] = round(lesion.contrast, 3)
        row["in_ac_slice"] = int(crossing is not None)
        if crossing is not None:
            row |= _millimetres(("ac_x_mm", "ac_y_mm", "ac_z_mm"), crossing)
        yield row


def _millimetres(names: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def _side_car(entry: Entry, scanner: Scanner) -> dict[str, object]:
    weak = scanner.noise_sigma > _WEAK_FIELD_NOISE
    days = entry.number % 3650 + (entry.visit - 1) * RESCAN_DAYS
    return {
        "Manufacturer": MANUFACTURER,
        "ManufacturersModelName": "Virtual A" if weak else "Virtual B",
        "MagneticFieldStrength": 1.5 if weak else 3,
        "AcquisitionDate": (_FIRST_DATE + timedelta(days=days)).isoformat(),
        "ImageComments": STATEMENT,
    }


def _truth(head: Head) -> dict[str, object]:
    return {
        "native_from_person": head.native_from_person.tolist(),
        "ac_mm": head.ac_mm.tolist(),
        "ac_slice": None if head.ac is None else {"axis": head.ac.axis, "index": head.ac.index},
        "noise_sigma": head.scanner.noise_sigma,
        "psf_sigma_mm": list(head.scanner.psf_sigma_mm),
        "bias": head.scanner.bias,
        "regions": {str(number): name for number, name in REGIONS.items()},
        "statement": STATEMENT,
    }


def _description(kind: str) -> dict[str, object]:
    return {
        "Name": "Simulated cohort of perivascular spaces",
        "BIDSVersion": "1.9.0",
        "DatasetType": kind,
        "GeneratedBy": [{"Name": "epvs-cohort simulate"}],
        "HowToAcknowledge": STATEMENT,
    }


def _write_image(path: Path, data: npt.NDArray[np.generic], affine: FloatArray) -> None:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(affine, code="scanner")
    image.header.set_sform(affine, code="scanner")
    # Noise hardly compresses: level 1 is as small as any and the quickest. No time stamp: same seed, same bytes.
    write_whole(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]], separator: str
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
