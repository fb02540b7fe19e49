"""How well a network segments fixed simulated heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from epvs_cohort.head_classes import BASAL_GANGLIA, CLASS_NAMES
from epvs_cohort.model.roi_network import RoiUnet
from epvs_cohort.simulate.whole_heads import HeadSample
from epvs_cohort.train.roi_loss import dice_by_class
from epvs_cohort.train.roi_samples import batch_of

#: Volume in mL that a class must have in a head for its Dice to count there: less is a sliver at the edge of the view.
#: An accumbens measures 0.4 to 0.9 mL.
LEAST_ML = 0.25
#: The merged basal ganglia count where at least so much of them is in view; whole ones measure 18 to 30 mL.
LEAST_MERGED_ML = 4.0


@dataclass(frozen=True)
class HeadScores:
    """Scores of one head.

    Attributes
    ----------
    dice : ndarray, shape (17,), float64
        Of each class; NaN where there is less of it than ``LEAST_ML``.
    merged : float or None
        Dice of the basal ganglia as one; None where too little of them is in view.
    volume_ratio : float or None
        Volume of the merged basal ganglia found over the true one.
    """

    dice: np.ndarray[tuple[int], np.dtype[np.float64]]
    merged: float | None
    volume_ratio: float | None


@torch.no_grad()
def score_head(network: RoiUnet, head: HeadSample, voxel_ml: float) -> HeadScores:
    """Segment one head on the network's device and compare."""
    batch = batch_of([head])
    device = next(network.parameters()).device
    volumes = batch.intensities.to(device).contiguous(memory_format=torch.channels_last_3d)
    found = network(volumes)[0].argmax(dim=0).cpu()
    true = batch.classes[0].long()
    dice, size = dice_by_class(found, true, len(CLASS_NAMES))
    dice[size * voxel_ml < LEAST_ML] = float("nan")
    first, last = BASAL_GANGLIA[0], BASAL_GANGLIA[-1]
    ours, theirs = (found >= first) & (found <= last), (true >= first) & (true <= last)
    n_true = int(theirs.sum())
    if n_true * voxel_ml < LEAST_MERGED_ML:
        return HeadScores(dice.numpy(), None, None)
    merged, _ = dice_by_class(ours.long(), theirs.long(), 2)
    return HeadScores(dice.numpy(), float(merged[1]), int(ours.sum()) / n_true)


def validate(network: RoiUnet, heads: Sequence[HeadSample], spacing_mm: float) -> dict[str, float]:
    """Figures over some heads, by name; those that no head can tell are left out.

    Parameters
    ----------
    network : RoiUnet
    heads : sequence of HeadSample
    spacing_mm : float
        Of their grid.

    Returns
    -------
    dict
        ``heads``; ``dice <class>``, the mean over the heads that show the class; ``dice basal ganglia`` and ``lowest
        dice basal ganglia`` of the merged structures; ``volume error basal ganglia``, the mean of |found / true - 1|.
    """
    scores = [score_head(network, head, spacing_mm**3 / 1000.0) for head in heads]
    figures = {"heads": float(len(heads))}
    merged = [score.merged for score in scores if score.merged is not None]
    ratios = [score.volume_ratio for score in scores if score.volume_ratio is not None]
    if merged:
        figures["dice basal ganglia"] = float(np.mean(merged))
        figures["lowest dice basal ganglia"] = float(np.min(merged))
        figures["volume error basal ganglia"] = float(np.mean(np.abs(np.asarray(ratios) - 1.0)))
    table = np.stack([score.dice for score in scores])
    for number, name in enumerate(CLASS_NAMES):
        shown = table[:, number][np.isfinite(table[:, number])]
        if shown.size:
            figures[f"dice {name}"] = float(shown.mean())
    return {name: round(value, 4) for name, value in figures.items()}
