"""The Dask cluster of a run: local processes bound to loopback, or one that is already there.

Workers declare what they are for: ``prepare`` (one slot each), and for prediction ``GPU`` or, without one, ``infer``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin
from distributed.comm.core import CommClosedError
from distributed.security import Security

from epvs_cohort.cluster_settings import ClusterSettings
from epvs_cohort.cohort.security import security_of
from epvs_cohort.data.files import sweep, temporary_beside
from epvs_cohort.errors import UsageError
from epvs_cohort.model.device import gpu_count
from epvs_cohort.model.predict import Precision, bfloat16_is_fast

_log = logging.getLogger(__name__)

# Dask lets its loggers tell everything when it is imported, also where a command loads it after logging was set up.
logging.getLogger("distributed").setLevel(logging.WARNING)

_LOOPBACK = "127.0.0.1"

#: Seconds to wait for a scheduler or for the first worker.
CONNECT_SECONDS = 60
#: Seconds in which a worker must answer first: to load its libraries from a slow disk takes minutes.
ANSWER_SECONDS = 600

#: Scans of one prediction task: several fill a GPU; on a CPU they run one by one anyway, so few lose least.
BATCH = {"cuda": 8, "cpu": 2}


class QuietHeartbeat(WorkerPlugin):
    """Keeps workers of our own cluster from printing a traceback when a heartbeat meets its end.

    A heartbeat on its way while the scheduler closes is logged as an error with its traceback, in a run that went well
    (dask/distributed issue 7192 and others). A worker that is really lost is told of by the scheduler and the engine.
    """

    name = "epvs-cohort-quiet-heartbeat"

    def setup(self, worker: Worker) -> None:
        """Add a filter to the log of the worker's process."""
        del worker
        logging.getLogger("distributed.worker").addFilter(_no_closed_heartbeat)


def _no_closed_heartbeat(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, CommClosedError) and "heartbeat" in record.getMessage())


class DeafToTheKeyboard(WorkerPlugin):
    """Keeps workers of our own cluster from answering an interrupt.

    A terminal sends it to every process of a run; the driver alone answers it, and ends the others.
    """

    name = "epvs-cohort-deaf-to-the-keyboard"

    def setup(self, worker: Worker) -> None:
        """Ignore interrupts in the worker's process, whose loop is in its main thread."""
        del worker
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class ClusterChoice:
    """Where a run computes.

    Attributes
    ----------
    n_procs : int or None
        Local preparation processes; None takes the cluster file's number, else one a core.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    scheduler : str or None
        Address of an existing Dask scheduler; then no local process is started.
    settings : ClusterSettings or None
        A file of ``pipelines/clusters``.
    tls : Path or None
        Folder of certificates; None takes the cluster file's, and without any nothing is encrypted.
    """

    n_procs: int | None = None
    device: str = "auto"
    scheduler: str | None = None
    settings: ClusterSettings | None = None
    tls: Path | None = None

    @property
    def certificates(self) -> Path | None:
        """Folder of certificates that is asked for here or in the cluster file."""
        named = self.settings.tls if self.settings is not None else None
        return self.tls or (Path(named) if named is not None else None)


@dataclass(frozen=True)
class Crew:
    """A connected cluster: how many preparations and predictions fit at once, and what predicts."""

    client: Client
    slots: int
    infer_slots: int
    infer_resource: str
    device: str
    settings: ClusterSettings

    @property
    def batch(self) -> int:
        """Scans of one prediction task."""
        return self.settings.batch or BATCH[self.device]

    @property
    def seconds_per_scan(self) -> float | None:
        """Time that a scan may take to be prepared, and again to be predicted."""
        minutes = self.settings.minutes_per_scan
        return None if minutes is None else 60.0 * minutes


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def connect(choice: ClusterChoice) -> Iterator[Crew]:
    """Start or join a cluster for the length of the block.

    Raises
    ------
    UsageError
        No scheduler at the address, no worker that prepares or predicts, or no GPU where one is asked for.
    """
    # One loss names the scans that were on the worker; the engine itself decides who is tried again.
    with dask.config.set(
        {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.work-stealing": False}
    ):
        if choice.scheduler is not None:
            with _existing(choice) as crew:
                yield crew
        else:
            with _local(choice) as crew:
                yield crew


@contextlib.contextmanager
def _existing(choice: ClusterChoice) -> Iterator[Crew]:
    security = None if choice.certificates is None else security_of(choice.certificates)
    try:
        client = Client(
            choice.scheduler, timeout=CONNECT_SECONDS, set_as_default=False, security=security or Security()
        )
    except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--scheduler {choice.scheduler}: no Dask scheduler answers there: {error}",
            hint="an address tls://HOST:PORT needs --tls with certificates of its own authority",
        ) from error
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        totals = resources_of(workers.values())
        resource = "GPU" if totals.get("GPU") and choice.device != "cpu" else "infer"
        if not totals.get("prepare") or not totals.get(resource):
            raise UsageError(
                f"--scheduler {choice.scheduler}: {len(workers)} workers with resources {totals or 'none'}; "
                "needed are 'prepare' and one of 'GPU', 'infer'",
                hint='start workers with: dask worker ADDRESS --nthreads 1 --resources "prepare=1,infer=1"',
            )
        if choice.device == "cuda" and resource != "GPU":
            raise UsageError(f"--device cuda: no worker of {choice.scheduler} declares the resource GPU")
        device = "cuda" if resource == "GPU" else "cpu"
        settings = choice.settings or ClusterSettings(name="existing")
        yield Crew(client, int(totals["prepare"]), int(totals[resource]), resource, device, settings)


