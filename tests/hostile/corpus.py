"""The whole corpus of hostile inputs, and the part of it that every run of the tests reads."""

from __future__ import annotations

from tests.hostile.cases import Case, thinned
from tests.hostile.folder_cases import folder_cases
from tests.hostile.format_cases import format_cases
from tests.hostile.nifti_cases import nifti_cases

#: Of the whole corpus, every n-th case is read each time the tests run; `make torture` reads all.
FAST_EVERY = 9


def corpus() -> list[Case]:
    """All hostile inputs."""
    return [*nifti_cases(), *format_cases(), *folder_cases()]


def fast_corpus() -> list[Case]:
    """A part of them, with all that once broke something."""
    return thinned(corpus(), FAST_EVERY)
