"""The body of the networks: small volumes are convolved as fast as large ones, and alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from epvs_cohort.model.unet import SLOW_UP_TO, ConvUnit, convolved


@pytest.mark.parametrize("shape", [(7, 6, 5), (8, 5, 3), (1, 4, 4), (2, 4, 4)])
def test_a_convolution_in_halves_is_the_same(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(3)
    conv = nn.Conv3d(3, 4, 3, padding=1).double()
    volume = torch.randn(1, 3, *shape, dtype=torch.float64, requires_grad=True)
    whole, halves = conv(volume), convolved(volume, conv.weight, conv.bias)
    torch.testing.assert_close(halves, whole)
    pull = torch.randn_like(whole)
    wanted = [volume, *conv.parameters()]
    for one, other in zip(
        torch.autograd.grad(whole, wanted, pull), torch.autograd.grad(halves, wanted, pull), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_convolution_in_halves_is_the_same_in_single_precision(layout: torch.memory_format) -> None:
    torch.manual_seed(4)
    conv = nn.Conv3d(3, 4, 3, padding=1)
    volume = torch.randn(1, 3, 9, 6, 5).to(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(convolved(volume, conv.weight, conv.bias), conv(volume))


def test_half_precision_goes_through_whole() -> None:
    unit = ConvUnit(2, 2, batch_norm=False)
    with profile(activities=[ProfilerActivity.CPU]) as seen, torch.autocast("cpu", torch.bfloat16):
        unit(torch.rand(1, 2, 6, 6, 6))
    assert not any("aten::cat" in event.key for event in seen.key_averages())


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="this build of torch has one way alone",
)
def test_no_convolution_of_a_small_volume_takes_the_slow_way() -> None:
    unit = ConvUnit(8, 8, batch_norm=False)
    volume = torch.rand(1, 8, 32, 24, 20)
    assert volume.shape[:4].numel() <= SLOW_UP_TO
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        unit(volume)
    names = {event.key for event in seen.key_averages()}
    assert not any("slow_conv" in name for name in names)
    # The limit is torch's: should it move, this says so.
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        unit.conv(volume)
    assert any("slow_conv" in event.key for event in seen.key_averages())
