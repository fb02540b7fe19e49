"""Volumes read from the store as training sees them, and which are set aside before it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epvs_cohort.data.ac_slab import ac_slab
from epvs_cohort.data.store import LABELS, VOLUME, PreparedStore, store_in
from epvs_cohort.errors import ConfigError, StoreError
from epvs_cohort.model.network import Architecture
from epvs_cohort.model.predict import needed_box
from epvs_cohort.records import AcSlice
from epvs_cohort.train.volumes import StoredVolumes, check_samples
from tests.train.stored import PROVENANCE, SHAPE, protocol, save, volume

SMALL = Architecture(widths=(2,), convs_per_level=1)
SLICE = SMALL.model_copy(update={"pool_within": "ac_slice"})
CROP = SMALL.model_copy(update={"pool_within": "crop"})


def spoil(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 0xFF
    path.write_bytes(blob)


def test_a_volume_is_that_of_the_store_within_the_box_that_matters(tmp_path: Path) -> None:
    samples = save(tmp_path, volume("a"), volume("b", seed=1))
    volumes = StoredVolumes(samples, protocol(), SMALL)
    assert len(volumes) == 2
    whole = PreparedStore(tmp_path).load("b").volume
    box = needed_box(whole.labels, SMALL)
    for _ in range(2):
        read = volumes.load(1)
        assert (read.key, read.count) == ("b", 1.0)
        np.testing.assert_array_equal(read.intensities, whole.intensities[box])
        np.testing.assert_array_equal(read.mask, whole.mask[box])
        assert read.intensities.dtype == np.float32
        assert 0.0 <= read.intensities.min() < read.intensities.max() <= 1.0
        assert read.intensities.flags.c_contiguous
        assert read.mask.flags.c_contiguous
    assert [each.key for each in volumes] == ["a", "b"]


def test_the_slice_is_pooled_and_the_box_is_that_of_the_slice(tmp_path: Path) -> None:
    samples = save(tmp_path, volume("a"))
    whole = PreparedStore(tmp_path).load("a").volume
    slab = ac_slab(whole)
    assert slab is not None
    assert np.flatnonzero(slab.any(axis=(0, 1))).tolist() == [10, 11]
    volumes = StoredVolumes(samples, protocol("ac_slice"), SLICE)
    for _ in range(2):
        read = volumes.load(0)
        # Radius 1 about the tissue 4:20, 5:11 and the rows 10 and 11 of the slice.
        box = (slice(3, 21), slice(4, 12), slice(9, 13))
        np.testing.assert_array_equal(read.mask, (slab & whole.mask)[box])
        np.testing.assert_array_equal(read.intensities, whole.intensities[box])
    seen = StoredVolumes(samples, protocol("ac_slice"), SMALL).load(0)
    assert seen.mask.sum() == whole.mask.sum()
    assert StoredVolumes(samples, protocol(), CROP).load(0).intensities.shape == SHAPE


def test_a_slice_is_not_pooled_where_the_region_was_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only 'ac_slice' is legal"):
        StoredVolumes(save(tmp_path, volume("a")), protocol(), SLICE)


def test_damage_is_noticed_at_the_first_reading(tmp_path: Path) -> None:
    samples = save(tmp_path, volume("a"))
    spoil(samples[0].folder / VOLUME)
    with pytest.raises(StoreError, match="checksum"):
        StoredVolumes(samples, protocol(), SMALL).load(0)


def test_files_that_were_cut_later_are_noticed(tmp_path: Path) -> None:
    samples = save(tmp_path, volume("a"))
    volumes = StoredVolumes(samples, protocol(), SMALL)
    volumes.load(0)
    path = samples[0].folder / LABELS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="expected"):
        volumes.load(0)


def test_what_cannot_be_used_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    empty = replace(volume("empty"), labels=np.zeros(SHAPE, np.uint8))
    high = volume("high", ac=AcSlice(2, 9))
    good, *_ = samples = save(
        tmp_path, volume("good"), volume("damaged"), empty, volume("no_ac", ac=None), high, volume("gone")
    )
    spoil(samples[1].folder / LABELS)
    (samples[5].folder / "prepared.json").unlink()
    checked = check_samples(samples, protocol("ac_slice"), threads=2)
    assert checked.usable == (good,)
    reasons = dict(checked.unusable)
    assert list(reasons) == ["damaged", "empty", "no_ac", "high", "gone"]
    for key, words in {
        "damaged": "checksum",
        "empty": "mask is empty",
        "no_ac": "no slice",
        "high": "does not meet",
        "gone": "no readable prepared volume",
    }.items():
        assert words in reasons[key]
    region = check_samples(samples, protocol())
    assert [each.key for each in region.usable] == ["good", "no_ac", "high"]


def test_volumes_of_another_grid_or_of_two_preparations_are_refused(tmp_path: Path) -> None:
    samples = save(tmp_path / "one", volume("a"))
    wide = protocol().model_copy(
        update={"grid": protocol().grid.model_copy(update={"spacing_mm": (0.5, 0.49, 0.8)})}
    )
    with pytest.raises(ConfigError, match=r"a: prepared on \(24, 16, 20\) voxels of \(0\.49, 0\.49, 0\.8\)"):
        check_samples(samples, wide)
    large = protocol().model_copy(update={"grid": protocol().grid.model_copy(update={"shape": (24, 16, 24)})})
    with pytest.raises(ConfigError, match=r"says \(24, 16, 24\) voxels"):
        check_samples(samples, large)
    with pytest.raises(StoreError, match="prepared on"):
        StoredVolumes(samples, large, SMALL).load(0)
    others = save(tmp_path / "two", volume("b"), provenance=replace(PROVENANCE, prepare_id="q" * 16))
    with pytest.raises(ConfigError, match="prepared under 2 different settings"):
        check_samples((*samples, *others), protocol())


def test_simulated_volumes_must_follow_the_protocol(tmp_path: Path) -> None:
    mine = replace(PROVENANCE, input_state="simulated", prepare_id=protocol().prepare_id)
    samples = save(tmp_path / "mine", volume("a"), provenance=mine)
    assert check_samples(samples, protocol()).usable == samples
    other = protocol().model_copy(update={"trim": protocol().trim.model_copy(update={"headroom": 1.0})})
    with pytest.raises(ConfigError, match="a: simulated under a protocol with other settings"):
        check_samples(samples, other)


def test_a_prepared_cohort_is_found_in_its_folder(tmp_path: Path) -> None:
    save(tmp_path / "cohort" / "prepared", volume("a"))
    for folder in (tmp_path / "cohort", tmp_path / "cohort" / "prepared"):
        store = store_in(folder)
        assert store is not None
        assert store.root == tmp_path / "cohort" / "prepared"
    assert store_in(tmp_path) is None
    assert store_in(tmp_path / "nowhere") is None


WITHOUT = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"itk", "SimpleITK", "dask", "distributed"}:
            raise ImportError("forbidden here: " + name)

sys.meta_path.insert(0, Forbidden())
from pathlib import Path
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.model.network import Architecture
from epvs_cohort.train.samples import Sample, stored_candidates
from epvs_cohort.train.volumes import StoredVolumes, check_samples
from tests.train.stored import protocol

found = stored_candidates(PreparedStore(Path(sys.argv[1])))
samples = tuple(Sample(each.key, each.subject, each.folder, 1.0, 1) for each in found)
usable = check_samples(samples, protocol()).usable
print(StoredVolumes(usable, protocol(), Architecture(widths=(2,))).load(0).intensities.shape)
"""


def test_prepared_volumes_are_read_without_itk_and_dask(tmp_path: Path) -> None:
    save(tmp_path, volume("a"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(")
