"""A bundle that segments heads comes back as it was written, and one that does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from epvs_cohort.data.head_grid import NORMALISATION, CenteredOn, HeadGrid
from epvs_cohort.errors import ModelError
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.bundle_files import CARD_FILE, NO_HASH, WEIGHTS_FILE
from epvs_cohort.model.network import Architecture
from epvs_cohort.model.roi_bundle import (
    HEAD_MODEL,
    NEAR_MODEL,
    RoiBundle,
    RoiCard,
    bundled_roi_models,
    load_roi_bundle,
    load_roi_pair,
    save_roi_bundle,
)
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet, fold_roi_network
from tests.model.conftest import save_tiny

ARCHITECTURE = RoiArchitecture(widths=(2, 3), convs_per_level=1)


def save(folder: Path, network: RoiUnet | None = None, centered_on: CenteredOn = "head") -> RoiBundle:
    torch.manual_seed(0)
    card = RoiCard(
        name="tiny",
        architecture=ARCHITECTURE,
        grid=HeadGrid(shape=(16, 24, 16), spacing_mm=8.0),
        centered_on=centered_on,
        trained_on="nothing: random weights of a test",
        weights_sha256=NO_HASH,
    )
    return save_roi_bundle(folder, card, network or RoiUnet(ARCHITECTURE), "A test.\n")


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    card.update(changes)
    (folder / CARD_FILE).write_text(json.dumps(card))


def test_round_trip(tmp_path: Path) -> None:
    saved = save(tmp_path / "m")
    loaded = load_roi_bundle(str(tmp_path / "m"))
    assert loaded.card == saved.card
    assert loaded.model_id == saved.model_id
    assert loaded.card.normalisation == NORMALISATION
    volume = torch.rand(1, 1, 16, 24, 16)
    assert torch.equal(loaded.network(volume), saved.network(volume))
    assert (tmp_path / "m" / "README.md").read_text() == "A test.\n"


def test_model_id_follows_what_an_outline_depends_on(tmp_path: Path) -> None:
    first = save(tmp_path / "m")
    edit(tmp_path / "m", trained_on="other words", validation={"dice": 0.5})
    assert load_roi_bundle(str(tmp_path / "m")).model_id == first.model_id
    edit(tmp_path / "m", grid={"shape": [16, 16, 16], "spacing_mm": 8.0})
    assert load_roi_bundle(str(tmp_path / "m")).model_id != first.model_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["background", "left caudate"]}, "this program knows"),
        ({"grid": {"shape": [16, 24, 17], "spacing_mm": 2.0}}, r"grid\.shape"),
        ({"architecture": {"widths": [2] * 6}}, "not divisible by the stride 32"),
        ({"normalisation": "z-score"}, "normalisation"),
        ({"kind": "gp-unet"}, "kind"),
        ({"surprise": 1}, "surprise"),
        ({"validation": {"dice": float("nan")}}, "validation"),
    ],
)
def test_illegal_cards_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(tmp_path / "m")
    edit(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        load_roi_bundle(str(tmp_path / "m"))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "m")
    data = bytearray((tmp_path / "m" / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / "m" / WEIGHTS_FILE).write_bytes(bytes(data))
    with pytest.raises(ModelError, match="SHA-256"):
        load_roi_bundle(str(tmp_path / "m"))


def test_a_network_with_batch_norm_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not of the architecture"):
        save(tmp_path / "m", RoiUnet(ARCHITECTURE, batch_norm=True))
    assert not (tmp_path / "m").exists()


def test_networks_that_count_and_that_segment_are_not_confused(tmp_path: Path) -> None:
    save(tmp_path / "segments")
    save_tiny(tmp_path / "counts", Architecture(widths=(2, 3), convs_per_level=1))
    with pytest.raises(ModelError, match="kind"):
        load_bundle(str(tmp_path / "segments"))
    with pytest.raises(ModelError, match="count_target"):
        load_roi_bundle(str(tmp_path / "counts"))


def test_each_network_of_a_pair_has_its_place(tmp_path: Path) -> None:
    head, near = str(tmp_path / "head"), str(tmp_path / "near")
    save(tmp_path / "head")
    save(tmp_path / "near", centered_on="basal ganglia")
    pair = load_roi_pair(head, near)
    assert pair.head.model_id != pair.near.model_id
    assert load_roi_pair(head, None).model_id != pair.model_id != load_roi_pair(None, near).model_id
    with pytest.raises(ModelError, match=r"near: .*around the basal ganglia; as roi\.head_model .*the head"):
        load_roi_pair(near, head)
    with pytest.raises(ModelError, match=r"head: .*around the head; as roi\.near_model .*the basal ganglia"):
        load_roi_pair(head, head)


def test_the_networks_that_ship_are_a_pair() -> None:
    assert bundled_roi_models() == [HEAD_MODEL, NEAR_MODEL]
    pair = load_roi_pair()
    assert (pair.head.card.name, pair.near.card.name) == (HEAD_MODEL, NEAR_MODEL)
    for bundle in (pair.head, pair.near):
        assert "simulated" in bundle.card.trained_on
        assert bundle.card.limits


def test_folding_changes_nothing_that_is_computed() -> None:
    torch.manual_seed(1)
    network = RoiUnet(ARCHITECTURE, batch_norm=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.normal_(module.bias)
    volumes = torch.rand(2, 1, 16, 16, 16)
    network(volumes)
    network.eval()
    folded = fold_roi_network(network)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    torch.testing.assert_close(folded(volumes), network(volumes), atol=1e-4, rtol=1e-4)
    assert folded(volumes).shape == (2, 17, 16, 16, 16)
