"""Files of a bundle: ``model.safetensors``, ``model.json`` and words. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, TypeVar

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from torch import nn

from epvs_cohort.errors import ModelError
from epvs_cohort.protocol import Settings

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
README_FILE = "README.md"

#: A card is a page of text; more is damage or malice.
MAX_CARD_BYTES = 1 << 20
#: Room for the safetensors header, which names each tensor.
HEADER_BYTES = 1 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]

#: Hash of a card that is not written yet.
NO_HASH = "0" * 64

#: A card: settings with a field ``weights_sha256``.
Card = TypeVar("Card", bound=Settings)


def bundled_names(parent: Path) -> list[str]:
    """Names of the bundles that a folder holds."""
    return sorted(path.parent.name for path in parent.glob(f"*/{CARD_FILE}"))


def bundle_folder(name_or_dir: str, parent: Path) -> Path:
    """Folder of a bundle: that of its name in ``parent``, where the program's own lie, or the one named.

    Raises
    ------
    ModelError
        Neither is there.
    """
    names = bundled_names(parent)
    folder = parent / name_or_dir if name_or_dir in names else Path(name_or_dir)
    # Of a name too long for a folder, os.path says no where Path raises.
    if not os.path.isdir(folder):
        raise ModelError(
            f"model {name_or_dir!r}: neither a bundled name nor a folder",
            hint=f"bundled models: {', '.join(names) or 'none'}",
        )
    return folder


def read_card(folder: Path, kind: type[Card]) -> Card:
    """Read the card of a bundle.

    Raises
    ------
    ModelError
        Missing, oversized, or not a legal card.
    """
    path = folder / CARD_FILE
    data = _read_limited(path, MAX_CARD_BYTES)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}"
            for item in error.errors(include_input=False)
        ]
        raise ModelError(f"{path}: " + "; ".join(lines)) from error


def read_weights(folder: Path, sha256: str, network: nn.Module) -> dict[str, torch.Tensor]:
    """Read the tensors of a bundle.

    Parameters
    ----------
    folder : Path
    sha256 : str
        What the card says.
    network : Module
        Of the card's architecture, for names, shapes and sizes.

    Raises
    ------
    ModelError
        Missing, oversized, damaged, of another architecture, or not finite.
    """
    path = folder / WEIGHTS_FILE
    expected = sum(parameter.numel() * 4 for parameter in network.parameters())
    data = _read_limited(path, expected + HEADER_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(f"{path}: SHA-256 is {found}, {CARD_FILE} says {sha256}; file damaged?")
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from error
    _check_tensors(path, tensors, network)
    return tensors


def write_files(folder: Path, card: Settings, network: nn.Module, blank: nn.Module, readme: str) -> None:
    """Write a bundle; the card's ``weights_sha256`` is replaced by the hash of what is written.

    Parameters
    ----------
    folder : Path
        Created where it does not exist; files appear whole.
    card : Settings
        With a field ``weights_sha256``.
    network : Module
        Whose tensors are written.
    blank : Module
        A network of the card's architecture, for names and shapes.
    readme : str
        The card in words, Markdown.

    Raises
    ------
    ModelError
        The tensors are not the architecture's, or not finite; nothing is written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _check_tensors(folder, tensors, blank)
    weights = safetensors.torch.save(tensors)
    written = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / WEIGHTS_FILE, weights)
    _write_whole(folder / CARD_FILE, (written.model_dump_json(indent=2) + "\n").encode())
    _write_whole(folder / README_FILE, readme.encode())


def _read_limited(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():
            raise ModelError(
                f"{path}: missing or no regular file; a bundle is {WEIGHTS_FILE} and {CARD_FILE}"
            )
        size = path.stat().st_size
        if size > limit:
            raise ModelError(f"{path}: {size} bytes, at most {limit} are legal here")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _check_tensors(path: Path, tensors: dict[str, torch.Tensor], network: nn.Module) -> None:
    wanted = network.state_dict()
    if set(tensors) != set(wanted):
        missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
        raise ModelError(
            f"{path}: tensors missing: {missing or 'none'}; not of the architecture: {extra or 'none'}"
        )
    for name, tensor in tensors.items():
        shape, legal = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != legal:
            raise ModelError(f"{path}: tensor {name} has shape {shape}, the architecture has {legal}")
        if tensor.dtype != torch.float32:
            raise ModelError(f"{path}: tensor {name} is {tensor.dtype}, legal is torch.float32")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: tensor {name} holds values that are not finite")


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
