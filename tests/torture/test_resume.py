"""A second start redoes what a change concerns, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from epvs_cohort.cohort.run import make_ready
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.data.parts import OutputPaths
from epvs_cohort.data.store import HEAT, LABELS, VOLUME, PreparedStore
from epvs_cohort.data.store_checksums import SIDECAR
from epvs_cohort.protocol import DetectionSettings, RegistrationSettings
from tests.torture.conftest import Counted
from tests.torture.drive import leftovers, same_rows, same_tables
from tests.torture.tiny import make_model

pytestmark = pytest.mark.timeout(1500)

KEYS = [f"s{number:02d}" for number in range(4)]
#: Byte of a gzip header that names the system it was written on: the image is the same, the bytes are not.
GZIP_SYSTEM = 9


def made(run: Counted, name: str) -> dict[str, int]:
    """When each scan's file of this name in the store was made."""
    store = PreparedStore(OutputPaths.of(run.out).store)
    return {key: (store.folder(key) / name).stat().st_mtime_ns for key in KEYS}


def with_own_scans(run: Counted, folder: Path) -> Counted:
    shutil.copytree(run.request.scans, folder / "scans")
    return replace(run, request=replace(run.request, scans=folder / "scans"))


def test_another_model_redoes_prediction_only(copied: Counted, tmp_path: Path) -> None:
    before, heat = made(copied, VOLUME), made(copied, HEAT)
    model = make_model(tmp_path / "other", seed=5)
    cohort = copied.again(protocol=copied.request.protocol.model_copy(update={"model": str(model)}))
    assert made(copied, VOLUME) == before
    assert all(made(copied, HEAT)[key] != heat[key] for key in KEYS)
    assert (cohort.scans["count"] != copied.cohort.scans["count"]).all()
    assert cohort.scans["model_id"].nunique() == 1
    assert set(cohort.scans["model_id"]) != set(copied.cohort.scans["model_id"])


def test_other_detection_redoes_detection_only(copied: Counted) -> None:
    before, heat = made(copied, VOLUME), made(copied, HEAT)
    detection = DetectionSettings(connectivity=6)
    cohort = copied.again(protocol=copied.request.protocol.model_copy(update={"detection": detection}))
    assert made(copied, VOLUME) == before
    assert made(copied, HEAT) == heat
    assert cohort.scans["count"].equals(copied.cohort.scans["count"])
    assert set(cohort.scans["protocol_id"]) != set(copied.cohort.scans["protocol_id"])


def test_other_registration_redoes_all(copied: Counted) -> None:
    before, heat = made(copied, VOLUME), made(copied, HEAT)
    registration = RegistrationSettings(resolution_mm=6.0, seed=7)
    protocol = copied.request.protocol.model_copy(update={"registration": registration})
    cohort = copied.again(protocol=protocol, discover=DiscoverOptions(limit=1))
    assert cohort.scans["scan"].tolist() == ["s00"]
    after, heat_after = made(copied, VOLUME), made(copied, HEAT)
    assert [key for key in KEYS if after[key] != before[key]] == ["s00"]
    assert [key for key in KEYS if heat_after[key] != heat[key]] == ["s00"]


def test_only_changed_bytes_redo_a_scan_and_verify_finds_them_behind_an_unchanged_time(
    copied: Counted, tmp_path: Path
) -> None:
    run = with_own_scans(copied, tmp_path)
    before, heat = made(run, VOLUME), made(run, HEAT)
    # Other files with the same bytes: hashed once, and nothing is made again.
    run.again()
    assert (made(run, VOLUME), made(run, HEAT)) == (before, heat)
    assert not make_ready(run.request).plan.todo
    (run.request.scans / "s00.nii.gz").touch()
    assert [scan.key for scan in make_ready(run.request).plan.todo] == ["s00"]
    run.again()
    assert (made(run, VOLUME), made(run, HEAT)) == (before, heat)
    # Another byte behind the same size, time and inode is trusted, as documented, until somebody asks.
    path = run.request.scans / "s01.nii.gz"
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(GZIP_SYSTEM)
        file.write(b"\x07")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not make_ready(run.request).plan.todo
    cohort = run.again(verify=True)
    after = made(run, VOLUME)
    assert [key for key in KEYS if after[key] != before[key]] == ["s01"]
    changed = cohort.scans["input_sha256"] != copied.cohort.scans["input_sha256"]
    assert cohort.scans["scan"][changed].tolist() == ["s01"]
    assert cohort.scans["count"].equals(copied.cohort.scans["count"])


def test_a_scan_removed_between_two_starts_is_not_in_the_tables_or_failed(
    copied: Counted, tmp_path: Path
) -> None:
    run = with_own_scans(copied, tmp_path)
    (run.request.scans / "s02.nii.gz").unlink()
    cohort = run.again()
    assert cohort.scans["scan"].tolist() == ["s00", "s01", "s03"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("scan,path\n" + "".join(f"{key},scans/{key}.nii.gz\n" for key in KEYS))
    cohort = run.again(scans=manifest)
    assert cohort.scans["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert cohort.scans["error_kind"][2] == "unreadable"
    assert "s02.nii.gz" in cohort.scans["error_message"][2]


def test_flipped_bytes_in_every_kind_of_file_are_noticed_and_made_again(copied: Counted) -> None:
    store = PreparedStore(OutputPaths.of(copied.out).store)
    before = made(copied, VOLUME)
    for key, name in zip(KEYS, (VOLUME, LABELS, SIDECAR, HEAT), strict=True):
        path = store.folder(key) / name
        if name == SIDECAR:
            sidecar = json.loads(path.read_bytes())
            sidecar["native_from_grid"][1][3] += 1.0
            path.write_text(json.dumps(sidecar))
            continue
        blob = bytearray(path.read_bytes())
        blob[-9] ^= 0x40
        path.write_bytes(blob)
    heat = made(copied, HEAT)
    copied.again(verify=True)
    same_tables(copied.out, copied.whole)
    after, heat_after = made(copied, VOLUME), made(copied, HEAT)
    assert [key for key in KEYS if after[key] != before[key]] == KEYS[:3]
    assert heat_after[KEYS[3]] != heat[KEYS[3]]


def test_a_clock_set_back_between_two_starts_changes_nothing(copied: Counted, tmp_path: Path) -> None:
    run = with_own_scans(copied, tmp_path)
    run.again()
    ahead = time.time() + 3 * 86400
    # To a clock that was set back by three days, all that is there comes from the future.
    for path in run.out.parent.rglob("*"):
        os.utime(path, (ahead, ahead))
    assert not make_ready(run.request).plan.todo
    run.again(verify=True)
    same_rows(run.out, run.whole, KEYS)
    assert made(run, VOLUME) == dict.fromkeys(KEYS, pytest.approx(int(ahead * 1e9), abs=1e7))
    assert not leftovers(run.out.parent)
