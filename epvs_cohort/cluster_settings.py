"""Settings of the machine or cluster that a run uses. Files are TOML under ``pipelines/clusters``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from epvs_cohort.protocol import Settings, explain, named_file, read_toml

_AUTO, _NONE = "auto", "none"


def _none_if_auto(value: object) -> object:
    return None if value == _AUTO else value


def _none_if_none(value: object) -> object:
    return None if value == _NONE else value


#: TOML has no null, so its files say ``"auto"`` where the model holds None.
Processes = Annotated[Annotated[int, Field(ge=1, le=4096)] | None, BeforeValidator(_none_if_auto)]
Gpus = Annotated[Annotated[int, Field(ge=0, le=64)] | None, BeforeValidator(_none_if_auto)]
Threads = Annotated[int, Field(ge=1, le=256)]
Batch = Annotated[Annotated[int, Field(ge=1, le=256)] | None, BeforeValidator(_none_if_auto)]
#: As little as a tenth of a second, to try out what happens then.
Minutes = Annotated[
    Annotated[float, Field(gt=0.001, le=10080, allow_inf_nan=False)] | None, BeforeValidator(_none_if_none)
]
#: ``auto`` is what Dask makes of it: the memory of the machine over its workers.
MemoryLimit = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]*(\.[0-9]+)?(MiB|GiB))$")]


class ClusterSettings(Settings):
    """How many processes a run uses, and how much each may take. It never changes a result.

    Attributes
    ----------
    name, description : str
        What the settings are called and meant for.
    n_procs : int or None
        Scans that are prepared at the same time; None is one for each CPU core.
    gpus : int or None
        Workers with a GPU of their own; 0 predicts on the CPU, None is every GPU that is seen.
    memory_limit : str
        Memory of one worker: ``"auto"``, or a number of MiB or GiB such as ``"8GiB"``.
    threads : int
        Threads that the numeric libraries of one worker may use.
    tls : str or None
        Folder with ``ca.pem``, ``cert.pem`` and ``key.pem``: scheduler, workers and run then talk encrypted, and only
        to who shows a certificate of that authority.
    batch : int or None
        Scans of one prediction task; None is 8 on a GPU and 2 on a CPU.
    minutes_per_scan : float or None
        Time that a scan may take to be prepared, and again to be predicted, before it is ended as failed;
        None lets it take any time.
    """

    name: str
    description: str = ""
    n_procs: Processes = None
    gpus: Gpus = None
    memory_limit: MemoryLimit = _AUTO
    threads: Threads = 1
    tls: Annotated[str, Field(min_length=1)] | None = None
    batch: Batch = None
    minutes_per_scan: Minutes = 30.0


def load_cluster(name: str) -> ClusterSettings:
    """Load cluster settings by bundled name or path of a TOML file.

    Raises
    ------
    ProtocolError
        No such settings, no TOML, an unknown setting or an illegal value.
    """
    path = named_file("clusters", name)
    try:
        return ClusterSettings.model_validate(read_toml(path))
    except ValidationError as error:
        raise explain(path, error) from error
