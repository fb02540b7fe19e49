"""What is made of a scan once: made once for each scan and setting, and gone with the scan."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from epvs_cohort.data.kept import kept
from epvs_cohort.data.shrunk import shrunk_image
from epvs_cohort.records import Image


def an_image(value: float) -> Image:
    return Image(np.full((8, 8, 8), value, dtype=np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))


def test_each_owner_and_key_has_its_own() -> None:
    one, other, made = an_image(1.0), an_image(2.0), []

    def make(what: str) -> str:
        made.append(what)
        return what

    for _ in range(2):
        assert kept(one, "a", lambda: make("one a")) == "one a"
        assert kept(one, "b", lambda: make("one b")) == "one b"
        assert kept(other, "a", lambda: make("other a")) == "other a"
    assert made == ["one a", "one b", "other a"]


def test_a_shrunk_scan_is_made_once_and_goes_with_the_scan() -> None:
    image = an_image(3.0)
    coarse, affine = shrunk_image(image, 2.0)
    assert shrunk_image(image, 2.0)[0] is coarse
    assert shrunk_image(image, 4.0)[0].shape == (2, 2, 2)
    assert not coarse.flags.writeable
    assert not affine.flags.writeable
    gone = weakref.ref(coarse)
    del image, coarse, affine
    gc.collect()
    assert gone() is None
