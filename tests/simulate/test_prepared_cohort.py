"""Prepared volumes drawn at once: of the same people as whole heads, with a way back to native mm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import ProtocolError, UsageError
from epvs_cohort.geometry import apply_affine, rotation_angle_deg
from epvs_cohort.protocol import GridSettings, Protocol, RoiSettings
from epvs_cohort.records import PreparedVolume
from epvs_cohort.simulate.anatomy import bundled_anatomy
from epvs_cohort.simulate.cohort import SimulateOptions, rescan_folder, simulate_cohort
from epvs_cohort.simulate.heads import Acquisition, Person, draw_person, draw_view
from epvs_cohort.simulate.lesions import LesionSpec
from epvs_cohort.simulate.prepared_cohort import Preparation, PreparedScan, scan_prepared

PROTOCOL = Protocol(grid=GridSettings(shape=(64, 48, 36), spacing_mm=(1.3, 1.3, 1.9)))
HOW = Preparation(Acquisition(), PROTOCOL)
OPTIONS = SimulateOptions(scans=2, seed=11, prepared=True, protocol=PROTOCOL, rescan="same")


@pytest.fixture(scope="module")
def person() -> Person:
    return draw_person(np.random.default_rng(1), bundled_anatomy(), 0.0)


@pytest.fixture(scope="module")
def lesions(person: Person) -> list[LesionSpec]:
    """Wide ones in both putamina, at known places."""
    voxels = [np.argwhere(person.labels == number) for number in (12, 51)]
    middles = [apply_affine(person.grid.affine, found.mean(axis=0)) for found in voxels]
    x_y_z = [tuple(float(v) for v in middle) for middle in middles]
    return [LesionSpec((x, y, z), (0.0, 0.0, 1.0), 6.0, 1.5, 1.0, 3) for x, y, z in x_y_z]


@pytest.fixture(scope="module")
def scan(person: Person, lesions: list[LesionSpec]) -> PreparedScan:
    return scan_prepared(np.random.default_rng(3), person, lesions, HOW)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    simulate_cohort(out, OPTIONS)
    return out


def grid_voxels(volume: PreparedVolume, native_mm: npt.ArrayLike) -> np.ndarray:
    return np.rint(apply_affine(volume.grid_from_native, native_mm)).astype(int)


def test_lesions_are_bright_where_the_truth_says(scan: PreparedScan, person: Person) -> None:
    plain = scan_prepared(np.random.default_rng(3), person, [], HOW)
    gain = scan.volume.intensities - plain.volume.intensities
    for lesion in scan.lesions:
        at = tuple(grid_voxels(scan.volume, lesion.center_mm))
        assert scan.volume.labels[at] > 0
        assert gain[at] > 0.1
    assert np.median(np.abs(gain)[scan.volume.mask]) < 0.02
    np.testing.assert_array_equal(scan.volume.labels, plain.volume.labels)


def test_the_way_back_is_rigid_and_ends_in_the_native_scan(scan: PreparedScan, person: Person) -> None:
    volume = scan.volume
    rigid = volume.native_from_grid @ np.diag([*(1.0 / np.array(PROTOCOL.grid.spacing_mm)), 1.0])
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-9)
    assert rotation_angle_deg(rigid) > 1.0
    view = draw_view(np.random.default_rng(3), person, HOW.acquisition)
    assert volume.native.shape == view.grid.shape
    np.testing.assert_array_equal(volume.native.affine, view.grid.affine)
    for lesion in scan.lesions:
        voxel = apply_affine(np.linalg.inv(volume.native.affine), lesion.center_mm)
        assert (voxel > 0).all()
        assert (voxel < volume.native.shape).all()


def test_map_to_mni_takes_putamina_to_their_sides(scan: PreparedScan) -> None:
    for lesion, side in zip(scan.lesions, (-1, 1), strict=True):
        x, y, z = scan.volume.mni(apply_affine(scan.volume.grid_from_native, lesion.center_mm))
        assert np.linalg.norm([x - side * 26.0, y - 2.0, z]) < 8.0


def test_slice_of_the_commissure_is_found_about_where_it_is(person: Person) -> None:
    found: list[float] = []
    true: list[float] = []
    for seed in range(3):
        view = draw_view(np.random.default_rng(seed), person, HOW.acquisition)
        ac = apply_affine(view.native_from_person, person.ac_mm)
        for off, how in ((found, HOW), (true, replace(HOW, true_slice=True))):
            volume = scan_prepared(np.random.default_rng(seed), person, [], how).volume
            assert volume.ac is not None
            height = apply_affine(np.linalg.inv(volume.native.affine), ac)[volume.ac.axis]
            off.append((volume.ac.index - height) * volume.native.spacing_mm[volume.ac.axis])
    assert 0.4 < np.abs(found).max() < 4.0
    assert np.abs(true).max() <= 0.4 + 1e-9


@pytest.mark.parametrize(("method", "errs"), [("atlas", True), ("aseg", False)])
def test_the_protocol_says_whether_the_outline_errs(person: Person, method: str, *, errs: bool) -> None:
    def labels(how: Preparation) -> np.ndarray:
        return scan_prepared(np.random.default_rng(5), person, [], how).volume.labels

    protocol = PROTOCOL.model_copy(update={"roi": RoiSettings(method="mask")})
    true = labels(Preparation(HOW.acquisition, protocol))
    settings = RoiSettings.model_validate({"method": method})
    other = labels(Preparation(HOW.acquisition, PROTOCOL.model_copy(update={"roi": settings})))
    assert bool((other != true).any()) is errs


def test_store_and_tables_agree(cohort: Path) -> None:
    counts = pd.read_csv(cohort / "counts.csv")
    points = pd.read_csv(cohort / "points.csv")
    in_slice = pd.read_csv(cohort / "counts_ac_slice.csv").set_index("scan")["count"]
    read = pd.read_csv(cohort / "counts_rater.csv")
    store = PreparedStore(cohort / "prepared")
    assert counts["count"].sum() > 0
    for scan, count in zip(counts["scan"], counts["count"], strict=True):
        stored = store.load(scan)
        assert stored.volume.intensities.shape == PROTOCOL.grid.shape
        assert stored.provenance.input_state == "simulated"
        assert stored.provenance.prepare_id == PROTOCOL.prepare_id
        assert "Simulated" in str(stored.volume.facts.scanner)
        own = points[points.scan == scan]
        assert len(own) == count
        assert own.in_ac_slice.sum() == in_slice[scan]
        voxels = grid_voxels(stored.volume, own[["x_mm", "y_mm", "z_mm"]].to_numpy())
        assert (stored.volume.labels[tuple(voxels.T)] > 0).mean() > 0.8
        assert list(read[read.scan == scan].reader) == ["A", "A again", "B"]


def test_same_people_as_whole_heads(cohort: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    # Coarse in the plane: slices stay those of the default voxels.
    simulate_cohort(heads, SimulateOptions(scans=1, seed=11, voxel_mm=(4.0, 4.0, 0.8)))
    for name in ("points.csv", "counts_rater.csv", "counts_ac_slice.csv", "participants.tsv"):
        lines = (heads / name).read_text().splitlines()
        assert (cohort / name).read_text().splitlines()[: len(lines)] == lines


def test_a_second_visit_is_the_same_person_elsewhere(cohort: Path) -> None:
    second = rescan_folder(cohort)
    columns = ["scan", "lesion", "region", "length_mm", "radius_mm", "contrast"]
    one, two = (pd.read_csv(folder / "points.csv") for folder in (cohort, second))
    pd.testing.assert_frame_equal(one[columns], two[columns])
    assert (one.x_mm - two.x_mm).abs().max() > 0.5
    assert (cohort / "participants.tsv").read_bytes() == (second / "participants.tsv").read_bytes()
    for scan in set(one.scan):
        a, b = (PreparedStore(folder / "prepared").load(scan) for folder in (cohort, second))
        assert (a.volume.intensities != b.volume.intensities).any()
        assert a.volume.facts.scanner == b.volume.facts.scanner
        assert str(a.volume.facts.acquisition_date) < str(b.volume.facts.acquisition_date)
        assert a.provenance.fingerprint != b.provenance.fingerprint


def test_same_seed_same_bytes(cohort: Path, tmp_path: Path) -> None:
    again, fewer = tmp_path / "again", tmp_path / "fewer"
    simulate_cohort(again, replace(OPTIONS, n_procs=2))
    simulate_cohort(fewer, replace(OPTIONS, scans=1))
    for source in (cohort, rescan_folder(cohort)):
        target = rescan_folder(again) if source != cohort else again
        files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
        assert [f for f in files if (source / f).read_bytes() != (target / f).read_bytes()] == []
    for path in PreparedStore(fewer / "prepared").folder("sub-0001_PDw").iterdir():
        assert (PreparedStore(cohort / "prepared").folder("sub-0001_PDw") / path.name).read_bytes() == (
            path.read_bytes()
        )


def test_what_prepared_volumes_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="theirs are the protocol's"):
        simulate_cohort(tmp_path / "a", replace(OPTIONS, voxel_mm=(1.0, 1.0, 1.0)))
    part = PROTOCOL.model_copy(update={"roi": RoiSettings(regions=("putamen",))})
    with pytest.raises(ProtocolError, match="caudate"):
        simulate_cohort(tmp_path / "a", replace(OPTIONS, protocol=part))
    (tmp_path / "b-rescan").mkdir()
    (tmp_path / "b-rescan" / "file").write_text("")
    with pytest.raises(UsageError, match="b-rescan"):
        simulate_cohort(tmp_path / "b", OPTIONS)
    assert not (tmp_path / "b").exists()
