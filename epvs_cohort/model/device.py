"""Which devices torch can use on this machine."""

from __future__ import annotations

import torch


def gpu_count() -> int:
    """Number of CUDA devices that torch can use; 0 without a CUDA build or a driver."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
