"""Processor time of the stages of one scan, taken on the program's own code path.

Functions are wrapped where the program looks them up, so nothing is copied from it and nothing can be left out:
what no stage claims is the rest. A stage within another (labels read during outlining) is taken off the outer one.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import epvs_cohort.cohort.infer_task as infer_task
import epvs_cohort.cohort.prepare_task as prepare_task
import epvs_cohort.prepare.roi as roi
import epvs_cohort.prepare.scan as scan
import epvs_cohort.prepare.segmented as segmented
from epvs_cohort.data.parts import Parts
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.model.predict import Predictor
from epvs_cohort.prepare.warp import Warp

REST = "the rest"
#: Stage to the places where the program looks its functions up. `_quality` is private: it has no other name.
PLACES: dict[str, tuple[tuple[Any, str], ...]] = {
    "hash of the input": ((prepare_task, "sha256_of"),),
    "read and gunzip": ((prepare_task, "read_image"),),
    "rigid registration": ((scan, "register_rigid"),),
    "looks by networks": ((scan, "find"), (scan, "find_near")),
    "outline": (
        (scan, "outline_roi"),
        (scan, "outline_segmented"),
        (scan, "look_near"),
        (roi, "labels_on_grid"),
        (segmented, "labels_on_grid"),
        (Warp, "on_grid"),
    ),
    "resample, mask, trim": (
        (scan, "field_of_view"),
        (scan, "soft_mask"),
        (scan, "resample_cubic"),
        (scan, "trim"),
    ),
    "quality measures": ((scan, "_quality"),),
    "pictures": ((scan, "prepare_pictures"), (infer_task, "lesion_pictures")),
    "inference": ((Predictor, "predict"),),
    "detection": ((infer_task, "detect_scores"),),
    "writing": (
        (PreparedStore, "save"),
        (PreparedStore, "save_heat"),
        (PreparedStore, "add_pictures"),
        (Parts, "write"),
    ),
    "reading back": ((PreparedStore, "load"), (PreparedStore, "pictures")),
}


@dataclass
class StageClock:
    """Seconds of processor time by stage, each without the stages within it."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _within: list[float] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take the time of all that runs in the block; what no stage claims is `REST`."""
        with self._patched(), self._stage(REST):
            yield

    @contextmanager
    def _patched(self) -> Iterator[None]:
        undo = []
        try:
            for stage, places in PLACES.items():
                for owner, name in places:
                    wrapped = patch.object(owner, name, self._timed(stage, getattr(owner, name)))
                    wrapped.start()
                    undo.append(wrapped)
            yield
        finally:
            for wrapped in reversed(undo):
                wrapped.stop()

    def _timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._stage(stage):
                return work(*args, **kwargs)

        return timed

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        self._within.append(0.0)
        began = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - began
            self.seconds[stage] += took - self._within.pop()
            if self._within:
                self._within[-1] += took
