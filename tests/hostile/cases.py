"""One hostile input: how it is made in a folder of its own, and how it is then read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: ``image`` is described and read, ``labels`` read as a mask, ``scans`` searched or read as a manifest; ``trap`` is a
#: program of the tests, run to see that the limits hold.
Way = Literal["image", "labels", "scans", "trap"]


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Attributes
    ----------
    name : str
        Unique; also the name of its folder.
    make : callable
        Writes it into an empty folder and returns the path that is then read.
    way : str
        How it is read.
    kept : bool
        Read in the fast half of the tests too: it once broke something, or stands for its family.
    """

    name: str
    make: Callable[[Path], Path]
    way: Way = "image"
    kept: bool = False


def file_case(
    name: str, file: str, content: bytes | Callable[[], bytes], *, way: Way = "image", kept: bool = False
) -> Case:
    """A case that is one file of given bytes, or of bytes that take long to make and are made when they are needed."""

    def make(folder: Path) -> Path:
        path = folder / file
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return Case(name, make, way, kept)


def thinned(cases: Iterable[Case], every: int) -> list[Case]:
    """Every n-th case, and all that are kept."""
    return [case for at, case in enumerate(cases) if case.kept or at % every == 0]
