import math

import numpy as np
import pytest
import torch

from mambair.data.degradations import second_order
from mambair.data.degradations.blur_kernels import KernelDistribution, identity_kernel
from mambair.data.degradations.second_order import (
    FIRST_ROUND,
    SECOND_ROUND,
    BatchKernels,
    Draws,
    RoundSettings,
    degrade,
)

CPU = torch.device("cpu")
NOTHING = RoundSettings(
    blur_odds=0.0, resize_odds=(0, 0, 1), gaussian_odds=1.0, noise=(0.0, 0.0), gray_odds=0.0, jpeg=(100.0, 100.0)
)


def draws_of(seed: int) -> Draws:
    return Draws(np.random.default_rng(seed), CPU)


def drawn_kernels(batch: int, seed: int = 0) -> BatchKernels:
    rng = np.random.default_rng(seed)
    stacks = [np.stack([KernelDistribution().draw(rng) for _ in range(batch)]) for _ in range(3)]
    return BatchKernels(*map(torch.from_numpy, stacks))


def identity_kernels(batch: int) -> BatchKernels:
    kernels = torch.from_numpy(identity_kernel(21)).expand(batch, 21, 21)
    return BatchKernels(kernels, kernels, kernels)


@pytest.mark.parametrize("seed", range(6))
def test_shape_range_and_grid(seed):
    gt = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(seed))
    lq = degrade(gt, drawn_kernels(2, seed), 4, draws_of(seed))
    assert lq.shape == (2, 3, 24, 32)
    assert lq.min() >= 0 and lq.max() <= 1
    torch.testing.assert_close(lq * 255, (lq * 255).round(), atol=1e-4, rtol=0)


def test_patches_smaller_than_the_kernels_reach_are_fine():
    for seed in range(20):
        lq = degrade(torch.rand(1, 3, 48, 48), drawn_kernels(1, seed), 4, draws_of(seed))
        assert lq.shape == (1, 3, 12, 12)


def test_same_seed_gives_the_same_images_and_another_does_not():
    gt = torch.rand(2, 3, 64, 64)
    first, again, other = (degrade(gt, drawn_kernels(2), 4, draws_of(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_with_everything_switched_off_only_the_resize_remains():
    ramp = torch.linspace(0.1, 0.9, 64).expand(1, 3, 64, 64)
    for seed in range(6):  # whichever interpolation is drawn
        lq = degrade(ramp, identity_kernels(1), 4, draws_of(seed), NOTHING, NOTHING)
        expected = torch.nn.functional.avg_pool2d(ramp, 4)
        assert (lq - expected)[..., 2:-2].abs().max() < 3 / 255


def test_sinc_filter_and_last_jpeg_come_in_either_order(monkeypatch):
    gt = torch.rand(1, 3, 64, 64)
    calls = []
    for name in ("filter_images", "jpeg_batch"):
        original = getattr(second_order, name)
        monkeypatch.setattr(
            second_order, name, lambda *a, name=name, original=original: calls.append(name) or original(*a)
        )
    last_steps = []
    for seed in range(200):
        degrade(gt, identity_kernels(1), 4, draws_of(seed), NOTHING, NOTHING)
        assert sorted(calls) == ["filter_images", "jpeg_batch", "jpeg_batch"]
        last_steps.append(calls[-1])
        calls.clear()
    assert 100 - 5 * math.sqrt(50) < last_steps.count("jpeg_batch") < 100 + 5 * math.sqrt(50)


@pytest.mark.parametrize("settings", [FIRST_ROUND, SECOND_ROUND], ids=["first", "second"])
def test_resize_factors_have_the_recipes_ranges_and_odds(settings):
    draws = draws_of(0)
    factors = np.array([draws.resize_factor(settings) for _ in range(4000)])
    low, high = settings.resize
    assert low <= factors.min() < low + 0.01 and high - 0.01 < factors.max() <= high
    shares = [(factors > 1).mean(), (factors < 1).mean(), (factors == 1).mean()]
    for share, odds in zip(shares, settings.resize_odds, strict=True):
        assert abs(share - odds) < 5 * math.sqrt(odds * (1 - odds) / 4000)


def test_strengths_are_drawn_per_image_within_their_ranges():
    draws = draws_of(0)
    quality = draws.per_image(FIRST_ROUND.jpeg, 1000)
    assert quality.min() >= 30 and quality.max() <= 95 and quality.std() > 15
    flags = draws.flags(0.4, 4000)
    assert abs(flags.float().mean() - 0.4) < 5 * math.sqrt(0.24 / 4000)
    assert {draws.resize_mode() for _ in range(50)} == {"area", "bilinear", "bicubic"}


@pytest.mark.parametrize(("settings", "step"), [(FIRST_ROUND, 0), (SECOND_ROUND, 1)], ids=["first", "second"])
def test_kinds_of_noise_and_blur_come_at_the_recipes_odds(monkeypatch, settings, step):
    gaussian, poisson, blurs = [], [], []
    for name, calls in (("add_gaussian_noise", gaussian), ("add_poisson_noise", poisson)):
        monkeypatch.setattr(second_order, name, lambda images, *rest, calls=calls: calls.append(rest) or images)
    monkeypatch.setattr(second_order, "filter_images", lambda images, kernels: blurs.append(kernels) or images)
    draws, images = draws_of(step), torch.zeros(3, 3, 24, 24)
    trials = 2000
    for _ in range(trials):
        second_order._blur(images, images[:, 0], settings, draws)
        second_order._add_noise(images, settings, draws)
    assert len(gaussian) + len(poisson) == trials
    for count, odds in ((len(gaussian), settings.gaussian_odds), (len(blurs), settings.blur_odds)):
        assert abs(count - trials * odds) <= 5 * math.sqrt(trials * odds * (1 - odds))
    for calls, (low, high) in ((gaussian, settings.noise), (poisson, settings.poisson)):
        strengths = torch.cat([strength for strength, _, _ in calls])
        assert low <= strengths.min() and strengths.max() <= high
        assert strengths.mean().item() == pytest.approx((low + high) / 2, rel=0.05)
        gray = torch.cat([flags for _, flags, _ in calls]).float()
        assert abs(gray.mean().item() - settings.gray_odds) < 5 * math.sqrt(0.24 / len(gray))


def test_published_settings():
    published_first = RoundSettings(
        blur_odds=1.0,
        resize_odds=(0.2, 0.7, 0.1),
        resize=(0.15, 1.5),
        gaussian_odds=0.5,
        noise=(1, 30),
        poisson=(0.05, 3),
        gray_odds=0.4,
        jpeg=(30, 95),
    )
    published_second = RoundSettings(
        blur_odds=0.8,
        resize_odds=(0.3, 0.4, 0.3),
        resize=(0.3, 1.2),
        gaussian_odds=0.5,
        noise=(1, 25),
        poisson=(0.05, 2.5),
        gray_odds=0.4,
        jpeg=(30, 95),
    )
    assert published_first == FIRST_ROUND
    assert published_second == SECOND_ROUND
