"""One run watched from outside: who is listened to, what is written of the people, and who may read it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pydicom
import pytest

from epvs_cohort.data.identity import sha256_of
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort
from tests.cohort.conftest import VOXEL_MM
from tests.data.bad_input import Slice, write_slice

pytestmark = pytest.mark.timeout(900)

#: What stands in headers, side-cars and file names about a person who does not exist, and must be written nowhere.
PLANTED = (
    "Quibbleworth",
    "Hepzibah",
    "19310704",
    "1931-07-04",
    "12 Larkspur Mews",
    "Wexcombe",
    "MRN-5550123",
    "Dr Snodgrass",
    "complains of dizziness",
    "ACC-778899",
    "Saint Elsewhere",
)
_NAME = "Quibbleworth^Hepzibah"


@dataclass(frozen=True)
class Watched:
    """A finished run under pseudonyms, and the addresses that its processes listened on."""

    folder: Path
    secret: Path
    said: str
    code: int
    heard: frozenset[str]

    @property
    def written(self) -> list[Path]:
        """Every file that the run wrote, what stays with the secret apart."""
        return [path for path in (self.folder / "out").rglob("*") if path.is_file()]

    @property
    def scans(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "out" / "counts.parquet")


def _plant(data: pydicom.Dataset) -> None:
    data.PatientName, data.PatientID, data.PatientBirthDate = _NAME, "MRN-5550123", "19310704"
    data.PatientAddress, data.InstitutionName = "12 Larkspur Mews, Wexcombe", "Saint Elsewhere"
    data.ReferringPhysicianName, data.AccessionNumber = "Dr Snodgrass", "ACC-778899"
    data.PatientComments = data.ImageComments = data.StudyDescription = "complains of dizziness"
    data.SeriesDescription = data.ProtocolName = "Quibbleworth complains of dizziness"
    block = data.private_block(0x0009, "SNOOP", create=True)
    block.add_new(0x01, "LO", "Quibbleworth, 12 Larkspur Mews")


def _write_dicom(folder: Path, image: nib.Nifti1Image) -> None:
    """The head as a DICOM series whose header is full of the person, its files named after her."""
    values = np.asarray(image.dataobj).astype("<u2")
    for number in range(values.shape[2]):
        path = write_slice(folder, Slice(number, float(VOXEL_MM[2] * number)))
        data = pydicom.dcmread(path)
        data.Rows, data.Columns = values.shape[1], values.shape[0]
        data.PixelSpacing = [VOXEL_MM[1], VOXEL_MM[0]]
        data.ImagePositionPatient = [-100.0, -120.0, VOXEL_MM[2] * number]
        # Rows of DICOM run to the back, and columns to the left.
        data.PixelData = np.ascontiguousarray(values[::-1, ::-1, number].T).tobytes()
        _plant(data)
        data.save_as(folder / f"Quibbleworth_{number:03d}.dcm", enforce_file_format=True)
        path.unlink()


def _write_nifti(path: Path, image: nib.Nifti1Image) -> None:
    """The head as NIfTI with the person in every text of its header, in an extension and in the side-car."""
    told = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    told.header["descrip"] = b"Quibbleworth 19310704 complains of dizziness"
    told.header["aux_file"], told.header["intent_name"] = b"Hepzibah", b"MRN-5550123"
    told.header["db_name"] = b"Quibbleworth"
    told.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"12 Larkspur Mews, Wexcombe"))
    told.to_filename(path)
    person = {
        "PatientName": _NAME,
        "PatientBirthDate": "1931-07-04",
        "PatientID": "MRN-5550123",
        "InstitutionName": "Saint Elsewhere",
        "InstitutionAddress": "12 Larkspur Mews, Wexcombe",
        "ImageComments": "complains of dizziness",
    }
    scanner = {"Manufacturer": "Vendor", "ManufacturersModelName": "Model", "MagneticFieldStrength": 3}
    sidecar = {**person, **scanner, "AcquisitionDate": "2019-05-06"}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))


def _listening(process: psutil.Process) -> Iterator[str]:
    for one in (process, *process.children(recursive=True)):
        try:
            for connection in one.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield connection.laddr.ip
        except psutil.Error:
            continue


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A whole run of three scans of one person, one of them cut off, under umask 077."""
    folder = tmp_path_factory.mktemp("private")
    simulate_cohort(folder / "made", SimulateOptions(scans=1, seed=11, voxel_mm=VOXEL_MM))
    image = nib.load(folder / "made" / "sub-0001" / "anat" / "sub-0001_PDw.nii.gz")
    scans = folder / "scans" / "Quibbleworth_Hepzibah_19310704"
    scans.mkdir(parents=True)
    _write_dicom(scans / "MRN-5550123", image)
    whole = scans / "Quibbleworth_T2.nii.gz"
    _write_nifti(whole, image)
    (scans / "Hepzibah_cut.nii.gz").write_bytes(whole.read_bytes()[:-3000])
    (scans / "Quibbleworth_mask.nii.gz").write_bytes(whole.read_bytes())
    secret = folder / "study.key"
    secret.write_text("3b5f0c9a77e1d2468ace13579bdf0246\n")
    secret.chmod(0o600)
    command = [sys.executable, "-m", "epvs_cohort", "--verbose", "run", str(folder / "scans")]
    options = [
        "--out",
        str(folder / "out" / "counts.parquet"),
        "--pseudonymise",
        str(secret),
        "--n-procs",
        "2",
    ]
    extras = ["--device", "cpu", "--save-maps", "--figures", "--report"]
    (folder / "out").mkdir(mode=0o700)
    heard: set[str] = set()
    with (folder / "said.log").open("w") as said:
        process = subprocess.Popen([*command, *options, *extras], stdout=said, stderr=said, umask=0o077)
        while process.poll() is None:
            heard.update(_listening(psutil.Process(process.pid)))
            time.sleep(0.5)
    text = (folder / "said.log").read_text()
    return Watched(folder, secret, text, process.returncode, frozenset(heard))


