"""Recipes of the network that segments heads; ``train.recipe.load_recipe`` loads them by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epvs_cohort.data.head_grid import HeadGrid, Side
from epvs_cohort.model.roi_bundle import check_grid
from epvs_cohort.model.roi_network import RoiArchitecture
from epvs_cohort.protocol import Positive, Settings
from epvs_cohort.simulate.whole_heads import WholeHeadSettings

Share = Annotated[float, Field(ge=0, le=1)]


class RoiRecipe(Settings):
    """All that the network is made from, besides label maps and code: training on simulated heads."""

    supervision: Literal["labels"]
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    architecture: RoiArchitecture = RoiArchitecture()
    grid: HeadGrid = HeadGrid()
    #: The first steps may see heads on a coarser grid: in fewer voxels they cost less, while all is still to be learnt.
    coarse_grid: HeadGrid | None = None
    coarse_steps: Annotated[int, Field(ge=0)] = 0
    #: The steps after them may see a window of each head somewhere in it, of so many voxels: borders are learnt on few
    #: voxels of many heads rather than on many voxels of few.
    window: tuple[Side, Side, Side] | None = None
    draw: WholeHeadSettings = WholeHeadSettings()
    #: People, in order of the files' names from 1 on (``1-9,12``), or names of files without their ending.
    training_people: Annotated[str, Field(min_length=1)] = "1-9"
    validation_people: Annotated[str, Field(min_length=1)] = "10-11"

    #: Heads in a step, and steps.
    batch: Annotated[int, Field(ge=1, le=256)] = 2
    steps: Annotated[int, Field(ge=1)] = 20_000
    #: Of AdamW (Loshchilov and Hutter 2019): rises in ``warm_up`` steps, falls by half a cosine.
    learning_rate: Positive = 2e-3
    final_learning_rate: Positive = 2e-5
    warm_up: Annotated[int, Field(ge=0)] = 200
    weight_decay: Share = 1e-2
    #: Gradients of a larger norm are scaled down to this one.
    gradient_norm: Positive = 1.0
    #: Weight of the cross-entropy beside that of the Dice loss, 1.
    cross_entropy: Annotated[float, Field(ge=0, le=100)] = 1.0
    #: What validates and is exported is a moving average of the weights; 0 is the weights themselves.
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    #: Share of the run after which batch norm keeps its statistics, recomputed on drawn heads, so that what is trained
    #: is what a folded network computes; 1 is never. A batch of two heads has other statistics than all heads have.
    frozen_norm_from: Share = 0.5
    norm_heads: Annotated[int, Field(ge=1, le=10_000)] = 64
    #: Fixed heads that figures are reported on.
    validation_heads: Annotated[int, Field(ge=1, le=10_000)] = 40

    @model_validator(mode="after")
    def _consistent(self) -> RoiRecipe:
        check_grid(self.grid, self.architecture)
        if self.coarse_grid is not None:
            check_grid(self.coarse_grid, self.architecture)
        if (self.coarse_grid is None) != (self.coarse_steps == 0):
            raise ValueError(
                f"coarse_steps is {self.coarse_steps} and coarse_grid is {self.coarse_grid}; both or neither are legal"
            )
        if self.window is not None:
            check_grid(HeadGrid(shape=self.window, spacing_mm=self.grid.spacing_mm), self.architecture)
            if any(n > whole for n, whole in zip(self.window, self.grid.shape, strict=True)):
                raise ValueError(f"window {self.window} is larger than the grid, {self.grid.shape}")
        if self.coarse_steps >= self.steps:
            raise ValueError(
                f"coarse_steps {self.coarse_steps} are all of the {self.steps} steps; the network is to run on the "
                "finer grid"
            )
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        return self

    def grid_at(self, step: int) -> HeadGrid:
        """Grid of the heads of a step."""
        return self.coarse_grid if self.coarse_grid is not None and step < self.coarse_steps else self.grid

    def window_at(self, step: int) -> tuple[int, int, int] | None:
        """Window of the heads of a step; None is the whole of them."""
        return None if step < self.coarse_steps else self.window
