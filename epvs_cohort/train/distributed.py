"""Training by several processes that torch's own launcher starts: one step is the same, whoever computes its parts.

``torchrun --nproc-per-node N -m epvs_cohort train ...`` sets ``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE``. Each process
takes its part of a step's sets, the gradients are added up, and the first process alone validates and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from epvs_cohort.errors import UsageError
from epvs_cohort.model.predict import Device

#: The others wait as long while the first process validates.
WAIT = timedelta(hours=2)


@dataclass(frozen=True)
class Group:
    """The processes that train one network; a single one where no launcher started it.

    Attributes
    ----------
    rank, size : int
        Number of this process, and how many there are.
    device : torch.device
        That of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Sum of ``value`` over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the processes; none counts as zero."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat)
        sizes = [parameter.numel() for parameter in trained]
        for parameter, summed in zip(trained, torch.split(flat, sizes), strict=True):
            parameter.grad = summed.reshape(parameter.shape).clone()

    def from_first(self, *values: float) -> tuple[float, ...]:
        """What the first process says, in each."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return tuple(shared.tolist())

    def copy_from_first(self, network: nn.Module) -> None:
        """Take over weights and statistics of the first process."""
        if self.size == 1:
            return
        for tensor in network.state_dict().values():
            # Weights of channels last have no flat view, which a broadcast needs.
            plain = tensor.contiguous()
            dist.broadcast(plain, src=0)
            tensor.copy_(plain)

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group(device: Device) -> Iterator[Group]:
    """Join the processes that a launcher started; without a launcher the group is this process.

    Raises
    ------
    UsageError
        More processes than GPUs were started on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(0, 1, torch.device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device(device)
    if device == "cuda":
        found = torch.cuda.device_count()
        if local >= found:
            raise UsageError(
                f"process {local} of this machine has no GPU: {found} found",
                hint=f"start at most {found} processes: torchrun --nproc-per-node {found}",
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=WAIT)
    try:
        yield Group(rank, size, own)
    finally:
        dist.destroy_process_group()
