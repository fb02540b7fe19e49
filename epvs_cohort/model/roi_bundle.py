"""Bundles of the network that segments heads: as those of the counting network, with a card of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from epvs_cohort.data.head_grid import CenteredOn, HeadGrid
from epvs_cohort.errors import ModelError
from epvs_cohort.head_classes import CLASS_NAMES
from epvs_cohort.model.bundle_files import (
    Finite,
    Sha256,
    bundle_folder,
    bundled_names,
    read_card,
    read_weights,
    write_files,
)
from epvs_cohort.model.roi_network import RoiArchitecture, RoiUnet
from epvs_cohort.protocol import Settings, digest

#: Bundles that outline where a protocol names none.
HEAD_MODEL: Final = "roi-head"
NEAR_MODEL: Final = "roi-near"


class RoiCard(Settings):
    """Content of ``model.json``."""

    kind: Literal["roi-network"] = "roi-network"
    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=100)]
    architecture: RoiArchitecture = RoiArchitecture()
    #: Channels of the network; another order is another network.
    classes: tuple[str, ...] = CLASS_NAMES
    #: Grid that the network was trained on, and how intensities were scaled there.
    grid: HeadGrid = HeadGrid()
    #: What that grid lay around: a network for whole heads, or for the part around the basal ganglia.
    centered_on: CenteredOn = "head"
    normalisation: Literal["percentiles-1-98"] = "percentiles-1-98"
    #: What it was trained on, in words; says so where the scans are simulated.
    trained_on: Annotated[str, Field(min_length=1)]
    #: Figures on validation data, by name; ``validated_on`` says on what.
    validated_on: str = ""
    validation: dict[str, Finite] = Field(default_factory=dict)
    #: What it must not be used for.
    limits: str = ""
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _consistent(self) -> RoiCard:
        if self.classes != CLASS_NAMES:
            raise ValueError(f"classes {list(self.classes)} found; this program knows {list(CLASS_NAMES)}")
        check_grid(self.grid, self.architecture)
        return self


def check_grid(grid: HeadGrid, architecture: RoiArchitecture) -> None:
    """Check that a network can run on a grid.

    Raises
    ------
    ValueError
        A side is no multiple of the stride.
    """
    if any(side % architecture.stride for side in grid.shape):
        raise ValueError(f"grid shape {grid.shape} is not divisible by the stride {architecture.stride}")


@dataclass(frozen=True)
class RoiBundle:
    """A loaded bundle: its card and its network, on the CPU, in evaluation mode, without batch norm."""

    card: RoiCard
    network: RoiUnet

    @property
    def model_id(self) -> str:
        """Hash of the weights and of all in the card that an outline depends on: 16 hexadecimal digits."""
        functional = {"architecture", "classes", "grid", "centered_on", "normalisation", "weights_sha256"}
        return digest(self.card.model_dump(mode="json", include=functional))


@dataclass(frozen=True)
class RoiPair:
    """The two networks that outline a scan: one looks at the whole head, one closely at the basal ganglia."""

    head: RoiBundle
    near: RoiBundle

    @property
    def model_id(self) -> str:
        """Hash of both."""
        return digest({"head": self.head.model_id, "near": self.near.model_id})


def roi_bundles_dir() -> Path:
    """Folder of the bundles of this kind that ship with the package."""
    return Path(__file__).resolve().parent / "roi_bundles"


def bundled_roi_models() -> list[str]:
    """Names of the networks of this kind that ship with the package."""
    return bundled_names(roi_bundles_dir())


def load_roi_bundle(name_or_dir: str) -> RoiBundle:
    """Load a bundle by its name, where it ships with the package, or from a folder.

    Raises
    ------
    ModelError
        No such bundle, a file missing, unreadable or oversized, an illegal card, one of a counting network, weights
        whose hash, names, shapes or types are not the card's, or weights that are not finite.
    """
    folder = bundle_folder(name_or_dir, roi_bundles_dir())
    card = read_card(folder, RoiCard)
    network = RoiUnet(card.architecture)
    network.load_state_dict(read_weights(folder, card.weights_sha256, network), strict=True)
    return RoiBundle(card, network.eval().requires_grad_(False))


def load_roi_pair(head_model: str | None = None, near_model: str | None = None) -> RoiPair:
    """Load the two networks that outline; None is the one that ships with the package.

    Raises
    ------
    ModelError
        A bundle cannot be loaded, or is the one of the other place.
    """
    pair = RoiPair(load_roi_bundle(head_model or HEAD_MODEL), load_roi_bundle(near_model or NEAR_MODEL))
    for name, setting, bundle, wanted in (
        (head_model or HEAD_MODEL, "head_model", pair.head, "head"),
        (near_model or NEAR_MODEL, "near_model", pair.near, "basal ganglia"),
    ):
        if bundle.card.centered_on != wanted:
            raise ModelError(
                f"{name}: was trained on grids around the {bundle.card.centered_on}; as roi.{setting} only one "
                f"trained around the {wanted} is legal"
            )
    return pair


def save_roi_bundle(folder: Path, card: RoiCard, network: RoiUnet, readme: str) -> RoiBundle:
    """Write a bundle; the card's ``weights_sha256`` is replaced by the hash of what is written.

    Parameters
    ----------
    folder : Path
        Created where it does not exist; files appear whole.
    card : RoiCard
        All but the hash.
    network : RoiUnet
        Without batch norm.
    readme : str
        The card in words, Markdown.

    Raises
    ------
    ModelError
        The network still carries batch norm, is of another architecture, or its weights are not finite.
    """
    write_files(folder, card, network, RoiUnet(card.architecture), readme)
    return load_roi_bundle(str(folder))
