"""Recipes: how a bundled model is trained, as files under ``pipelines/recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from epvs_cohort.model.network import Architecture
from epvs_cohort.protocol import Positive, Settings, explain, named_file, read_toml
from epvs_cohort.train.augment import AugmentSettings
from epvs_cohort.train.objective import LossName
from epvs_cohort.train.optimizers import OptimizerName, Schedule
from epvs_cohort.train.roi_recipe import RoiRecipe

Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=4, le=512)]


class StageSettings(Settings):
    """A part of the training with windows of one size."""

    #: Voxels of a window along i, j, k.
    window: tuple[Side, Side, Side] = (32, 32, 24)
    #: Windows in a step.
    batch: Annotated[int, Field(ge=1, le=1024)] = 16
    steps: Annotated[int, Field(ge=1)] = 2000
    #: Lesions asked for are drawn evenly from 0 to this number; those not wholly inside are left out.
    max_count: Annotated[int, Field(ge=1, le=1000)] = 6
    #: Lesions of less contrast are left out: the plain ones first.
    contrast_floor: Share = 0.0
    #: Of AdamW (Loshchilov and Hutter 2019), at the start and at the end of the stage; linear between.
    learning_rate: Positive = 1e-3
    final_learning_rate: Positive = 1e-3
    #: Batch norm keeps the statistics it has, so that what is trained is what a folded network computes.
    frozen_norm: bool = False


class DrawSettings(Settings):
    """What is drawn into windows; see ``simulate.windows.WindowSettings``."""

    border_share: Share = 0.3
    clip_jitter: Annotated[float, Field(ge=0, le=1)] = 0.06
    gamma_jitter: Annotated[float, Field(ge=0, le=1)] = 0.1


class Recipe(Settings):
    """All that a bundled model is made from, besides anatomies and code: training on simulated windows."""

    supervision: Literal["windows"] = "windows"
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    protocol: str = "rotterdam-basal-ganglia"
    architecture: Architecture = Architecture()
    batch_norm: bool = True
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-2
    #: Gradients of a larger norm are scaled down to this one.
    gradient_norm: Positive = 1.0
    #: The paper's loss; a named place for others.
    loss: Literal["mse"] = "mse"
    #: Lesion-free canvases that windows are cut from.
    canvases: Annotated[int, Field(ge=1, le=100_000)] = 100
    #: Whole simulated volumes that weight |w| is scaled on, and that figures are reported on.
    calibration_volumes: Annotated[int, Field(ge=0, le=10_000)] = 24
    validation_volumes: Annotated[int, Field(ge=2, le=10_000)] = 24
    #: Files of the folder of anatomies, in order of name, that train and validate; the rest is never read.
    training_anatomies: Annotated[int, Field(ge=1)] = 9
    validation_anatomies: Annotated[int, Field(ge=1)] = 2
    draw: DrawSettings = DrawSettings()
    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)] = (StageSettings(),)

    @model_validator(mode="after")
    def _windows_fit_the_stride(self) -> Recipe:
        stride = self.architecture.stride
        for stage in self.stages:
            if any(side % stride for side in stage.window):
                raise ValueError(f"window {stage.window} is not divisible by the stride {stride}")
        return self


class ScanRecipe(Settings):
    """How a network is trained on counted scans: one count for each whole prepared volume.

    The paper states the loss, Adadelta, Gaussian initial weights and randomly transformed samples (Sec. 2.2 and 3);
    the rest it leaves open.
    """

    supervision: Literal["scans"]
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    #: None is that of the bundle that training starts from, or the default.
    architecture: Architecture | None = None
    #: Where the count is that of the anterior commissure's slice, pool within that slice; false is the paper's way,
    #: whose network pools over all it sees.
    pool_in_slice: bool = True
    batch_norm: bool = True
    #: Share of the run after which batch norm keeps its statistics, recomputed on whole training volumes, so that what
    #: is trained is what a folded network computes; 1 is never.
    frozen_norm_from: Share = 0.6
    #: Training volumes that batch norm's statistics are recomputed on.
    norm_volumes: Annotated[int, Field(ge=1, le=1000)] = 12

    loss: LossName = "mse"
    #: Of the negative binomial loss: the variance is m + dispersion m² at the mean m.
    dispersion: Positive = 0.5
    #: Scans whose counts are summed before the loss sees them (Hydranet, Dubost et al. 2019); 1 is the paper's.
    set_size: Annotated[int, Field(ge=1, le=64)] = 1
    #: Sets in a step.
    batch: Annotated[int, Field(ge=1, le=1024)] = 4
    #: Volumes that go through the network together; None is one on a CPU, each in its own box, and all on a GPU.
    micro_batch: Annotated[int, Field(ge=1, le=1024)] | None = None

    optimizer: OptimizerName = "adadelta"
    learning_rate: Positive = 1.0
    #: What the rate falls to under ``linear`` and ``cosine``.
    final_learning_rate: Positive = 1.0
    schedule: Schedule = "constant"
    #: Steps in which the rate rises from zero.
    warm_up: Annotated[int, Field(ge=0)] = 0
    #: The last layer learns at this share of the rate.
    last_layer_rate: Share = 0.1
    weight_decay: Share = 0.0
    #: Gradients of a larger norm are scaled down to this one; None leaves them.
    gradient_norm: Positive | None = None

    epochs: Annotated[int, Field(ge=1)] = 100
    #: Steps between two validations.
    validate_every: Annotated[int, Field(ge=1)] = 100
    #: Validations without a smaller mean squared error before training stops.
    patience: Annotated[int, Field(ge=1)] = 12
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="after")
    def _consistent(self) -> ScanRecipe:
        free = self.architecture is not None and self.architecture.last_layer == "free"
        if self.loss != "mse" and free:
            raise ValueError(f"loss {self.loss!r} needs counts that are never negative: last_layer 'density'")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        return self


AnyRecipe = Recipe | ScanRecipe | RoiRecipe

_KINDS: Mapping[object, type[AnyRecipe]] = {"windows": Recipe, "scans": ScanRecipe, "labels": RoiRecipe}


def load_recipe(name: str) -> AnyRecipe:
    """Load a recipe by bundled name or path of a TOML file; its key ``supervision`` says of which kind it is.

    Raises
    ------
    ProtocolError
        No such recipe, no TOML, an unknown setting or an illegal value.
    """
    path = named_file("recipes", name)
    settings = read_toml(path)
    # An unknown kind, too, is explained by a model.
    model = _KINDS.get(settings.get("supervision"), Recipe)
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise explain(path, error) from error
