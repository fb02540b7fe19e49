"""What training on counted scans is of, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epvs_cohort.model.network import GpUnet
from epvs_cohort.protocol import digest
from epvs_cohort.train.distributed import Group
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.scan_steps import Volumes


@dataclass(frozen=True)
class TrainState:
    """How far a run is, told at each step.

    Attributes
    ----------
    epoch, epochs : int
        The one under way, 1 is the first, and how many there are to be at most.
    step : int
        Steps done.
    seconds : float
        Time in training so far.
    seconds_left : float or None
        Until epochs or minutes are used up; None where it cannot be told yet.
    loss : float
        Of the step.
    validation_mse, icc : float or None
        Of the latest validation.
    """

    epoch: int
    epochs: int
    step: int
    seconds: float
    seconds_left: float | None
    loss: float
    validation_mse: float | None
    icc: float | None


Watch = Callable[[TrainState], None]


@dataclass
class ScanProgress:
    """How far a run has come; what a checkpoint holds beside weights.

    Attributes
    ----------
    epoch, number : int
        Of the next step, from 0.
    step : int
        Steps done.
    seconds : float
    frozen : bool
        Batch norm keeps its statistics by now.
    best_mse : float or None
        Smallest mean squared error of a validation.
    best_step : int
        Step that it was found after.
    stale : int
        Validations since an error that was clearly smaller than all before.
    mse, icc : float or None
        Of the latest validation.
    judged : int
        Step of the latest validation.
    """

    epoch: int = 0
    number: int = 0
    step: int = 0
    seconds: float = 0.0
    frozen: bool = False
    best_mse: float | None = None
    best_step: int = 0
    stale: int = 0
    mse: float | None = None
    icc: float | None = None
    judged: int = -1


@dataclass(frozen=True)
class ScanTask:
    """What is trained on, and how.

    Attributes
    ----------
    recipe : ScanRecipe
    training, validation : Volumes
    run : RunSettings
    group : Group
        The processes that train together.
    """

    recipe: ScanRecipe
    training: Volumes
    validation: Volumes
    run: RunSettings
    group: Group

    @property
    def epochs(self) -> int:
        """Passes through the training volumes."""
        return self.run.epochs or self.recipe.epochs

    @property
    def identity(self) -> str:
        """What a checkpoint must be of to be gone on with; a longer run may go on from a shorter one."""
        recipe = self.recipe.model_dump(mode="json", exclude={"epochs"})
        return digest({"recipe": recipe, "seed": self.run.seed, "inputs": self.run.inputs_id})


@dataclass(frozen=True)
class TrainedScans:
    """The network of the best validation, and how it came about.

    Attributes
    ----------
    network : GpUnet
        Its counts are to be multiplied by ``unit``.
    unit : float
    progress : ScanProgress
    ended : str
        Why training ended, in words.
    """

    network: GpUnet
    unit: float
    progress: ScanProgress
    ended: str
