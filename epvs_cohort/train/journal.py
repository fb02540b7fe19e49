"""What a run in training tells of itself: a journal of lines, TensorBoard's files, small pictures.

==================  ==========================================================================
``journal.jsonl``   one JSON object a line, in the order of the steps; what the training page is made of
``tensorboard/``    the same curves and pictures for TensorBoard
``pictures/``       pictures of each validation scan, PNG: the latest, and those of the smallest error
==================  ==========================================================================
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from epvs_cohort.data.files import sweep, write_whole
from epvs_cohort.data.pictures import blend_heat, grey_panel, side_by_side, upright, window
from epvs_cohort.data.store import folder_name
from epvs_cohort.errors import OutputError

JOURNAL_FILE: Final = "journal.jsonl"
TENSORBOARD_FOLDER: Final = "tensorboard"
PICTURES_FOLDER: Final = "pictures"
#: Steps that one line is the mean of: a million steps make a journal of about 5 MB.
MEAN_STEPS: Final = 20
#: Latest pictures kept of each scan, beside that of the smallest error.
KEPT_PICTURES: Final = 3
#: Prepared intensity shown as white: the trim leaves headroom above the tissue.
_BRIGHT_INTENSITY: Final = 0.85


@dataclass(frozen=True)
class StepLine:
    """Mean of some training steps that follow one another.

    Attributes
    ----------
    step : int
        The last of them; the first step of a run is 1.
    epoch : int
    loss : float or None
        Their mean; None where it was not finite.
    rate : float
        Learning rate at the last.
    seconds : float
        Time in training up to the last.
    steps : int
        How many they are.
    """

    step: int
    epoch: int
    loss: float | None
    rate: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class ValidationLine:
    """Counts of the validation scans at one moment.

    Attributes
    ----------
    step, epoch : int
    keys : tuple of str
    truth, estimate : tuple of float or None
        Counted and predicted, in the order of ``keys``; None where not finite.
    mse, icc : float or None
        Mean squared error in counts squared, and ICC(A,1); None where not finite.
    """

    step: int
    epoch: int
    keys: tuple[str, ...]
    truth: tuple[float | None, ...]
    estimate: tuple[float | None, ...]
    mse: float | None
    icc: float | None


@dataclass(frozen=True)
class PictureLine:
    """A picture of one validation scan.

    Attributes
    ----------
    step : int
    key : str
    file : Path
        PNG: intensities on the left, heat over them on the right, the person's right on the left of each.
    top_heat : float
        Highest heat of the plane, which has the brightest colour.
    """

    step: int
    key: str
    file: Path
    top_heat: float


@dataclass(frozen=True)
class JournalData:
    """A journal as read.

    Attributes
    ----------
    steps : tuple of StepLine
    validations : tuple of ValidationLine
    pictures : tuple of PictureLine
        Those whose file is there.
    """

    steps: tuple[StepLine, ...]
    validations: tuple[ValidationLine, ...]
    pictures: tuple[PictureLine, ...]


class Journal:
    """Writes the journal of one run in training; one process writes.

    Parameters
    ----------
    folder : Path
        Of the run; created where missing.
    resume_step : int, optional
        Step of the checkpoint that the run goes on from: whatever was told of later steps is dropped, for they
        are done again. None begins anew, and removes what an earlier run left.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        self._pictures = folder / PICTURES_FOLDER
        self._pictures.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL_FILE
        kept = _lines_until(path, -1 if resume_step is None else resume_step)
        write_whole(path, "".join(_encoded(line) for line in kept).encode())
        self._kept: dict[str, list[str]] = {}
        for line in kept:
            if line["kind"] == "picture":
                self._kept.setdefault(line["key"], []).append(line["file"])
        told = [line for line in kept if line["kind"] == "validation" and line["mse"] is not None]
        best = min(told, key=lambda line: float(line["mse"]), default=None)
        self._best: tuple[float, int] | None = None if best is None else (best["mse"], best["step"])
        for names in self._kept.values():
            self._thin(names)
        self._sweep_pictures()
        events = folder / TENSORBOARD_FOLDER
        if resume_step is None:
            for old in events.glob("events.out.tfevents.*"):
                old.unlink()
        # TensorBoard drops what carries the purged step or a later one; the resumed step itself is done.
        purge = None if resume_step is None else resume_step + 1
        self._board = SummaryWriter(str(events), purge_step=purge)
        self._file = path.open("a", encoding="utf-8")
        self._recent: list[tuple[int, int, float, float, float]] = []

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, step: int, epoch: int, loss: float, rate: float, seconds: float) -> None:
        """Tell of one training step.

        Parameters
        ----------
        step : int
            1 is the first of the run; it counts on over epochs and stages.
        epoch : int
        loss : float
        rate : float
            Learning rate.
        seconds : float
            Time in training so far.
        """
        self._recent.append((step, epoch, loss, rate, seconds))
        if step % MEAN_STEPS == 0 or len(self._recent) >= MEAN_STEPS:
            self.flush()

    def flush(self) -> None:
        """Write the mean of the steps told since the last line; called before a checkpoint, none of them is lost."""
        if not self._recent:
            return
        step, epoch, _, rate, seconds = self._recent[-1]
        loss = math.fsum(each[2] for each in self._recent) / len(self._recent)
        self._write(
            "step", step=step, epoch=epoch, loss=loss, rate=rate, seconds=seconds, steps=len(self._recent)
        )
        self._scalar("training/loss", loss, step)
        self._scalar("training/learning_rate", rate, step)
        self._recent.clear()

    def validation(  # noqa: PLR0913 - the fields of one line
        self,
        step: int,
        epoch: int,
        keys: Sequence[str],
        truth: npt.ArrayLike,
        estimate: npt.ArrayLike,
        mse: float,
        icc: float,
    ) -> None:
        """Tell the counts of the validation scans.

        Parameters
        ----------
        step, epoch : int
        keys : sequence of str, length n
        truth, estimate : array_like, shape (n,)
            Counted, and predicted.
        mse, icc : float
            Mean squared error of the counts, and ICC(A,1).
        """
        self.flush()
        if math.isfinite(mse) and (self._best is None or mse < self._best[0]):
            self._best = (mse, step)
        line = ValidationLine(step, epoch, tuple(keys), _floats(truth), _floats(estimate), mse, icc)
        self._write("validation", **asdict(line))
        self._scalar("validation/mse", mse, step)
        self._scalar("validation/icc", icc, step)
        self._board.flush()

    def picture(
        self, step: int, key: str, intensities: npt.NDArray[np.floating], heat: npt.NDArray[np.floating]
    ) -> None:
        """Keep a picture of one slice.

        Parameters
        ----------
        step : int
        key : str
            Scan key.
        intensities : ndarray, shape (I, J)
            Axial slice of a prepared volume, in [0, 1], i to the person's right, j to the front.
        heat : ndarray, shape (I, J)
            Heatmap M on the same voxels, ≥ 0; below 0 and not finite is shown as 0.
        """
        clean = np.maximum(np.nan_to_num(heat, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
        top = float(clean.max(initial=0.0))
        grey = window(upright(intensities).astype(np.float32), 0.0, _BRIGHT_INTENSITY)
        size = (grey.shape[1], grey.shape[0])
        plain, painted = grey_panel(grey, size), grey_panel(grey, size)
        if top > 0:
            blend_heat(painted, np.asarray(upright(clean), dtype=np.float32) / np.float32(top))
        sheet, buffer = side_by_side([plain, painted]), io.BytesIO()
        sheet.save(buffer, format="PNG", optimize=True)
        name = f"{folder_name(key)}{_picture_ending(step)}"
        write_whole(self._pictures / name, buffer.getvalue())
        self._write("picture", step=step, key=key, file=name, top_heat=top)
        kept = self._kept.setdefault(key, [])
        if name not in kept:
            kept.append(name)
        self._thin(kept)
        self._board.add_image(f"validation/{key}", np.asarray(sheet), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet; a second call does nothing."""
        if self._file.closed:
            return
        self.flush()
        self._file.close()
        self._board.close()

    def _write(self, kind: str, **values: Any) -> None:
        self._file.write(_encoded({"kind": kind, **values}))
        self._file.flush()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._board.add_scalar(tag, value, step)

    def _thin(self, names: list[str]) -> None:
        """Remove the older pictures of one scan, but for that of the smallest error: its weights are kept too."""
        ending = "" if self._best is None else _picture_ending(self._best[1])
        for name in names[:-KEPT_PICTURES]:
            if not ending or not name.endswith(ending):
                names.remove(name)
                (self._pictures / name).unlink(missing_ok=True)

    def _sweep_pictures(self) -> None:
        named = {name for names in self._kept.values() for name in names}
        for file in self._pictures.glob(f"*-{'[0-9]' * 9}.png"):
            if file.name not in named:
                file.unlink()
        sweep(self._pictures)


def _picture_ending(step: int) -> str:
    return f"-{step:09d}.png"


def read_journal(folder: Path) -> JournalData:
    """Read the journal of a run, also of one that is under way or was cut off.

    Raises
    ------
    OutputError
        There is none, or a line before the last is damaged.
    """
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise OutputError(f"{path}: no journal of a training is there", hint="name the folder given to --out")
    steps: list[StepLine] = []
    validations: list[ValidationLine] = []
    pictures: list[PictureLine] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            kind = line.pop("kind")
            if kind == "step":
                steps.append(StepLine(**line))
            elif kind == "validation":
                validations.append(_validation_line(line))
            elif kind == "picture" and (file := folder / PICTURES_FOLDER / line.pop("file")).is_file():
                pictures.append(PictureLine(file=file, **line))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number) from error
    return JournalData(tuple(steps), tuple(validations), tuple(pictures))


def _validation_line(line: dict[str, Any]) -> ValidationLine:
    scans = list(zip(line["keys"], line["truth"], line["estimate"], strict=True))
    columns = {name: tuple(scan[n] for scan in scans) for n, name in enumerate(("keys", "truth", "estimate"))}
    return ValidationLine(**{**line, **columns})


def _lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line; one that does not end yet is being written, or was cut off."""
    *whole, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: list[dict[str, Any]] = []
    for number, text in enumerate(whole, start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise _damaged(path, number) from error
        if not isinstance(line, dict) or "kind" not in line or not isinstance(line.get("step"), int):
            raise _damaged(path, number)
        found.append(line)
    return found


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    if step < 0 or not path.is_file():
        return []
    return [line for line in _lines(path) if line["step"] <= step]


def _damaged(path: Path, number: int) -> OutputError:
    return OutputError(
        f"{path}: line {number} is not a line of a training journal",
        hint="remove the line; the run itself does not need it",
    )


def _encoded(line: dict[str, Any]) -> str:
    """JSON text of a line; what is not finite becomes null, for JSON has no word for it."""
    return json.dumps({name: _finite(value) for name, value in line.items()}, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _floats(values: npt.ArrayLike) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values, dtype=np.float64).ravel())
