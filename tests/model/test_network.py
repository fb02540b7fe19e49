"""The equations of the paper, the receptive field, and folding."""

from __future__ import annotations

import pytest
import torch

from epvs_cohort.model.network import (
    Architecture,
    GpUnet,
    Pooling,
    cells_of,
    fold_batch_norm,
    pool_maps,
    pool_rows,
    raised_heat,
)
from tests.model.conftest import random_network


def _mask(shape: tuple[int, int, int]) -> torch.Tensor:
    mask = torch.zeros((1, 1, *shape), dtype=torch.bool)
    mask[..., 2:9, 3:10, 1:7] = True
    return mask


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("last_layer", ["density", "free"])
def test_pooled_heatmap_plus_bias_is_the_count(pooling: Pooling, last_layer: str) -> None:
    architecture = Architecture.model_validate(
        {"widths": (3, 4), "pooling": pooling, "last_layer": last_layer}
    )
    network = random_network(architecture)
    volume, mask = torch.rand(1, 1, 16, 12, 8), _mask((16, 12, 8))
    heat = network.heatmap(network.features(volume))[mask[:, 0]]
    pooled = heat.sum() if pooling == "sum" else heat.mean()
    bias = 0.0 if network.last_bias is None else float(network.last_bias.detach())
    torch.testing.assert_close(network(volume, mask)[0], pooled + bias)
    assert (bias != 0.0) == (last_layer == "free")


def test_max_pooling_takes_the_largest_value_in_the_mask_only() -> None:
    features = torch.zeros(1, 2, 4, 4, 4)
    features[0, 0, 0, 0, 0] = 9.0
    features[0, 0, 2, 2, 2] = 3.0
    features[0, 1, 2, 2, 1] = 5.0
    mask = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    mask[..., 1:, 1:, 1:] = True
    assert pool_maps(features, mask, "max").tolist() == [[3.0, 5.0]]


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
def test_rows_pool_as_maps_do(pooling: Pooling) -> None:
    features, mask = torch.rand(1, 5, 16, 12, 8), _mask((16, 12, 8))
    rows = features[0].permute(1, 2, 3, 0)[mask[0, 0]]
    torch.testing.assert_close(pool_rows(rows, pooling).float(), pool_maps(features, mask, pooling)[0])


def test_the_background_is_pooled_only_where_the_crop_is_asked_for() -> None:
    inside = random_network(Architecture(widths=(3, 4)))
    crop = GpUnet(Architecture(widths=(3, 4), pool_within="crop")).eval()
    crop.load_state_dict(inside.state_dict())
    volume, mask = torch.rand(1, 1, 16, 12, 8), _mask((16, 12, 8))
    everywhere = torch.ones_like(mask)
    torch.testing.assert_close(crop(volume, mask), inside(volume, everywhere))
    assert float(crop(volume, mask).detach()) > float(inside(volume, mask).detach())


def test_a_density_is_never_negative() -> None:
    network = random_network(Architecture(widths=(4, 4)), seed=3)
    assert float(network.last_weight.detach().min()) < 0.0
    assert float(network.heatmap(network.features(torch.rand(1, 1, 8, 8, 8))).detach().min()) >= 0.0


def test_features_have_the_size_of_the_input() -> None:
    network = GpUnet(Architecture(widths=(2, 3, 4, 5)))
    assert network.features(torch.rand(2, 1, 16, 8, 24)).shape == (2, 2, 16, 8, 24)


def test_without_the_way_up_features_lie_on_the_coarsest_cells() -> None:
    architecture = Architecture(widths=(2, 3, 5), upsampling="none")
    network = random_network(architecture)
    assert (architecture.cell, Architecture(widths=(2, 3, 5)).cell) == (4, 1)
    assert network.features(torch.rand(2, 1, 16, 8, 24)).shape == (2, 5, 4, 2, 6)
    assert not any(name.startswith("up") for name in network.state_dict())
    volume, mask = torch.rand(1, 1, 16, 12, 8), _mask((16, 12, 8))
    features, cells = network.features(volume), cells_of(mask, 4)
    expected = network.count(pool_maps(features, cells, "sum"))
    torch.testing.assert_close(network(volume, mask), expected)


def test_a_cell_is_of_the_mask_where_any_of_its_voxels_is() -> None:
    mask = torch.zeros(1, 1, 8, 8, 8, dtype=torch.bool)
    mask[0, 0, 3, 4, 0] = True
    cells = cells_of(mask, 4)
    assert cells.shape == (1, 1, 2, 2, 2)
    assert torch.nonzero(cells).tolist() == [[0, 0, 0, 1, 0]]
    assert cells_of(mask, 1) is mask


def test_heat_of_cells_is_raised_linearly_between_their_middles() -> None:
    heat = torch.tensor([1.0, 5.0, 100.0])[:, None, None]
    cells = torch.tensor([True, True, False])[:, None, None]
    raised = raised_heat(heat, cells, 4)[:, 0, 0]
    assert raised.shape == (12,)
    torch.testing.assert_close(raised[:2], torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(raised[2:6], torch.tensor([1.5, 2.5, 3.5, 4.5]))
    torch.testing.assert_close(raised[6:8], torch.tensor([5.0, 5.0]))
    assert raised_heat(heat, cells, 1) is heat


@pytest.mark.parametrize("upsampling", ["nearest", "none"])
@pytest.mark.parametrize(("widths", "convs"), [((2,), 1), ((2, 3), 1), ((2, 3), 2), ((2, 2, 2), 1)])
def test_the_receptive_radius_bounds_what_an_input_voxel_changes(
    widths: tuple[int, ...], convs: int, upsampling: str
) -> None:
    settings = {"widths": widths, "convs_per_level": convs, "upsampling": upsampling}
    architecture = Architecture.model_validate(settings)
    network = GpUnet(architecture).double()
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, 0.1, 1.0)
    volume = torch.zeros(1, 1, 64, 4, 4, dtype=torch.float64)
    reach = 0
    for at in range(28, 36):
        moved = volume.clone()
        moved[0, 0, at] = 1.0
        changed = (network.features(moved) != network.features(volume)).any(dim=1).any(-1).any(-1)[0]
        changed = changed.repeat_interleave(architecture.cell)
        reach = max(reach, *(abs(int(n) - at) for n in torch.nonzero(changed)))
    assert reach == architecture.receptive_radius


@pytest.mark.parametrize("upsampling", ["nearest", "none"])
def test_folding_batch_norm_changes_nothing(upsampling: str) -> None:
    torch.manual_seed(1)
    architecture = Architecture.model_validate({"widths": (4, 6, 8), "upsampling": upsampling})
    network = GpUnet(architecture, batch_norm=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    for _ in range(3):
        network.features(torch.rand(2, 1, 16, 16, 16))
    network.eval()
    folded = fold_batch_norm(network)
    volume, mask = torch.rand(1, 1, 16, 12, 8), _mask((16, 12, 8))
    assert not any("norm" in name for name in folded.state_dict())
    torch.testing.assert_close(folded.features(volume), network.features(volume), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded(volume, mask), network(volume, mask), rtol=1e-4, atol=1e-4)
