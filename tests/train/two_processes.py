"""What each of the processes of ``test_distributed`` does; started by torch's launcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from epvs_cohort.train.counted import CountedOrder, train_counted
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.scan_state import TrainState
from tests.train.blobs import cohort, protocol, recipe


def main(folder: Path) -> None:
    """Train with the others on the store in ``folder``; say what came of it in ``rank-N.pt``."""
    rank = os.environ.get("RANK", "0")
    losses: list[float] = []

    def watch(state: TrainState) -> None:
        losses.append(state.loss)

    order = CountedOrder(
        cohort(folder / f"store-{rank}", 10, 4),
        recipe(epochs=6, batch=3, validate_every=8),
        protocol(),
        RunSettings(folder / "model", seed=3),
    )
    bundle = train_counted(order, watch)
    state = {"weights": bundle.network.state_dict(), "losses": losses, "model": bundle.model_id}
    torch.save(state, folder / f"rank-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
