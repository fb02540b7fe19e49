"""Random damage of valid files of every format, read in bounded processes: what libraries in C cannot take is seen."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.bad_input import AFFINE, nifti_bytes, volume, write_series
from tests.hostile.bounded import read_bounded
from tests.hostile.cases import Case, file_case
from tests.hostile.format_cases import meta_bytes, nrrd_bytes

pytestmark = pytest.mark.timeout(900)

#: Damaged files of one example; each example is one process.
BATCH = 60
_SMALL = volume((5, 6, 4))
_VALID = {
    "a.nii": bytes(nifti_bytes(_SMALL)),
    "a.nii.gz": gzip.compress(bytes(nifti_bytes(_SMALL)), mtime=0),
    "a.mgh": bytes(nib.MGHImage(_SMALL, AFFINE.astype(np.float32)).to_bytes()),
    "a.mha": meta_bytes(),
    "a.nrrd": nrrd_bytes(),
}
#: What readers take for structure.
_TOKENS = (
    b"\n",
    b" = ",
    b": ",
    b":=",
    b"=",
    b"-",
    b"0",
    b"9" * 20,
    b"%d",
    b"%s%n",
    b"\0",
    b"\xff",
    b"(",
    b",",
    b"nan",
    b"LIST",
)


def damaged(rng: np.random.Generator, raw: bytes) -> bytes:
    """Bytes changed, doubled, cut out, moved or replaced by what readers take for structure."""
    out = bytearray(raw)
    for _ in range(int(rng.integers(1, 8))):
        # Headers come first, and are what breaks.
        at = int(min(rng.exponential(200.0), max(len(out) - 1, 0)))
        to = at + int(rng.integers(1, 40))
        match int(rng.integers(5)):
            case 0:
                out[at : at + 1] = rng.bytes(1)
            case 1:
                del out[at:to]
            case 2:
                out[at:at] = out[at:to] * int(rng.integers(1, 60))
            case 3:
                out[at:at] = _TOKENS[int(rng.integers(len(_TOKENS)))]
            case _:
                del out[to:]
    return bytes(out)


def _dicom(seed: int) -> Case:
    def make(folder: Path) -> Path:
        rng = np.random.default_rng(seed)
        write_series(folder / "d")
        for path in sorted((folder / "d").iterdir())[: int(rng.integers(1, 7))]:
            raw = path.read_bytes()
            path.write_bytes(raw[:144] + damaged(rng, raw[144:]))
        return folder / "d"

    return Case(f"dicom-{seed}", make)


def _batch(seed: int, file: str) -> list[Case]:
    rng = np.random.default_rng(seed)
    if file == "dicom":
        return [_dicom(seed * BATCH + at) for at in range(BATCH)]
    return [file_case(f"{file}-{seed}-{at}", file, damaged(rng, _VALID[file])) for at in range(BATCH)]


def _hold(seed: int, file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        endings = read_bounded(_batch(seed, file), Path(folder))
    assert [ending for ending in endings if ending.broken] == []
    assert len(endings) == BATCH


@pytest.mark.parametrize("file", ["a.mha", "a.nrrd"])
def test_one_batch_of_damaged_files_of_the_libraries_in_c(file: str) -> None:
    _hold(20261130, file)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", [*_VALID, "dicom"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_batches_of_damaged_files(file: str, seed: int) -> None:
    _hold(seed, file)
