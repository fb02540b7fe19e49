"""Loss and Dice, on cases worked out by hand."""

from __future__ import annotations

import pytest
import torch

from epvs_cohort.train.roi_loss import SMOOTHING, dice_by_class, segmentation_loss


def scores_of(classes: torch.Tensor, n_classes: int, height: float) -> torch.Tensor:
    return height * torch.nn.functional.one_hot(classes, n_classes).movedim(-1, 1).float()


def halves() -> torch.Tensor:
    classes = torch.zeros(2, 8, 8, 8, dtype=torch.int64)
    classes[:, 4:] = 1
    return classes


def test_a_sure_and_right_answer_costs_nothing() -> None:
    classes = halves()
    assert float(segmentation_loss(scores_of(classes, 3, 50.0), classes, 1.0)) == pytest.approx(0.0, abs=1e-5)


def test_the_value_is_dice_plus_cross_entropy() -> None:
    classes, n = halves(), 3
    scores = torch.zeros(2, n, 8, 8, 8)
    # Each class is given a third everywhere: overlap 512 / 3, given 1024 / 3, size 512; class 2 is not there.
    dice = (2 * 512 / 3 + SMOOTHING) / (1024 / 3 + 512 + SMOOTHING)
    wanted = 1.0 - dice + 0.5 * torch.log(torch.tensor(3.0))
    torch.testing.assert_close(segmentation_loss(scores, classes, 0.5), wanted)


def test_small_classes_weigh_as_much_as_large_ones() -> None:
    classes = torch.zeros(1, 16, 16, 16, dtype=torch.int64)
    classes[:, :4, :4, :4] = 1
    all_large = scores_of(torch.zeros_like(classes), 2, 50.0)
    assert float(segmentation_loss(all_large, classes, 0.0)) > 0.35


def test_gradients_point_to_the_truth() -> None:
    classes = halves()
    scores = torch.zeros(2, 3, 8, 8, 8, requires_grad=True)
    segmentation_loss(scores, classes, 1.0).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    own = scores.grad.gather(1, classes[:, None])
    assert bool((own < 0).all())
    assert bool((scores.grad[:, 2] > 0).all())


def test_dice_of_shifted_blocks() -> None:
    true, found = torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    true[2:6], found[4:8] = 1, 1
    dice, size = dice_by_class(found, true, 2)
    assert dice.tolist() == pytest.approx([2 * 4 / 12, 2 * 2 / 8])
    assert size.tolist() == [6.0, 4.0]
