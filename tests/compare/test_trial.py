"""What methods find on volumes with known lesions, at the threshold of the count and at others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.compare.matching import MatchFigures
from epvs_cohort.compare.trial import (
    MarkedScan,
    Trial,
    Tried,
    centers_at,
    components_at,
    score_volume,
    try_scan,
)
from epvs_cohort.data.store import VOLUME, PreparedStore
from epvs_cohort.detect.lesions import detect_scores
from epvs_cohort.detect.score import ScoreSettings
from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.bundle import ModelCard, Requirements, save_bundle
from epvs_cohort.model.network import GpUnet
from epvs_cohort.protocol import Method
from tests.train.blobs import NATIVE, TINY, Blobs, blobs, protocol, save


def bundle(folder: Path, upsampling: str) -> str:
    """Random weights, and a last layer that gives small counts."""
    torch.manual_seed(2)
    architecture = TINY.model_copy(update={"upsampling": upsampling})
    card = ModelCard(
        name=folder.name,
        architecture=architecture,
        count_target="roi",
        requires=Requirements.of(protocol()),
        trained_on="nothing: random weights of a test",
        supervision="none",
        weights_sha256="0" * 64,
    )
    network = GpUnet(architecture)
    with torch.no_grad():
        network.last_weight.fill_(0.004 if upsampling == "nearest" else 0.03)
    save_bundle(folder, card, network, "A test.\n")
    return str(folder)


@pytest.fixture
def drawn() -> Blobs:
    return blobs("sub-1", 5, 3)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    models = {"fcn": bundle(tmp_path / "fcn", "nearest"), "regression": bundle(tmp_path / "coarse", "none")}
    methods: tuple[Method, ...] = ("a", "b", "c", "d", "e", "f")
    return Trial(methods, models, protocol(), ScoreSettings("f", 0.01, 1.0))  # type: ignore[arg-type]


@pytest.fixture
def marked(drawn: Blobs, tmp_path: Path) -> MarkedScan:
    save(tmp_path / "store", [drawn])
    return MarkedScan("sub-1", "1", tmp_path / "store", apply_affine(NATIVE, drawn.centers))


def test_each_method_is_matched_at_the_count_of_its_own_network(marked: MarkedScan, trial: Trial) -> None:
    found = try_scan(marked, trial)
    assert not found.fault
    assert set(found.tried) == set("abcdef")
    counts = {letter: each.count for letter, each in found.tried.items()}
    assert counts["a"] == counts["c"] == counts["e"] == counts["f"] != counts["b"] == counts["d"]
    for each in found.tried.values():
        assert each.count > 1
        assert each.figures.true == found.n_true == 5
        assert each.figures.found == each.settled.n_components
        assert each.seconds > 0
        assert each.proposed == tuple(sorted(each.proposed, reverse=True))
    # A network that counts low proposes as far down as one that counts high.
    assert len({len(each.proposed) for each in found.tried.values()}) == 1
    most = {letter: components_above(each, marked, trial, letter) for letter, each in found.tried.items()}
    assert min(most.values()) > max(counts.values()), most


def components_above(tried: Tried, scan: MarkedScan, trial: Trial, letter: Method) -> int:
    """How many components stand at the lowest threshold that a method proposes."""
    volume = PreparedStore(scan.store).load(scan.key).volume
    scores = score_volume(volume, trial)[letter].scores
    return max(len(centers_at(volume.mask, scores, threshold)) for threshold in tried.proposed)


def test_bright_blobs_are_found_by_intensities(drawn: Blobs, marked: MarkedScan, trial: Trial) -> None:
    given = replace(trial, methods=("a",), thresholds={"a": (0.95, 0.6, 0.1)})
    curve = try_scan(marked, given).tried["a"].curve
    assert [(each.found, each.matched) for each in curve[:2]] == [(0, 0), (5, 5)]
    assert curve[2].matched <= 1, "everything has run together"
    centers = centers_at(drawn.volume.mask, drawn.volume.intensities[drawn.volume.mask], 0.6)
    np.testing.assert_allclose(np.sort(centers, axis=0), np.sort(drawn.centers, axis=0), atol=1e-6)


def test_centres_in_a_slice_are_those_of_the_cross_sections() -> None:
    mask = np.ones((8, 8, 8), bool)
    scores = np.zeros(mask.shape, np.float32)
    scores[1, 1, 1:5] = 1.0
    scores[2, 1, 4] = 1.0
    scores[6, 6, 7] = 1.0
    slab = np.zeros(mask.shape, bool)
    slab[:, :, 4] = True
    assert len(centers_at(mask, scores[mask], 0.5)) == 2
    np.testing.assert_allclose(centers_at(mask, scores[mask], 0.5, slab=slab), [[1.5, 1.0, 4.0]])
    assert centers_at(mask, scores[mask], 2.0).shape == (0, 3)
    voxels, numbers = components_at(mask, scores[mask], 0.5)
    assert sorted(np.bincount(numbers).tolist()) == [0, 1, 5]
    assert voxels.max(axis=0).tolist() == [6, 6, 7]


def test_lesions_are_those_that_a_run_finds(marked: MarkedScan, trial: Trial) -> None:
    volume = PreparedStore(marked.store).load("sub-1").volume
    for letter, scored in score_volume(volume, trial).items():
        detection = detect_scores(volume, scored.prediction, scored.scores, trial.protocol.detection, "roi")
        assert scored.settled.threshold == detection.threshold, letter
        mine = centers_at(volume.mask, scored.scores, float(detection.threshold or 0.0))
        theirs = np.array([lesion.grid_voxel for lesion in detection.lesions])
        np.testing.assert_allclose(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)], atol=1e-9)


def test_in_the_slice_what_touches_it_is_counted_and_matched(
    drawn: Blobs, marked: MarkedScan, trial: Trial
) -> None:
    # The slice is the grid's row 8; blobs lie in rows 4 and 5 or 8 and 9.
    there = drawn.centers[drawn.centers[:, 2] > 7]
    assert 0 < len(there) < len(drawn.centers)
    there[:, 2] = 8.0
    scan = replace(marked, points_mm=apply_affine(NATIVE, there))
    sliced = replace(
        trial, methods=("a", "e"), protocol=protocol(count_target="ac_slice"), thresholds={"a": (0.6,)}
    )
    found = try_scan(scan, sliced)
    assert found.tried["a"].curve[0] == MatchFigures(len(there), len(there), len(there))
    for each in found.tried.values():
        assert each.figures.found == each.settled.n_components
    nowhere = replace(drawn.volume, key="sub-2", ac=None)
    save(marked.store, [Blobs(nowhere, drawn.centers)])
    assert "no slice through the anterior commissure" in try_scan(replace(scan, key="sub-2"), sliced).fault


def test_a_scan_that_cannot_be_used_says_why(marked: MarkedScan, trial: Trial) -> None:
    path = PreparedStore(marked.store).folder("sub-1") / VOLUME
    path.write_bytes(path.read_bytes()[:-1])
    found = try_scan(marked, trial)
    assert "do not match the checksum" in found.fault
    assert not found.tried
