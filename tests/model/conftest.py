"""A tiny network, and volumes that fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.geometry import Grid
from epvs_cohort.model.bundle import Bundle, ModelCard, Requirements, save_bundle
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import GridSettings
from epvs_cohort.records import MniMap, PreparedVolume

SHAPE = (32, 24, 16)


def tiny_card(architecture: Architecture, shape: tuple[int, int, int] = SHAPE) -> ModelCard:
    """A card for volumes of ``shape``."""
    return ModelCard(
        name="tiny",
        architecture=architecture,
        count_target="ac_slice" if architecture.pool_within == "ac_slice" else "roi",
        requires=Requirements(grid=GridSettings(shape=shape)),
        trained_on="nothing: random weights of a test",
        supervision="none",
        weights_sha256="0" * 64,
    )


def random_network(architecture: Architecture, seed: int = 0) -> GpUnet:
    """A network whose weights, last layer included, are random."""
    torch.manual_seed(seed)
    network = GpUnet(architecture)
    torch.nn.init.normal_(network.last_weight)
    if network.last_bias is not None:
        torch.nn.init.constant_(network.last_bias, 0.7)
    return network.eval()


def save_tiny(folder: Path, architecture: Architecture, shape: tuple[int, int, int] = SHAPE) -> Bundle:
    """A bundle with random weights."""
    return save_bundle(folder, tiny_card(architecture, shape), random_network(architecture), "A test.\n")


def random_volume(key: str, seed: int, shape: tuple[int, int, int] = SHAPE) -> PreparedVolume:
    """Random intensities in a box-shaped mask that leaves a border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(size // 4, size - size // 4) for size in shape)] = 255
    intensities = rng.random(shape, dtype=np.float32)
    return PreparedVolume(
        key=key,
        intensities=intensities,
        labels=labels,
        regions={},
        native_from_grid=np.eye(4),
        rigid_from_native=np.eye(4),
        mni=MniMap(np.eye(4), np.zeros((2, 2, 2, 3)), shape),
        native=Grid(shape, np.eye(4)),
        ac=None,
        quality=(),
    )


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Bundle:
    """A density network of two levels with random weights."""
    return save_tiny(tmp_path / "tiny", Architecture(widths=(3, 4), convs_per_level=1))
