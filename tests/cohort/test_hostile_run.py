"""A real run over hostile files with good scans among them: one row each, and the good ones count the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.run import RunRequest
from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.discover import DiscoverOptions
from epvs_cohort.data.sniff import extension_of
from tests.cohort.conftest import TWO_PROCESSES, Counted
from tests.hostile.corpus import corpus
from tests.hostile.folder_cases import NAMES

pytestmark = pytest.mark.timeout(900)

#: One of each family; each is one file that is no scan which can be counted.
SAMPLE = (
    "nifti1-dim-32767",
    "nifti2-vox_offset-0",
    "cut-plain-348",
    "cut-gzip-40",
    "bomb-uint8",
    "bomb-gzip-in-gzip",
    "claims-30000-cubed-a.nii.gz",
    "affine-00-nan",
    "affine-singular",
    "header-swapped-alone",
    "magic-b'n+3'",
    "pickle-as-a.nii",
    "slope-inf-0.0",
    "voxel-inf",
    "type-128",
    "mha-ndims-1000",
    "mha-bomb-640-MET_DOUBLE",
    "nrrd-sizes-9",
    "pipe-a.nii.gz",
    "link-to-itself",
    "link-to-zero",
)


@pytest.fixture(scope="module")
def cohort(counted: Counted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    scans, made = folder / "scans", folder / "made"
    scans.mkdir()
    cases = {case.name: case for case in corpus()}
    for number, name in enumerate(SAMPLE):
        place = made / str(number)
        place.mkdir(parents=True)
        path = cases[name].make(place)
        os.rename(path, scans / f"bad{number:02d}{extension_of(path)}")
    (scans / "loop").symlink_to(scans)
    good = sorted(counted.scans.rglob("*_PDw.nii.gz"))
    shutil.copy(good[0], scans / f"{NAMES['attribute']}.nii.gz")
    shutil.copy(good[1], scans / f"{NAMES['newline']}.nii.gz")
    # Cut to what a name may have with its extension, in bytes.
    shutil.copy(good[2], scans / f"{'é' * 123}.nii.gz")
    request = RunRequest(scans, folder / "counts.parquet", cluster=TWO_PROCESSES, save_maps=True)
    return run_cohort(request, figures=True, report=True), folder


def test_every_hostile_file_is_one_failed_row_with_a_clear_error(cohort: tuple[Cohort, Path]) -> None:
    rows = cohort[0].scans.set_index("scan")
    bad = rows[rows.index.str.startswith("bad")]
    assert len(bad) == len(SAMPLE)
    assert set(bad["status"]) == {"failed"}
    assert set(bad["error_kind"]) <= {"unreadable", "unsuitable_image", "too_large", "roi"}
    assert bad["error_message"].str.contains("bad").all()


def test_good_scans_beside_them_count_the_same_to_the_bit(
    cohort: tuple[Cohort, Path], counted: Counted
) -> None:
    found, alone = cohort[0], counted.cohort
    names = (NAMES["attribute"], NAMES["newline"], "é" * 123)
    rows, other = found.scans.set_index("scan"), alone.scans.set_index("scan")
    for name, key in zip(names, sorted(other.index), strict=False):
        for column in ("count", "threshold", "n_lesions", "status"):
            assert rows.loc[name, column] == other.loc[key, column], (name, column)
        mine = found.lesions[found.lesions["scan"] == name].drop(columns="scan").reset_index(drop=True)
        theirs = alone.lesions[alone.lesions["scan"] == key].drop(columns="scan").reset_index(drop=True)
        assert len(mine) > 0
        assert mine.equals(theirs), name
    assert len(rows) == len(SAMPLE) + len(names)


def test_nothing_was_executed_and_nothing_left(cohort: tuple[Cohort, Path]) -> None:
    folder = cohort[1]
    assert list(folder.rglob("executed")) == []
    assert list(folder.rglob("*.epvs-tmp*")) == []


def test_a_manifest_names_them_too(counted: Counted, cohort: tuple[Cohort, Path], tmp_path: Path) -> None:
    """The same by a table with a byte-order mark, semicolons, and keys that are no file names."""
    good = min(counted.scans.rglob("*_PDw.nii.gz"))
    bad = cohort[1] / "scans" / "bad00.nii"
    manifest = tmp_path / "scans.csv"
    manifest.write_text(
        f'scan;path\n"../../up";{good}\n"<b>&\n""x""";{bad}\n{"k" * 2000};{bad}\n', encoding="utf-8-sig"
    )
    request = RunRequest(
        manifest,
        tmp_path / "c.parquet",
        store=tmp_path / "s",
        cluster=TWO_PROCESSES,
        discover=DiscoverOptions(),
    )
    rows = run_cohort(request, report=True).scans.set_index("scan")
    assert rows.drop("../../up")["status"].tolist() == ["failed", "failed"]
    first = counted.cohort.scans.set_index("scan")["count"]
    assert rows["count"].to_dict()["../../up"] == first.to_dict()["sub-0001_PDw"]
    # Nothing lies above the folder of the output, and the report's files beside it.
    mine = {path.name for path in tmp_path.iterdir() if not path.name.startswith("c.report")}
    assert mine == {"scans.csv", "s", "c.parquet", "c.lesions.parquet", "c.qc.parquet", "c.parts"}
