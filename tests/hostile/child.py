"""A process that reads hostile inputs one by one under limits, and tells of each on standard output.

Each line of standard input is a JSON list: name, way, path. For each, one line tells how it ended.
A limit that is broken ends the process: memory by a MemoryError or the allocator's abort, time by SIGPROF or SIGALRM.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

from epvs_cohort.data.discover import discover
from epvs_cohort.data.identity import FileState, sha256_of
from epvs_cohort.data.images import describe, read_image, read_labels
from epvs_cohort.errors import EpvsError
from epvs_cohort.protocol import InputSettings
from epvs_cohort.records import Image

#: Bytes that reading one input may take beyond the loaded program.
MEMORY_BYTES = 2 << 30
#: Processor seconds that one input may take.
CPU_SECONDS = 10.0
#: Seconds after which the process is ended: of the processor, and of waiting, which a busy machine makes long.
_CPU_END = 12.0
_WALL_END = 60.0

_EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class")
_TALKING = ("socket.connect", "socket.bind", "urllib.Request")


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _forbid(event: str, arguments: tuple[object, ...]) -> None:
    if event in _EXECUTING or event in _TALKING:
        os.write(1, json.dumps({"executed": [event, str(arguments)[:200]]}).encode() + b"\n")
        os._exit(77)


def _check(image: Image) -> str:
    data = image.data
    if data.ndim != 3 or not np.isfinite(data).all() or not np.isfinite(image.affine).all():
        raise AssertionError(f"an image of shape {data.shape} that is not finite was let in")
    return "image"


def _read(way: str, path: Path) -> str:
    if way == "trap":
        exec(path.read_text(), {})
    if way == "scans":
        return f"{len(discover(path).scans)} scans"
    if way == "labels":
        return _check(read_labels(path))
    told = describe(path)
    image = read_image(path, InputSettings())
    if image.data.shape != told.shape:
        raise AssertionError(f"described as {told.shape}, read as {image.data.shape}")
    FileState.of(path)
    sha256_of(path)
    return _check(image)


def _outcome(way: str, path: Path) -> dict[str, object]:
    began = time.process_time()
    try:
        told = {"end": "good", "what": _read(way, path)}
    except EpvsError as error:
        told = {"end": "error", "what": f"{error.kind}: {error.message[:300]}"}
    except BaseException as error:  # noqa: BLE001 - whatever is raised is what the tests look for
        told = {"end": "fault", "what": f"{type(error).__name__}: {str(error)[:300]}"}
    return {**told, "cpu": round(time.process_time() - began, 2)}


def _limit(cpu: float, wall: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, cpu)
    signal.setitimer(signal.ITIMER_REAL, wall)


def main() -> None:
    """Read what standard input names."""
    import SimpleITK as sitk

    # Whatever is loaded on first use is loaded now, so that the limit is that of the input alone.
    sitk.ImageFileReader()
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_forbid)
    for line in sys.stdin:
        name, way, path = json.loads(line)
        _limit(_CPU_END, _WALL_END)
        told = _outcome(way, Path(path))
        _limit(0.0, 0.0)
        sys.stdout.write(json.dumps({"ended": name, **told}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
