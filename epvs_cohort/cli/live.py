"""Live lines of a training and of scans that are tried: they change on a terminal, and come now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

# Loaded for type checkers alone: the line must not cost the import of torch.
if TYPE_CHECKING:
    from epvs_cohort.train.roi_loop import RoiState
    from epvs_cohort.train.scan_state import TrainState

#: Seconds between two lines on scans where there is no terminal.
LINE_SECONDS = 30.0


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725.4), clock(None)
    ('1:02:05', 'unknown')
    """
    if seconds is None:
        return "unknown"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def line_of(state: TrainState) -> str:
    """State of a training in one line of text; what is not known yet is a dash."""
    return (
        f"epoch {state.epoch}/{state.epochs}, step {state.step}, loss {_number(state.loss)}, "
        f"validation MSE {_number(state.validation_mse)}, ICC {_number(state.icc)}, "
        f"{clock(state.seconds)} so far, {clock(state.seconds_left)} left"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


class _Line:
    """A line that changes in place on a terminal while its block runs, and is not shown elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _changed(self, words: str) -> bool:
        """Whether there is a terminal that shows the words."""
        if self._live is not None:
            self._live.update(Text(words, no_wrap=True, overflow="ellipsis"))
        return self._live is not None

    def _print(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True)


class LiveLine(_Line):
    """Shows how a training on counted scans stands while its block runs.

    On a terminal one line changes in place. Elsewhere there is a line at each validation, and at each epoch as long as
    nothing was validated, so that a log stays short.

    Parameters
    ----------
    console : Console
        Where to show it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._told: tuple[str, ...] | None = None

    def show(self, state: TrainState) -> None:
        """Show a state; cheap enough to be called at every step."""
        if self._changed(line_of(state)):
            return
        # Words, for a figure that is not a number never equals itself.
        news: tuple[str, ...] = (str(state.validation_mse), str(state.icc))
        if state.validation_mse is None:
            news = (*news, str(state.epoch))
        if news != self._told:
            self._told = news
            self._print(line_of(state))


class RoiLine(_Line):
    """Shows how a training of the region's network stands while its block runs; off a terminal, at each checkpoint.

    Parameters
    ----------
    console : Console
        Where to show it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._told: str | None = ""

    def show(self, state: RoiState) -> None:
        """Show a state; cheap enough to be called at every step."""
        words = (
            f"step {state.step}/{state.steps}, loss {_number(state.loss)}, {clock(state.seconds)} so far, "
            f"{clock(state.seconds_left)} left"
        )
        if self._changed(words) or state.judged == self._told:
            return
        self._told = state.judged
        self._print(words + (f"; validation: {state.judged}" if state.judged else ""))


class ScanLine(_Line):
    """Shows how many scans are done while its block runs: on a terminal a line that changes, else one now and then.

    Parameters
    ----------
    console : Console
        Where to show it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._what = ""
        self._began = self._told = time.monotonic()

    def show(self, what: str, done: int, total: int) -> None:
        """Show that so many scans of so many are done; the time left is that of ``what``, such as ``tried``."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._told = what, now, now
        left = (now - self._began) / done * (total - done) if done else None
        words = f"{done}/{total} scans {self._what}, {clock(left)} left"
        if not self._changed(words) and (done == total or now - self._told >= LINE_SECONDS):
            self._print(words)
            self._told = now
