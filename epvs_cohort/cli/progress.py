"""Live progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from epvs_cohort.cli.live import clock
from epvs_cohort.cohort.run import Progress

#: Seconds between two lines where there is no terminal.
LINE_SECONDS = 30.0


def line_of(progress: Progress) -> str:
    """Progress in one line of text.

    >>> line_of(Progress(total=10, earlier=2, prepared=5, done=4, failed=1, flagged=2, seconds=60.0))
    '6/10 done (2 earlier), 1 failed, 2 flagged, 240 scans/h, 0:01:00 left'
    """
    rate = progress.scans_per_hour
    speed = f"{rate:.0f} scans/h" if rate is not None else f"{progress.prepared} prepared"
    earlier = f" ({progress.earlier} earlier)" if progress.earlier else ""
    return (
        f"{progress.earlier + progress.done}/{progress.total} done{earlier}, {progress.failed} failed, "
        f"{progress.flagged} flagged, {speed}, {clock(progress.seconds_left)} left"
    )


class Live:
    """Shows progress while its block runs; quiet and line-wise when the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last = float("-inf")
        if console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=console, transient=True)

    def __enter__(self) -> Live:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress, line: str | None) -> None:
        """Show progress, and a line of text where there is one."""
        if line is not None:
            self._console.print(Text(line))
        if self._bar is not None:
            self._show(self._bar, progress)
        elif (
            time.monotonic() - self._last >= LINE_SECONDS
            or progress.earlier + progress.done == progress.total
        ):
            self._console.print(Text(line_of(progress)))
            self._last = time.monotonic()

    def _show(self, bar: Bar, progress: Progress) -> None:
        if self._task is None:
            self._task = bar.add_task("", total=progress.total)
        description = line_of(progress).split(" done", 1)[1].lstrip(" ,")
        bar.update(self._task, completed=progress.earlier + progress.done, description=description)
