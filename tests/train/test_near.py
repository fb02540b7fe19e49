"""Counts of the network near the mask are those of the network, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from epvs_cohort.model.network import Architecture, GpUnet, Pooling
from epvs_cohort.train.allocator import keep_freed_memory
from epvs_cohort.train.near import counts_near, features_near, mask_box

SHAPE = (40, 32, 24)


def random_network(architecture: Architecture) -> GpUnet:
    """In double precision, with batch norm that has statistics of its own, in evaluation."""
    torch.manual_seed(3)
    network = GpUnet(architecture, batch_norm=True).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.6)
    return network


def given() -> tuple[Tensor, Tensor]:
    """Two volumes: a mask in the middle, and one on the border with an odd corner."""
    volumes = torch.rand(2, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(2, 1, *SHAPE, dtype=torch.bool)
    mask[0, :, 20:26, 13:18, 9:12] = True
    mask[1, :, 0:7, 21:22, 15:18] = True
    return volumes, mask


@pytest.mark.parametrize(
    ("widths", "up"),
    [
        ((3,), "nearest"), ((2, 3), "nearest"), ((2, 3, 4), "nearest"), ((2, 2, 3, 2), "nearest"),
        ((2, 6), "none"), ((3, 4, 8), "none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize(("pooling", "within"), [("sum", "mask"), ("max", "mask"), ("mean", "crop")])
def test_counts_and_gradients_are_those_of_the_network(
    widths: tuple[int, ...], up: str, convs: int, pooling: Pooling, within: str
) -> None:
    settings = {"widths": widths, "convs_per_level": convs, "pooling": pooling, "pool_within": within}
    network = random_network(Architecture.model_validate({**settings, "upsampling": up}))
    volumes, mask = given()
    whole, near = network(volumes, mask), counts_near(network, volumes, mask)
    assert float(whole.detach().min()) > 0.0
    torch.testing.assert_close(near, whole, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(counts.sum(), list(network.parameters())) for counts in (whole, near)]
    for plain, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_batch_norm_that_is_trained_sees_the_features_near_the_mask() -> None:
    network = random_network(Architecture(widths=(2, 3), convs_per_level=1)).train()
    volumes, mask = given()
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(
        counts_near(network, volumes, everywhere), network(volumes, everywhere), rtol=1e-5, atol=1e-6
    )
    last = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)][-1]
    assert last.running_mean is not None
    before = last.running_mean.clone()
    counts_near(network, volumes, mask)
    assert not torch.equal(last.running_mean, before)


def test_features_lie_where_the_box_says() -> None:
    network = random_network(Architecture(widths=(2, 3, 4)))
    volumes, mask = given()
    near = features_near(network, volumes[:1], mask[:1])
    # One voxel for each convolution behind, on even corners.
    assert near.region == ((18, 28), (10, 20), (6, 14))
    within = mask[:1].expand(1, 2, *SHAPE)
    torch.testing.assert_close(
        near.features[near.cut(within)], network.features(volumes[:1])[within], rtol=1e-9, atol=1e-9
    )


def test_the_box_is_that_of_all_samples() -> None:
    _, mask = given()
    assert mask_box(mask) == ((0, 26), (13, 22), (9, 18))
    assert mask_box(torch.zeros_like(mask)) == ((0, 40), (0, 32), (0, 24))


def test_freed_memory_is_kept_where_it_can_be() -> None:
    assert keep_freed_memory() in (True, False)
    assert torch.zeros(1 << 24).sum() == 0.0
