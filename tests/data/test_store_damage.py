"""Any byte that changes in the prepared store is noticed, or changes nothing; none stops the program."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.data.store import HEAT, PICTURES, VOLUME, PreparedStore
from epvs_cohort.data.store_checksums import SIDECAR
from epvs_cohort.errors import StoreError
from epvs_cohort.records import Prediction
from tests.data.test_store import PROVENANCE, a_volume

KEY = a_volume().key


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    store = PreparedStore(tmp_path)
    store.save(a_volume(), PROVENANCE)
    heat = np.random.default_rng(1).normal(size=40).astype(np.float32)
    store.save_heat(Prediction(KEY, 2.5, heat, "model"), "sum")
    return store


def each_byte_flipped(path: Path, bits: int) -> Iterator[int]:
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x80])
def test_each_flipped_byte_of_the_side_car_is_noticed(store: PreparedStore, bits: int) -> None:
    whole = store.load(KEY)
    flipped = passed = 0
    for _ in each_byte_flipped(store.folder(KEY) / SIDECAR, bits):
        flipped += 1
        with contextlib.suppress(StoreError):
            again = store.load(KEY)
            passed += 1
            assert again.provenance == whole.provenance
            np.testing.assert_array_equal(again.volume.native_from_grid, whole.volume.native_from_grid)
    assert flipped > 1000
    # The last of 17 digits may leave the number what it is.
    assert passed < 20
    assert store.load(KEY).provenance == whole.provenance


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x80])
def test_each_flipped_byte_of_a_heatmap_is_noticed(store: PreparedStore, bits: int) -> None:
    path = store.folder(KEY) / HEAT
    for at in each_byte_flipped(path, bits):
        assert store.load_heat(KEY, "model", "sum") is None, at
    kept = store.load_heat(KEY, "model", "sum")
    assert kept is not None
    assert kept.count == 2.5


@pytest.mark.parametrize("bits", [0x01, 0x10, 0x80])
def test_no_flipped_byte_of_the_pictures_stops_anything(store: PreparedStore, bits: int) -> None:
    for _ in each_byte_flipped(store.folder(KEY) / PICTURES, bits):
        store.pictures(KEY)
    assert store.pictures(KEY) == {"roi.webp": b"bytes"}


def test_a_damaged_side_car_gets_no_checksum_that_fits(store: PreparedStore) -> None:
    path = store.folder(KEY) / SIDECAR
    sidecar = json.loads(path.read_bytes())
    sidecar["native_from_grid"][0][3] += 1.0
    path.write_text(json.dumps(sidecar))
    store.restate(KEY, replace(PROVENANCE, input_state="touched"))
    with pytest.raises(StoreError, match=r"prepared\.json.*checksum"):
        store.load(KEY)


def test_a_side_car_of_an_older_version_still_loads(store: PreparedStore) -> None:
    path = store.folder(KEY) / SIDECAR
    sidecar = json.loads(path.read_bytes())
    del sidecar["sha256"][SIDECAR]
    path.write_text(json.dumps(sidecar))
    assert store.load(KEY).checksum == sidecar["sha256"][VOLUME]
    store.restate(KEY, replace(PROVENANCE, input_state="touched"))
    assert SIDECAR in json.loads(path.read_bytes())["sha256"]
    assert store.load(KEY).provenance.input_state == "touched"


def test_a_side_car_that_nests_without_end_is_damaged(store: PreparedStore) -> None:
    (store.folder(KEY) / SIDECAR).write_text("[" * 100_000 + "]" * 100_000)
    assert store.provenance(KEY) is None
    assert store.keys() == ()
    for read in (store.load, store.facts):
        with pytest.raises(StoreError, match="no readable prepared volume"):
            read(KEY)
