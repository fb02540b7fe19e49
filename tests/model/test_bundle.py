"""A bundle comes back as it was written, and a damaged or hostile one is refused by name."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from epvs_cohort.errors import ModelError
from epvs_cohort.model.bundle import (
    CARD_FILE,
    WEIGHTS_FILE,
    Bundle,
    bundled_models,
    check_fits,
    load_bundle,
    save_bundle,
)
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import Protocol
from tests.model.conftest import save_tiny, tiny_card

ARCHITECTURE = Architecture(widths=(3, 4), convs_per_level=1)


def _edit_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    card.update(changes)
    (folder / CARD_FILE).write_text(json.dumps(card))


def _replace_weights(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(data)
    _edit_card(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load((folder / WEIGHTS_FILE).read_bytes())


def test_round_trip(tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "m", ARCHITECTURE)
    loaded = load_bundle(str(tmp_path / "m"))
    assert loaded.card == saved.card
    assert loaded.model_id == saved.model_id
    volume, mask = torch.rand(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8, dtype=torch.bool)
    assert torch.equal(loaded.network(volume, mask), saved.network(volume, mask))
    assert (tmp_path / "m" / "README.md").read_text() == "A test.\n"


def test_model_id_follows_what_results_depend_on(tmp_path: Path) -> None:
    first = save_tiny(tmp_path / "m", ARCHITECTURE)
    _edit_card(tmp_path / "m", trained_on="other words", validation={"icc": 0.5})
    assert load_bundle(str(tmp_path / "m")).model_id == first.model_id
    _edit_card(tmp_path / "m", score_weight=0.5, heat_scale=2.0)
    assert load_bundle(str(tmp_path / "m")).model_id != first.model_id


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}: missing"):
        load_bundle(str(tmp_path / "m"))


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match="neither a bundled name nor a folder") as caught:
        load_bundle("no-such-model")
    assert "bundled models" in caught.value.hint


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    data = bytearray((tmp_path / "m" / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / "m" / WEIGHTS_FILE).write_bytes(bytes(data))
    with pytest.raises(ModelError, match="SHA-256"):
        load_bundle(str(tmp_path / "m"))


def _wrong_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["last_weight"] = torch.ones(4)


def _wrong_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors["last_weight"] = torch.ones(3, dtype=torch.float16)


def _not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["last_weight"][1] = float("nan")


def _missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["last_weight"]


def _extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backdoor"] = torch.ones(1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_shape, r"last_weight has shape \(4,\), the architecture has \(3,\)"),
        (_wrong_type, "last_weight is torch.float16"),
        (_not_finite, "last_weight holds values that are not finite"),
        (_missing, r"tensors missing: \['last_weight'\]"),
        (_extra, r"not of the architecture: \['backdoor'\]"),
    ],
)
def test_tensors_must_be_the_architectures(tmp_path: Path, damage: Any, message: str) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    tensors = _tensors(tmp_path / "m")
    damage(tensors)
    _replace_weights(tmp_path / "m", safetensors.torch.save(tensors))
    with pytest.raises(ModelError, match=message):
        load_bundle(str(tmp_path / "m"))


def test_a_giant_file_is_refused_unread(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    with (tmp_path / "m" / WEIGHTS_FILE).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"1099511627776 bytes, at most"):
        load_bundle(str(tmp_path / "m"))


def test_a_header_that_claims_a_giant_tensor_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    header = json.dumps(
        {"last_weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    ).encode()
    _replace_weights(tmp_path / "m", len(header).to_bytes(8, "little") + header + b"\0" * 16)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_bundle(str(tmp_path / "m"))


class _Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a bundle was unpickled",))


def test_a_pickle_in_disguise_is_never_opened(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    _replace_weights(tmp_path / "m", pickle.dumps(_Explosive()))
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_bundle(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"name": "m"}', "\xff"], ids=range(7)
)
def test_a_card_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    (tmp_path / "m" / CARD_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=CARD_FILE):
        load_bundle(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"score_weight": 0.5}, "score_weight and heat_scale"),
        ({"score_weight": float("nan"), "heat_scale": 1.0}, "score_weight"),
        ({"architecture": {"widths": [10**9]}}, "architecture.widths"),
        ({"architecture": {"widths": [2, 2, 2, 2, 2]}}, "not divisible by the stride 16"),
        ({"weights_sha256": "../x"}, "weights_sha256"),
    ],
)
def test_illegal_cards_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_tiny(tmp_path / "m", ARCHITECTURE)
    _edit_card(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        load_bundle(str(tmp_path / "m"))


def test_a_network_with_batch_norm_is_not_saved(tmp_path: Path) -> None:
    network = GpUnet(ARCHITECTURE, batch_norm=True)
    with pytest.raises(ModelError, match="not of the architecture"):
        save_bundle(tmp_path / "m", tiny_card(ARCHITECTURE), network, "")
    assert not (tmp_path / "m").exists()


def _bundle_for(protocol: Protocol) -> Bundle:
    from epvs_cohort.model.bundle import Requirements

    card = tiny_card(ARCHITECTURE).model_copy(
        update={"requires": Requirements.of(protocol), "count_target": protocol.count_target}
    )
    return Bundle(card, GpUnet(ARCHITECTURE))


def test_a_model_fits_its_own_protocol_whatever_is_registered_or_detected() -> None:
    bundle = _bundle_for(Protocol())
    changed = Protocol.model_validate(
        {"registration": {"resolution_mm": 0.0}, "detection": {"method": "e", "connectivity": 6}}
    )
    check_fits(bundle, Protocol())
    check_fits(bundle, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count_target": "ac_slice"}, "count_target is ac_slice, the model requires roi"),
        ({"grid": {"shape": (160, 128, 84)}}, r"grid.shape is \(160, 128, 84\)"),
        ({"grid": {"spacing_mm": (0.5, 0.5, 0.8)}}, "grid.spacing_mm"),
        ({"roi": {"regions": ("putamen",)}}, "roi.regions"),
        ({"roi": {"dilate_mm": 3.5}}, "roi.dilate_mm is 3.5"),
        ({"roi": {"smooth_sigma_voxels": 1.0}}, "roi.smooth_sigma_voxels"),
        ({"trim": {"fraction": 0.2}}, "trim.fraction is 0.2"),
    ],
)
def test_unmet_requirements_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_fits(_bundle_for(Protocol()), Protocol.model_validate(changes))


def test_all_unmet_requirements_stand_in_one_message() -> None:
    protocol = Protocol.model_validate({"count_target": "ac_slice", "roi": {"dilate_mm": 5.0}})
    with pytest.raises(ModelError, match=r"count_target.*roi\.dilate_mm"):
        check_fits(_bundle_for(Protocol()), protocol)


def test_each_bundled_model_loads() -> None:
    for name in bundled_models():
        assert load_bundle(name).card.name == name
