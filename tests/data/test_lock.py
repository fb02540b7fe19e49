"""Two runs never write one output, and a crash leaves no lock behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epvs_cohort.data.lock import exclusive
from epvs_cohort.errors import StoppedError

_HOLDER = """
import sys, time, pathlib
from epvs_cohort.data.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StoppedError, match=f"another run \\(process {holder.pid}\\)"),
            exclusive(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    deadline = time.monotonic() + 5
    while True:
        try:
            with exclusive(tmp_path):
                return
        except StoppedError:
            assert time.monotonic() < deadline
