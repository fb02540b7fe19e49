"""Count enlarged perivascular spaces on thousands of MRI scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epvs_cohort.api import run_cohort
    from epvs_cohort.cohort.run import RunRequest
    from epvs_cohort.data.cohort_tables import read_cohort

__version__ = "0.1.0"

__all__ = ["RunRequest", "__version__", "read_cohort", "run_cohort"]

_HOME = {
    "read_cohort": "epvs_cohort.data.cohort_tables",
    "run_cohort": "epvs_cohort.api",
    "RunRequest": "epvs_cohort.cohort.run",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: reading a table must not cost the import of torch, ITK and Dask.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
