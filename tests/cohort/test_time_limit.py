"""A task that takes too long ends its process, wherever it hangs; one that does not, does not."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

_HEAD = """
import re, threading, time
from epvs_cohort.cohort.time_limit import limited
print("ready", flush=True)
"""
#: A search that never ends and never lets another thread of Python run.
_HANGS = {
    "in C code": "with limited(['a'], 0.5): re.match(r'(a+)+$', 'a' * 64 + 'b')",
    "asleep": "with limited(['a'], 0.5): time.sleep(600)",
    "beside another that is not late": """
def other():
    with limited(['b'], 500.0): time.sleep(600)
threading.Thread(target=other, daemon=True).start()
with limited(['a', 'b'], 0.25): time.sleep(600)
""",
}


@pytest.mark.parametrize("code", _HANGS.values(), ids=_HANGS.keys())
def test_a_task_that_hangs_ends_its_process(code: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HEAD + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert time.monotonic() - began >= 0.4
        assert said == ("", "")


def test_tasks_in_time_let_their_process_live() -> None:
    code = """
with limited(['a'], 2.0): time.sleep(0.05)
with limited(['a'], None): pass
time.sleep(2.5)
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "ready\nalive\n"
