"""A study's settings: frozen, validated, hashed. Files are TOML under ``pipelines/protocols``."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from epvs_cohort.bounds import DEFAULT_LIMITS
from epvs_cohort.errors import ProtocolError

CountTarget = Literal["roi", "ac_slice"]
#: What is thresholded, by the letters of the paper's Table 1; see `compare.methods.registry`.
Method = Literal["a", "b", "c", "d", "e", "f"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of all settings: frozen, and a name that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSettings(Settings):
    """What is accepted as a scan."""

    #: Memory that a header may claim, uncompressed as float32; checked before anything is allocated.
    max_gib: Positive = 2.0
    #: Legal edge length of a voxel in mm.
    voxel_min_mm: Positive = 0.1
    voxel_max_mm: Positive = 10.0
    #: A 4D file is refused, or its first volume is taken.
    four_d: Literal["refuse", "first"] = "refuse"


class RegistrationSettings(Settings):
    """Rigid registration to MNI with elastix, mutual information (paper, Sec. 3)."""

    #: Scan and template are shrunk to this voxel size before registration; 0 is the paper's way (full resolution).
    resolution_mm: Annotated[float, Field(ge=0, le=8)] = 2.0
    #: Fit the template's size with the pose and then leave it out (paper: rigid alone, which repeated less well);
    #: at ``resolution_mm`` 0, the paper's way, the size is never fitted.
    fit_scale: bool = True
    seed: Annotated[int, Field(ge=1)] = 121212


class RoiSettings(Settings):
    """Outline of the basal ganglia and the mask made of it (paper, Sec. 2.1)."""

    #: ``auto``: aseg or mask where the scan brings one (the paper's way), else the networks.
    method: Literal["auto", "network", "atlas", "aseg", "mask"] = "auto"
    #: Networks of the way ``network``, for the whole head and for the part around the basal ganglia: name of a bundle
    #: that ships, or folder that ``train-roi`` wrote; without one, those that ship.
    head_model: Annotated[str, Field(min_length=1)] | None = None
    near_model: Annotated[str, Field(min_length=1)] | None = None
    regions: tuple[str, ...] = ("caudate", "putamen", "pallidum", "accumbens")
    #: Radius of the dilation in mm; the paper gives none.
    dilate_mm: Annotated[float, Field(ge=0, le=10)] = 2.0
    #: Gaussian that smooths the border of the mask, in voxels of the prepared grid (paper: sigma 2, unit not given).
    smooth_sigma_voxels: Annotated[float, Field(ge=0, le=10)] = 2.0


#: Settings that name networks, which have hashes of their own.
_ROI_MODELS = {"head_model", "near_model"}


class GridSettings(Settings):
    """The prepared grid (paper, Sec. 3: 168 x 128 x 84 voxels of 0.49 x 0.49 x 0.8 mm)."""

    shape: tuple[
        Annotated[int, Field(ge=8, le=512, multiple_of=4)],
        Annotated[int, Field(ge=8, le=512, multiple_of=4)],
        Annotated[int, Field(ge=8, le=512, multiple_of=4)],
    ] = (168, 128, 84)
    spacing_mm: tuple[Positive, Positive, Positive] = (0.49, 0.49, 0.8)


class TrimSettings(Settings):
    """Trimming of the highest intensities (paper, Sec. 3: the highest 1 %, not said of what).

    Defaults by ``benchmarks/trim.py``, 28 simulated crops of 14 people with 403 lesions: these saturate 2.0 % of the
    lesions' centres in a true outline and none in one with the atlas's errors, and the clip value does not follow the
    size of the ventricles (r = 0.12 and -0.03). The literal reading of the paper (the crop, 1 %, no headroom)
    saturates 59 % and 48 % and follows them (r = 0.50 and 0.25); the region without headroom saturates 34 % and 2 %.
    """

    #: Paper: not said; ``crop`` is the literal reading.
    over: Literal["crop", "mask", "roi"] = "roi"
    #: Paper: 0.01.
    fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.005
    #: The clip value is this times the quantile. Paper: 1.
    headroom: Annotated[float, Field(ge=1, le=10)] = 1.25


class DetectionSettings(Settings):
    """Threshold by count and components (paper, Sec. 2.2)."""

    #: ``e`` the heatmap alone, ``f`` heatmap plus intensities, ``auto`` f where the bundle has a weight for it; the
    #: others are what the paper compares with: ``a`` intensities, ``b`` and ``c`` saliency, ``d`` a coarse class map
    #: (``b`` and ``d``, and ``auto`` as ``d``, with a network without the upsampling path).
    method: Literal["auto"] | Method = "auto"
    connectivity: Literal[6, 18, 26] = 26


class Bounds(Settings):
    """Range within which a quality measure passes; either side may be open."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def holds(self, value: float | None) -> bool | None:
        """Whether ``value`` lies within; None where the value is unknown or there is no bound."""
        if value is None or (self.low is None and self.high is None):
            return None
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