@contextlib.contextmanager
def _local(choice: ClusterChoice) -> Iterator[Crew]:
    settings = choice.settings or ClusterSettings(name="local")
    n_procs = choice.n_procs or settings.n_procs or usable_cores()
    gpus = 0 if choice.device == "cpu" else gpu_count()
    if choice.device == "auto" and settings.gpus is not None:
        gpus = min(gpus, settings.gpus)
    if choice.device == "cuda" and gpus == 0:
        raise UsageError("--device cuda: no usable GPU was found on this machine", hint="use --device auto")
    security = Security() if choice.certificates is None else security_of(choice.certificates)
    comms = {"protocol": "tcp://" if choice.certificates is None else "tls://", "security": security}
    # Named as our other temporary files, so that what a killed run leaves is swept by the next.
    temporary = Path(tempfile.gettempdir())
    sweep(temporary, own_kind=True)
    folder = temporary_beside(temporary / "epvs-cohort")
    folder.mkdir(mode=0o700)
    try:
        cluster = _started(_workers(n_procs, gpus, settings, folder), comms)
        with (
            cluster,
            Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False, security=security) as client,
        ):
            _log.info("dashboard: %s", client.dashboard_link)
            client.register_plugin(QuietHeartbeat())
            client.register_plugin(DeafToTheKeyboard())
            resource, device = ("GPU", "cuda") if gpus else ("infer", "cpu")
            yield Crew(client, n_procs, gpus or n_procs, resource, device, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(workers: dict[str, Any], comms: dict[str, Any]) -> SpecCluster:
    for worker in workers.values():
        worker["options"].update(comms)
    scheduler = {
        **comms,
        "host": _LOOPBACK,
        "port": 0,
        "dashboard": True,
        "dashboard_address": f"{_LOOPBACK}:0",
    }
    return SpecCluster(
        workers=workers,
        scheduler={"cls": Scheduler, "options": scheduler},
        silence_logs=logging.ERROR,
        security=comms["security"],
    )


def settled_precision(crew: Crew) -> Precision:
    """Precision of a whole run, as one of its predicting workers finds it fast; mixed workers never mix it."""
    asked = crew.client.submit(bfloat16_is_fast, crew.device, pure=False, resources={crew.infer_resource: 1})
    return "bfloat16" if asked.result(timeout=ANSWER_SECONDS) else "float32"


def gpu_name(number: int) -> str:
    """What ``CUDA_VISIBLE_DEVICES`` calls the n-th GPU that this process may use: others are somebody else's."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return allowed[number].strip() if number < len(allowed) else str(number)


def workers_at_work(client: Client) -> dict[str, dict[str, Any]]:
    """Workers that take tasks or work on one: not those that wait because their memory is full."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {
        address: worker
        for address, worker in workers.items()
        if worker["status"] == "running" or worker["metrics"].get("executing", 0) > 0
    }


def resources_of(workers: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Sum of the resources that workers declare."""
    totals: dict[str, float] = {}
    for worker in workers:
        for name, amount in worker["resources"].items():
            totals[name] = totals.get(name, 0.0) + amount
    return totals


def _workers(n_procs: int, gpus: int, settings: ClusterSettings, folder: Path) -> dict[str, Any]:
    threads = str(settings.threads)
    limits = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
    environment = dict.fromkeys(limits, threads)
    common = {
        "host": _LOOPBACK,
        "nthreads": 1,
        "dashboard_address": f"{_LOOPBACK}:0",
        "local_directory": str(folder),
        "silence_logs": logging.ERROR,
    }
    memory = settings.memory_limit
    share = memory if memory != "auto" else 1.0 / (n_procs + gpus)
    workers: dict[str, Any] = {}
    for number in range(n_procs):
        resources = {"prepare": 1.0} if gpus else {"prepare": 1.0, "infer": 1.0}
        options = {**common, "memory_limit": share, "resources": resources, "env": environment}
        workers[f"cpu-{number}"] = {"cls": Nanny, "options": options}
    for number in range(gpus):
        visible = {**environment, "CUDA_VISIBLE_DEVICES": gpu_name(number)}
        options = {**common, "memory_limit": share, "resources": {"GPU": 1.0}, "env": visible}
        workers[f"gpu-{number}"] = {"cls": Nanny, "options": options}
    return workers
