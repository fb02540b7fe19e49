"""A command that is interrupted before it has begun says so, and leaves with the code of a stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def hears(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a process answers a signal itself."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_interrupted_while_it_loads_stops_with_words(
    tmp_path: Path, number: signal.Signals
) -> None:
    words = ["run", str(tmp_path), "--out", str(tmp_path / "counts.parquet")]
    with subprocess.Popen(
        [sys.executable, "-m", "epvs_cohort.cli.app", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not hears(process, number):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        # By then the command itself, with all it takes along, is about to be loaded.
        time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate()[1]
    assert (process.returncode, "interrupted" in said) == (5, True), said
    assert "Traceback" not in said


_COMMITS = """
import os, signal, sys, time
from epvs_cohort.cli import app
from epvs_cohort.errors import StoppedError

def command():
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
    except KeyboardInterrupt:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        print("committed", flush=True)
        raise StoppedError("stopped") from None

app.app = command
app.main()
"""


@pytest.mark.parametrize("terminal", ["/dev/null", "/dev/full"])
def test_a_second_signal_breaks_no_commit_and_a_lost_terminal_no_exit_code(terminal: str) -> None:
    with open(terminal, "w") as lost:
        done = subprocess.run(
            [sys.executable, "-c", _COMMITS], stdout=subprocess.PIPE, stderr=lost, text=True, timeout=120
        )
    assert (done.stdout, done.returncode) == ("committed\n", 5)
