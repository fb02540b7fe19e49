"""Checksums of what a prepared store keeps beside its volumes: the side-car and the heatmap."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from epvs_cohort.records import Float32Array

SIDECAR = "prepared.json"


def signed(sidecar: Mapping[str, Any]) -> bytes:
    """A side-car as JSON, with a checksum of itself among those of the other files."""
    checksums = {**sidecar["sha256"], SIDECAR: _checksum(sidecar)}
    return json.dumps({**sidecar, "sha256": checksums}, allow_nan=False).encode()


def is_whole(sidecar: Mapping[str, Any]) -> bool:
    """Whether a side-car is as it was written; one of an older version tells no checksum of itself, and passes."""
    try:
        checksums = sidecar["sha256"]
        return len(checksums) == 2 or bool(checksums[SIDECAR] == _checksum(sidecar))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return False


def _checksum(sidecar: Mapping[str, Any]) -> str:
    others = {name: value for name, value in sidecar["sha256"].items() if name != SIDECAR}
    text = json.dumps({**sidecar, "sha256": others}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def heat_checksum(facts: Mapping[str, str], heat: Float32Array) -> str:
    """SHA-256 over a heatmap, shape (N,), and what is told of it."""
    text = json.dumps(dict(facts), sort_keys=True)
    return hashlib.sha256(text.encode() + heat.tobytes()).hexdigest()
