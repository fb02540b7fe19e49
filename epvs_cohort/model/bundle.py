"""Model bundles: a folder with ``model.safetensors`` and ``model.json``. Nothing is ever unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from epvs_cohort.errors import ModelError
from epvs_cohort.model.bundle_files import (
    CARD_FILE,
    README_FILE,
    WEIGHTS_FILE,
    Finite,
    Sha256,
    bundle_folder,
    bundled_names,
    read_card,
    read_weights,
    write_files,
)
from epvs_cohort.model.network import Architecture, GpUnet
from epvs_cohort.protocol import CountTarget, GridSettings, Positive, Protocol, Settings, TrimSettings, digest

#: Names that are looked for here.
__all__ = ["CARD_FILE", "README_FILE", "WEIGHTS_FILE"]


class Requirements(Settings):
    """What a prepared volume must be for the network to count it as it was trained to."""

    grid: GridSettings = GridSettings()
    regions: tuple[str, ...] = ("caudate", "putamen", "pallidum", "accumbens")
    dilate_mm: Annotated[float, Field(ge=0, le=10)] = 2.0
    smooth_sigma_voxels: Annotated[float, Field(ge=0, le=10)] = 2.0
    trim: TrimSettings = TrimSettings()
    interpolation: Literal["cubic-bspline"] = "cubic-bspline"

    @classmethod
    def of(cls, protocol: Protocol) -> Requirements:
        """Say what volumes prepared under ``protocol`` are."""
        return cls(
            grid=protocol.grid,
            regions=protocol.roi.regions,
            dilate_mm=protocol.roi.dilate_mm,
            smooth_sigma_voxels=protocol.roi.smooth_sigma_voxels,
            trim=protocol.trim,
        )


class ModelCard(Settings):
    """Content of ``model.json``."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=100)]
    architecture: Architecture
    count_target: CountTarget
    requires: Requirements
    #: What it was trained on, in words; says so where the scans are simulated.
    trained_on: Annotated[str, Field(min_length=1)]
    #: What the loss saw: counts of windows, of whole regions, or both.
    supervision: Annotated[str, Field(min_length=1)]
    #: What it must not be used for.
    limits: str = ""
    #: Figures on validation data, by name; ``validated_on`` says on what.
    validated_on: str = ""
    validation: dict[str, Finite] = Field(default_factory=dict)
    #: Method (f) scores voxels by M / heat_scale + score_weight * intensity; null where it was never tuned.
    score_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    heat_scale: Positive | None = None
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if (self.score_weight is None) != (self.heat_scale is None):
            raise ValueError("score_weight and heat_scale are either both given or both null")
        if self.architecture.pool_within == "ac_slice" and self.count_target != "ac_slice":
            raise ValueError(
                f"pool_within 'ac_slice' goes with count_target 'ac_slice', not {self.count_target!r}"
            )
        stride = self.architecture.stride
        if any(size % stride for size in self.requires.grid.shape):
            raise ValueError(f"grid shape {self.requires.grid.shape} is not divisible by the stride {stride}")
        return self


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: its card and its network, on the CPU, in evaluation mode, without batch norm."""

    card: ModelCard
    network: GpUnet

    @property
    def model_id(self) -> str:
        """Hash of the weights and of all in the card that a result depends on: 16 hexadecimal digits."""
        functional = {
            "architecture", "count_target", "requires", "score_weight", "heat_scale", "weights_sha256",
        }  # fmt: skip
        return digest(self.card.model_dump(mode="json", include=functional))


def bundles_dir() -> Path:
    """Folder of the bundles that ship with the package."""
    return Path(__file__).resolve().parent / "bundles"


def bundled_models() -> list[str]:
    """Names of the models that ship with the package."""
    return bundled_names(bundles_dir())


def load_bundle(name_or_dir: str) -> Bundle:
    """Load a bundle by its name, where it ships with the package, or from a folder.

    Raises
    ------
    ModelError
        No such bundle, a file missing, unreadable or oversized, an illegal card, weights whose hash, names,
        shapes or types are not the card's, or weights that are not finite.
    """
    folder = bundle_folder(name_or_dir, bundles_dir())
    card = read_card(folder, ModelCard)
    network = GpUnet(card.architecture)
    network.load_state_dict(read_weights(folder, card.weights_sha256, network), strict=True)
    return Bundle(card, network.eval().requires_grad_(False))


def save_bundle(folder: Path, card: ModelCard, network: GpUnet, readme: str) -> Bundle:
    """Write a bundle; the card's ``weights_sha256`` is replaced by the hash of what is written.

    Parameters
    ----------
    folder : Path
        Created where it does not exist; files appear whole.
    card : ModelCard
        All but the hash.
    network : GpUnet
        Without batch norm.
    readme : str
        The model card in words, Markdown.

    Raises
    ------
    ModelError
        The network still carries batch norm, is of another architecture, or its weights are not finite.
    """
    write_files(folder, card, network, GpUnet(card.architecture), readme)
    return load_bundle(str(folder))


def check_fits(bundle: Bundle, protocol: Protocol) -> None:
    """Refuse a bundle that was trained for other volumes, or another count, than the protocol makes.

    Registration, input and detection settings never refuse: they do not change what a voxel means.

    Raises
    ------
    ModelError
        Names each requirement that is not met, what was found and what is required.
    """
    found, required = Requirements.of(protocol), bundle.card.requires
    unmet: list[str] = []

    def compare(name: str, in_protocol: object, in_model: object) -> None:
        if in_protocol != in_model:
            unmet.append(f"{name} is {in_protocol}, the model requires {in_model}")

    compare("count_target", protocol.count_target, bundle.card.count_target)
    compare("grid.shape", found.grid.shape, required.grid.shape)
    compare("grid.spacing_mm", found.grid.spacing_mm, required.grid.spacing_mm)
    compare("roi.regions", sorted(found.regions), sorted(required.regions))
    compare("roi.dilate_mm", found.dilate_mm, required.dilate_mm)
    compare("roi.smooth_sigma_voxels", found.smooth_sigma_voxels, required.smooth_sigma_voxels)
    for field in TrimSettings.model_fields:
        compare(f"trim.{field}", getattr(found.trim, field), getattr(required.trim, field))
    if unmet:
        raise ModelError(
            f"model {bundle.card.name!r} does not fit protocol {protocol.name!r}: " + "; ".join(unmet),
            hint="use the protocol that the model was trained under, or a model trained under this protocol",
        )
