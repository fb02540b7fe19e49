"""Loss and score of segmentations: Dice and cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Added above and below the fraction, in voxels, so that a class that is hardly there pulls little.
SMOOTHING = 20.0


def segmentation_loss(scores: Tensor, classes: Tensor, cross_entropy: float) -> Tensor:
    """Soft Dice loss, the mean over classes, plus ``cross_entropy`` times the mean cross-entropy.

    The Dice loss of a class is 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s) over all voxels of a batch (Milletari et
    al. 2016, without squares), and counts small structures as much as large ones; cross-entropy has gradients where
    Dice has none yet. Classes that are in no head of the batch are left out of the mean.

    Parameters
    ----------
    scores : Tensor, shape (B, C, I, J, K)
        Before the softmax.
    classes : Tensor, shape (B, I, J, K), int64

    Returns
    -------
    Tensor, shape ()
    """
    logarithms = F.log_softmax(scores.float(), dim=1)
    probabilities = logarithms.exp()
    n_classes = scores.shape[1]
    flat = classes.reshape(-1)
    # What each voxel's own class was given, summed by class: no one-hot copy of 17 volumes is made.
    own = probabilities.gather(1, classes[:, None]).reshape(-1)
    overlap = torch.zeros(n_classes, device=scores.device).index_add_(0, flat, own)
    size = torch.zeros(n_classes, device=scores.device).index_add_(0, flat, torch.ones_like(own))
    given = probabilities.sum(dim=(0, 2, 3, 4))
    dice = (2.0 * overlap + SMOOTHING) / (given + size + SMOOTHING)
    present = size > 0
    loss = 1.0 - dice[present].mean()
    if cross_entropy:
        loss = loss + cross_entropy * F.nll_loss(logarithms, classes)
    return loss


def dice_by_class(found: Tensor, true: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Dice coefficient of each class, 2 |A and B| / (|A| + |B|), and its voxels in the truth.

    Parameters
    ----------
    found, true : Tensor, shape (...), int64
        Class of each voxel.

    Returns
    -------
    tuple of Tensor, shape (C,), float64
        NaN where a class is in neither.

    >>> dice, size = dice_by_class(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 3)
    >>> [round(float(d), 3) for d in dice[:2]], bool(dice[2].isnan()), size.tolist()
    ([0.667, 0.8], True, [2.0, 2.0, 0.0])
    """
    both = torch.bincount(true[found == true].reshape(-1), minlength=n_classes).double()
    size = torch.bincount(true.reshape(-1), minlength=n_classes).double()
    given = torch.bincount(found.reshape(-1), minlength=n_classes).double()
    return 2.0 * both / (size + given), size
