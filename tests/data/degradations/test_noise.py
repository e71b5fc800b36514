import math

import pytest
import torch

from mambair.data.degradations.noise import add_gaussian_noise, add_poisson_noise


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gaussian_noise_has_each_images_level():
    sigma = torch.tensor([5.0, 25.0])
    images = torch.full((2, 3, 128, 128), 0.5)
    noise = add_gaussian_noise(images, sigma, torch.tensor([False, False]), seeded()) - images
    for level, values in zip(sigma, noise, strict=True):
        assert values.std().item() * 255 == pytest.approx(level.item(), rel=0.02)
        assert abs(values.mean().item()) * 255 < 5 * level / math.sqrt(values.numel())


def test_gray_noise_is_the_same_in_all_channels():
    images = torch.full((2, 3, 32, 32), 0.5)
    noise = add_gaussian_noise(images, torch.tensor([9.0, 9.0]), torch.tensor([True, False]), seeded()) - images
    torch.testing.assert_close(noise[0, 0], noise[0, 2])
    assert torch.corrcoef(noise[1].flatten(1))[0, 1].abs() < 0.2
    noise = add_poisson_noise(images, torch.tensor([1.0, 1.0]), torch.tensor([True, False]), seeded()) - images
    torch.testing.assert_close(noise[0, 0], noise[0, 2])
    assert not torch.allclose(noise[1, 0], noise[1, 2])


def test_noise_is_clipped():
    noisy = add_gaussian_noise(torch.zeros(1, 3, 32, 32), torch.tensor([30.0]), torch.tensor([False]), seeded())
    assert noisy.min() == 0 and noisy.max() > 0.05


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_poisson_noise_has_the_variance_of_its_photon_count(scale):
    # 256 gray levels: 256 photons at full brightness, so that brightness b has the variance b / 256.
    ramp = torch.linspace(0.2, 0.8, 256).repeat(256, 1).expand(1, 3, 256, 256)
    ramp = torch.cat([ramp, torch.linspace(0, 1, 256).expand(1, 3, 1, 256)], dim=2)
    noise = add_poisson_noise(ramp, torch.tensor([scale]), torch.tensor([False]), seeded()) - ramp
    column = noise[..., :256, 100:110]
    brightness = ramp[0, 0, 0, 100:110].mean().item()
    assert column.std().item() == pytest.approx(scale * math.sqrt(brightness / 256), rel=0.06)


def test_poisson_noise_grows_where_an_image_has_few_gray_levels():
    two_levels = (torch.arange(64) % 2).float().expand(1, 3, 64, 64) * 0.25 + 0.25
    noise = add_poisson_noise(two_levels, torch.tensor([0.05]), torch.tensor([False]), seeded()) - two_levels
    bright = noise[..., 1::2]
    rounded = round(0.5 * 255) / 255
    assert bright.std().item() == pytest.approx(0.05 * math.sqrt(rounded / 2), rel=0.06)


def test_same_generator_state_gives_the_same_noise():
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    first, second = (
        add_poisson_noise(images, torch.tensor([1.0, 2.0]), torch.tensor([True, False]), seeded()) for _ in range(2)
    )
    assert torch.equal(first, second)
