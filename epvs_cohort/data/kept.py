"""What was made of a scan or an atlas once, kept as long as that lives."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

Made = TypeVar("Made")

#: By the ``id`` of the living owner, which cannot be hashed: it holds arrays.
_MADE: dict[int, dict[Hashable, Any]] = {}
#: Held while an owner is registered, once.
_REGISTERING = threading.Lock()


def kept(owner: object, key: Hashable, make: Callable[[], Made]) -> Made:
    """What ``make`` gives for an owner, made once for each key.

    Parameters
    ----------
    owner : object
        What it is made of; never changed afterwards.
    key : hashable
        What is made, with the settings that it depends on.
    make : callable

    Examples
    --------
    >>> class Scan: pass
    >>> scan, calls = Scan(), []
    >>> [kept(scan, "length", lambda: calls.append(1) or len(calls)) for _ in range(2)]
    [1, 1]
    """
    with _REGISTERING:
        if id(owner) not in _MADE:
            _MADE[id(owner)] = {}
            weakref.finalize(owner, partial(_MADE.pop, id(owner), None))
        made = _MADE[id(owner)]
    if key not in made:
        made[key] = make()
    found: Made = made[key]
    return found
