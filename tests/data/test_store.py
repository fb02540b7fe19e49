"""The prepared store gives back what it was given, and notices what was changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from epvs_cohort.data.store import (
    HEAT,
    INTENSITY_STEP,
    LABELS,
    VOLUME,
    PreparedStore,
    Provenance,
    folder_name,
)
from epvs_cohort.errors import StoreError
from epvs_cohort.geometry import Grid
from epvs_cohort.records import AcSlice, MniMap, Prediction, PreparedVolume, QcValue

SHAPE = (12, 8, 10)
PROVENANCE = Provenance("f" * 16, "p" * 16, "/scan.nii", "{}", "0" * 64, {"mask": "1" * 64}, 1.5)


def a_volume(key: str = "sub-01_PDw") -> PreparedVolume:
    rng = np.random.default_rng(3)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 2:6, 3:7] = 255
    labels[4:6, 3:5, 4:6] = 3
    angle = 0.2
    native_from_grid = np.array(
        [
            [0.49 * np.cos(angle), -0.49 * np.sin(angle), 0, 5],
            [0.49 * np.sin(angle), 0.49 * np.cos(angle), 0, -7],
            [0, 0, 0.8, 11],
            [0, 0, 0, 1],
        ]
    )
    return PreparedVolume(
        key=key,
        intensities=rng.random(SHAPE).astype(np.float32),
        labels=labels,
        regions={3: "left putamen"},
        native_from_grid=native_from_grid,
        rigid_from_native=np.linalg.inv(native_from_grid),
        mni=MniMap(np.eye(4), rng.normal(size=(3, 2, 4, 3)), SHAPE),
        native=Grid((20, 30, 40), np.diag([1.0, 1.0, 2.0, 1.0])),
        ac=AcSlice(2, 17),
        quality=(QcValue("snr", 12.5, "ratio"), QcValue("unknown", float("nan"), "mm")),
        notes=("a note",),
        pictures={"roi.webp": b"bytes"},
    )


def test_a_volume_comes_back_within_the_steps_of_uint16(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path / "store"), a_volume()
    store.save(volume, PROVENANCE)
    back = store.load(volume.key)
    assert np.abs(back.volume.intensities - volume.intensities).max() <= 0.5 / 65535 + 1e-7
    np.testing.assert_array_equal(back.volume.labels, volume.labels)
    np.testing.assert_array_equal(back.volume.native_from_grid, volume.native_from_grid)
    np.testing.assert_allclose(back.volume.mni.offsets_mm, volume.mni.offsets_mm, atol=5.1e-4)
    assert back.volume.regions == volume.regions
    assert back.volume.ac == volume.ac
    assert back.volume.quality == (QcValue("snr", 12.5, "ratio"), QcValue("unknown", None, "mm"))
    assert back.provenance == PROVENANCE
    assert store.pictures(volume.key) == {"roi.webp": b"bytes"}


def test_any_viewer_opens_the_volume_over_the_scan(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    image = nib.load(store.save(volume, PROVENANCE) / VOLUME)
    np.testing.assert_allclose(image.affine, volume.native_from_grid, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), volume.native_from_grid, atol=1e-4)
    np.testing.assert_allclose(image.get_fdata(), volume.intensities, atol=1e-5)


def test_a_memory_map_holds_what_a_reading_gives(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    folder = store.save(volume, PROVENANCE)
    stored, labels = store.mapped(volume.key, SHAPE)
    np.testing.assert_array_equal(stored * INTENSITY_STEP, store.load(volume.key).volume.intensities)
    np.testing.assert_array_equal(labels, volume.labels)
    assert not stored.flags.writeable
    for shape in ((12, 8, 9), (12, 8, 11)):
        with pytest.raises(StoreError, match="expected"):
            store.mapped(volume.key, shape)
    (folder / LABELS).unlink()
    with pytest.raises(StoreError, match=r"labels\.nii"):
        store.mapped(volume.key, SHAPE)


def test_a_side_car_tells_grid_and_slice_without_voxels(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    folder = store.save(volume, PROVENANCE)
    (folder / VOLUME).unlink()
    facts = store.facts(volume.key)
    assert (facts.shape, facts.spacing_mm, facts.ac) == (SHAPE, (0.49, 0.49, 0.8), volume.ac)
    assert facts.provenance == PROVENANCE
    assert store.keys() == (volume.key,)
    with pytest.raises(StoreError, match="no readable prepared volume"):
        store.facts("another")
    (folder / "prepared.json").write_text("{")
    with pytest.raises(StoreError, match="no readable prepared volume"):
        store.facts(volume.key)
    assert store.keys() == ()
    assert PreparedStore(tmp_path / "nowhere").keys() == ()


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    path = store.save(volume, PROVENANCE) / VOLUME
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 0xFF
    path.write_bytes(blob)
    with pytest.raises(StoreError, match=r"volume\.nii.*checksum"):
        store.load(volume.key)


def test_heat_is_bound_to_model_and_volume(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    store.save(volume, PROVENANCE)
    heat = np.random.default_rng(1).normal(size=int(volume.mask.sum())).astype(np.float32)
    store.save_heat(Prediction(volume.key, 0.1 + 0.2, heat, "model-a"), "sum-a")
    kept = store.load_heat(volume.key, "model-a", "sum-a")
    assert kept is not None
    assert kept.count == 0.1 + 0.2
    np.testing.assert_array_equal(kept.heat, heat)
    assert store.load_heat(volume.key, "model-b", "sum-a") is None
    assert store.load_heat(volume.key, "model-a", "sum-b") is None
    path = store.folder(volume.key) / HEAT
    path.write_bytes(path.read_bytes()[:-7])
    assert store.load_heat(volume.key, "model-a", "sum-a") is None


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    store.save(volume, PROVENANCE)
    store.save(replace(volume, notes=("second",)), replace(PROVENANCE, fingerprint="e" * 16))
    assert store.load(volume.key).volume.notes == ("second",)
    assert [path.name for path in tmp_path.iterdir()] == [folder_name(volume.key)]
    assert len(list(store.folder(volume.key).iterdir())) <= 5


def test_pictures_are_added_beside_those_that_are_there(tmp_path: Path) -> None:
    store, volume = PreparedStore(tmp_path), a_volume()
    store.save(volume, PROVENANCE)
    store.add_pictures(volume.key, {"lesions.webp": b"more"})
    assert store.pictures(volume.key) == {"roi.webp": b"bytes", "lesions.webp": b"more"}


@pytest.mark.parametrize("key", ["a/b", "../../etc/passwd", "ü" * 300, "", ".", "x\ny", "CON"])
def test_folders_are_legal_and_inside_whatever_the_key(tmp_path: Path, key: str) -> None:
    folder = PreparedStore(tmp_path).folder(key)
    assert folder.resolve().parent == tmp_path.resolve()
    folder.mkdir()


def test_keys_that_differ_never_share_a_folder() -> None:
    assert folder_name("a/b") != folder_name("a_b")