DEFAULT_BOUNDS: dict[str, Bounds] = {
    measure: Bounds(low=low, high=high) for measure, (low, high) in DEFAULT_LIMITS.items()
}


class QualitySettings(Settings):
    """Bounds of the quality measures; a scan outside one is flagged and still counted."""

    bounds: dict[str, Bounds] = Field(default_factory=lambda: dict(DEFAULT_BOUNDS))


class Protocol(Settings):
    """All settings of a study; the defaults are the built-in ``rotterdam-basal-ganglia``."""

    name: str = "rotterdam-basal-ganglia"
    description: str = "PD/T2-weighted 3D scans, perivascular spaces of the basal ganglia, whole ROI"
    count_target: CountTarget = "roi"
    model: str = "gp-unet-sim"
    input: InputSettings = InputSettings()
    registration: RegistrationSettings = RegistrationSettings()
    roi: RoiSettings = RoiSettings()
    grid: GridSettings = GridSettings()
    trim: TrimSettings = TrimSettings()
    detection: DetectionSettings = DetectionSettings()
    quality: QualitySettings = Field(default_factory=QualitySettings)

    @property
    def protocol_id(self) -> str:
        """Hash of every setting but the models, which have hashes of their own: 16 hexadecimal digits."""
        return digest(self.model_dump(mode="json", exclude={"model": True, "roi": _ROI_MODELS}))

    @property
    def prepare_id(self) -> str:
        """Hash of the settings that a prepared volume depends on, but for the networks that outline."""
        parts = {"registration", "roi", "grid", "trim"}
        # Of the input settings only this one changes what is read; the others refuse or let pass.
        settings = self.model_dump(mode="json", include=parts, exclude={"roi": _ROI_MODELS})
        return digest({**settings, "four_d": self.input.four_d})

    @property
    def detect_id(self) -> str:
        """Hash of the settings that lesions and flags depend on, beyond volume and model."""
        parts = {"count_target", "detection", "quality"}
        # The method is settled with the bundle; what it is settled to belongs to the run.
        return digest(self.model_dump(mode="json", include=parts, exclude={"detection": {"method"}}))


def digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of ``value`` as canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pipelines_dir() -> Path:
    """Folder of the protocols, clusters and recipes: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "pipelines"
    return inside if inside.is_dir() else package.parent / "pipelines"


def named_file(kind: str, name: str) -> Path:
    """Path of ``pipelines/<kind>/<name>.toml``, or of the file that ``name`` itself names.

    Raises
    ------
    ProtocolError
        Neither a bundled name nor a file.
    """
    folder = pipelines_dir() / kind
    bundled = folder / f"{name}.toml"
    if bundled.is_file():
        return bundled
    # Of a name too long for a file, os.path says no where Path raises.
    if os.path.isfile(name):
        return Path(name)
    known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
    raise ProtocolError(
        f"{kind}: {name!r} is neither a bundled name nor a file", hint=f"bundled {kind}: {known}"
    )


def read_toml(path: Path) -> dict[str, object]:
    """Parse a TOML file.

    Raises
    ------
    ProtocolError
        The file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProtocolError(f"{path}: not a readable TOML file: {error}") from error


def explain(path: Path, error: ValidationError) -> ProtocolError:
    """Turn a validation error into one sentence per illegal setting."""
    lines = [
        f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']} (found {item['input']!r})"
        for item in error.errors()
    ]
    return ProtocolError(f"{path}: " + "; ".join(lines))


def load_protocol(name: str) -> Protocol:
    """Load a protocol by bundled name or path of a TOML file.

    Raises
    ------
    ProtocolError
        No such protocol, no TOML, an unknown setting or an illegal value.
    """
    path = named_file("protocols", name)
    try:
        return Protocol.model_validate(read_toml(path))
    except ValidationError as error:
        raise explain(path, error) from error