def test_the_run_counted_what_can_be_counted(watched: Watched) -> None:
    assert watched.code == 4, watched.said
    assert sorted(watched.scans["status"].replace("flagged", "ok")) == ["failed", "ok", "ok"]
    assert watched.scans["scan"].str.fullmatch(r"scan-[0-9a-f]{16}").all()
    failed = watched.scans.set_index("status").loc["failed"]
    assert "cut off" in failed["error_message"]
    assert failed["scan"] in failed["error_message"]


def test_only_loopback_is_listened_on(watched: Watched) -> None:
    assert watched.heard
    assert watched.heard <= {"127.0.0.1", "::1"}


def _texts(path: Path) -> Iterator[bytes]:
    """What a file holds, and what it holds compressed."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield repr(table.to_pylist()).encode() + repr(table.schema).encode()
        yield repr(pq.read_schema(path).metadata).encode()
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield repr(archive.namelist()).encode()
            for name in archive.namelist():
                yield archive.read(name)
    elif path.suffix == ".gz":
        yield gzip.decompress(raw)


def _forms(word: str) -> set[bytes]:
    return {word.encode(), word.lower().encode(), word.upper().encode(), word.encode("utf-16-le")}


def test_nothing_of_the_person_is_written(watched: Watched) -> None:
    kinds = {path.suffix for path in watched.written}
    assert {".parquet", ".json", ".html", ".nii", ".zip", ".png", ".gz", ".safetensors"} <= kinds
    found = [
        (path.name, word)
        for path in watched.written
        for text in _texts(path)
        for word in PLANTED
        if any(form in text for form in _forms(word))
    ]
    assert found == []
    names = [str(path.relative_to(watched.folder)) for path in watched.written]
    assert [name for name in names for word in PLANTED if word in name] == []


def test_nothing_of_the_person_is_said(watched: Watched) -> None:
    assert "passed over: 1 files or folders" in watched.said
    assert [word for word in PLANTED if word.lower() in watched.said.lower()] == []


def test_what_is_written_is_as_private_as_asked(watched: Watched) -> None:
    wide = [
        path
        for path in (watched.folder / "out").rglob("*")
        if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]
    assert wide == []
    assert watched.secret.with_name("study.key.links").stat().st_mode & 0o777 == 0o700


def test_the_names_stay_with_the_secret(watched: Watched) -> None:
    table = watched.secret.with_name("study.key.names.csv")
    assert table.stat().st_mode & 0o777 == 0o600
    names = pd.read_csv(table).set_index("pseudonym")
    assert set(names.index) == set(watched.scans["scan"])
    assert names["path"].str.contains("Quibbleworth").all()
    counted = watched.scans[watched.scans["status"] != "failed"].set_index("scan")["input_sha256"]
    for pseudonym, digest in counted.items():
        path = Path(str(names.loc[str(pseudonym), "path"]))
        # The hash of a folder is over the names of its files too, which the links have changed.
        assert path.is_dir() or sha256_of(path) == digest


def test_scanner_and_date_are_kept(watched: Watched) -> None:
    counted = watched.scans[watched.scans["status"] != "failed"]
    assert set(counted["scanner"]) == {"GE Signa 1.5T", "Vendor Model 3T"}
    assert set(counted["acquisition_date"]) == {"2005-12-24", "2019-05-06"}


def test_a_second_start_goes_on_under_the_same_pseudonyms(watched: Watched) -> None:
    command = [sys.executable, "-m", "epvs_cohort", "run", str(watched.folder / "scans"), "--dry-run"]
    options = ["--out", str(watched.folder / "out" / "counts.parquet"), "--pseudonymise", str(watched.secret)]
    told = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=True, env=os.environ.copy()
    ).stdout
    assert "2 are done already" in told
