"""Random transformations: exact where they must be, bounded, repeatable, and the mask goes along."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from epvs_cohort.train.augment import AugmentSettings, augment

SHAPE = (24, 20, 16)
STILL = AugmentSettings(
    mirror=0.0, interpolate=0.0, turn_deg=0.0, scale=0.0, shift_voxels=0, gamma=0.0, brightness=0.0, noise=0.0
)


def still(**changes: float) -> AugmentSettings:
    return AugmentSettings.model_validate({**STILL.model_dump(), **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(3, 1, *SHAPE, dtype=torch.bool)
    mask[0, 0, 6:16, 6:14, 5:11] = True
    mask[1, 0, 0:20, 4:20, 4:12] = True
    mask[2, 0, 8:14, 7:12, 6:9] = True
    intensities = (0.1 + 0.9 * torch.rand(mask.shape, generator=seeded(9))) * mask
    return intensities, mask


def test_nothing_set_changes_nothing(batch: tuple[Tensor, Tensor]) -> None:
    image, mask = augment(*batch, STILL, seeded())
    assert torch.equal(image, batch[0])
    assert torch.equal(mask, batch[1])


def test_a_mirror_is_exact(batch: tuple[Tensor, Tensor]) -> None:
    image, mask = augment(*batch, still(mirror=1.0), seeded())
    assert torch.equal(image, batch[0].flip(2))
    assert torch.equal(mask, batch[1].flip(2))


def test_whole_shifts_keep_every_voxel_of_the_mask(batch: tuple[Tensor, Tensor]) -> None:
    settings = still(shift_voxels=6, mirror=0.5)
    places = set()
    for seed in range(20):
        image, mask = augment(*batch, settings, seeded(seed))
        for n in range(3):
            assert torch.equal(image[n][mask[n]].sort().values, batch[0][n][batch[1][n]].sort().values)
            assert not image[n][~mask[n]].any()
        places.add(tuple(mask[2, 0].nonzero()[0].tolist()))
    assert len(places) > 10


def test_a_shift_moves_by_what_it_says() -> None:
    image = torch.zeros(1, 1, *SHAPE)
    image[0, 0, 10, 9, 8] = 0.5
    seen = set()
    for seed in range(60):
        moved, mask = augment(image, image > 0, still(shift_voxels=1), seeded(seed))
        assert torch.equal(moved > 0, mask)
        seen.add(tuple((moved[0, 0].nonzero()[0] - torch.tensor([10, 9, 8])).tolist()))
    assert {step for place in seen for step in place} == {-1, 0, 1}
    assert len(seen) > 15


@pytest.mark.parametrize(
    "changes", [{"turn_deg": 20.0}, {"scale": 0.2}, {"shift_voxels": 5}, {"turn_deg": 8.0, "shift_voxels": 4}]
)
def test_an_interpolated_mask_goes_with_its_intensities(
    batch: tuple[Tensor, Tensor], changes: dict[str, float]
) -> None:
    flat = batch[1].float() * 0.8
    for seed in range(5):
        image, mask = augment(flat, batch[1], still(interpolate=1.0, **changes), seeded(seed))
        assert ((image > 0.4) ^ mask).sum() < 0.1 * mask.sum()
        assert (image[mask] > 0).all()
        # The small box lies well inside, so that none of it is lost.
        assert mask[2].sum() == pytest.approx(int(batch[1][2].sum()), rel=0.75)


def test_a_still_interpolation_gives_the_image_back(batch: tuple[Tensor, Tensor]) -> None:
    image, mask = augment(*batch, still(interpolate=1.0), seeded())
    assert torch.allclose(image, batch[0], atol=1e-5)
    assert torch.equal(mask, batch[1])


def test_a_turn_is_a_turn_in_millimetres() -> None:
    """A ball in mm stays a ball."""
    edges = torch.tensor([0.5, 0.5, 1.0])
    shape = (48, 48, 24)
    place = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), -1)
    ball = (torch.linalg.norm(place * edges, dim=-1) < 8.0)[None, None]
    settings = still(interpolate=1.0, turn_deg=45.0).model_copy(update={"voxel_mm": (0.5, 0.5, 1.0)})
    for seed in range(4):
        _, mask = augment(ball.float(), ball, settings, seeded(seed))
        assert torch.allclose(spread(mask, place * edges), spread(ball, place * edges), atol=0.4)
    wrong = settings.model_copy(update={"voxel_mm": (1.0, 1.0, 1.0)})
    _, mask = augment(ball.float(), ball, wrong, seeded(0))
    assert not torch.allclose(spread(mask, place * edges), spread(ball, place * edges), atol=2.0)


def spread(mask: Tensor, place_mm: Tensor) -> Tensor:
    """(3, 3) covariance in mm² of the places of a mask; radius² / 5 of a ball, here 12.8."""
    return torch.cov(place_mm[mask[0, 0]].T)


def test_growth_is_that_of_the_scale() -> None:
    mask = torch.zeros(1, 1, 40, 40, 40, dtype=torch.bool)
    mask[0, 0, 10:30, 10:30, 10:30] = True
    ratios = []
    for seed in range(30):
        _, scaled = augment(mask.float(), mask, still(interpolate=1.0, scale=0.2), seeded(seed))
        ratios.append(float(scaled.sum() / mask.sum()))
    assert 0.8**3 * 0.9 < min(ratios) < 0.8
    assert 1.3 < max(ratios) < 1.2**3 * 1.1


def test_tones_stay_in_range_and_zero_stays_zero(batch: tuple[Tensor, Tensor]) -> None:
    settings = still(gamma=0.3, brightness=0.3, noise=0.3)
    image, mask = augment(*batch, settings, seeded())
    assert torch.equal(mask, batch[1])
    assert not image[batch[0] == 0].any()
    assert float(image.min()) >= 0.0
    assert float(image.max()) <= 1.0
    assert not torch.equal(image, batch[0])
    darker = augment(*batch, still(brightness=0.3), seeded(3))[0] / batch[0].clamp(min=1e-6)
    for n in range(3):
        factors = darker[n][(batch[0][n] > 0) & (batch[0][n] < 0.7)]
        assert factors.std() < 1e-5
        assert 0.7 <= float(factors.mean()) <= 1.3


def test_the_given_tensors_are_left_as_they_were(batch: tuple[Tensor, Tensor]) -> None:
    before = batch[0].clone(), batch[1].clone()
    for settings in (AugmentSettings(), still(noise=0.2), still(mirror=1.0, gamma=0.2)):
        augment(*batch, settings, seeded(1))
    assert torch.equal(batch[0], before[0])
    assert torch.equal(batch[1], before[1])


def test_one_state_one_outcome(batch: tuple[Tensor, Tensor]) -> None:
    settings = AugmentSettings(interpolate=0.5)
    first, again, other = (augment(*batch, settings, seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_samples_differ_within_a_batch() -> None:
    image = torch.rand(1, 1, *SHAPE, generator=seeded()).expand(4, -1, -1, -1, -1).contiguous()
    out, _ = augment(image, image > 0.5, AugmentSettings(), seeded())
    assert len({float(sample.sum()) for sample in out}) == 4


@pytest.mark.gpu
def test_a_gpu_moves_as_the_cpu_does(batch: tuple[Tensor, Tensor]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    settings = AugmentSettings(interpolate=0.5, noise=0.0)
    image, mask = augment(*batch, settings, seeded())
    on_gpu = augment(batch[0].cuda(), batch[1].cuda(), settings, seeded())
    assert torch.allclose(on_gpu[0].cpu(), image, atol=1e-3)
    assert (on_gpu[1].cpu() ^ mask).float().mean() < 1e-3
