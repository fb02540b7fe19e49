from __future__ import annotations

import os
from pathlib import Path

import pytest

from epvs_cohort.data.names import is_utf8, not_utf8_words, shown


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a.nii", "a.nii"),
        ("é雪.nii".encode(), "é雪.nii"),
        (b"bad\xff.nii", r"bad\xff.nii"),
        (b"\xe9/x", r"\xe9/x"),
    ],
)
def test_any_name_can_be_shown(raw: bytes, expected: str) -> None:
    name = os.fsdecode(raw)
    assert shown(name) == shown(Path(name)) == expected
    assert is_utf8(shown(name))
    assert is_utf8(name) == (expected == name)


def test_the_bytes_stand_in_the_reason() -> None:
    assert not_utf8_words(os.fsdecode(b"bad\xff.nii")) == r"its name is not UTF-8: b'bad\xff.nii'"
