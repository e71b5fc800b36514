"""The second-order degradation that makes low-quality batches for real-world super-resolution, on their device.

Real-ESRGAN, Section 3: blur, resize, noise and JPEG, then all of it again with other settings, and a sinc filter
before or after the last JPEG. Sizes and kinds of operation are drawn once per batch (its images must keep one
size), strengths once per image.

Shapes: B images, H x W pixels of the ground truth, k the blur kernels' side; float images in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.data.degradations.filters import filter_images
from mambair.data.degradations.jpeg_batch import jpeg_batch
from mambair.data.degradations.noise import add_gaussian_noise, add_poisson_noise

RESIZE_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class RoundSettings:
    """One round: odds are probabilities, ranges are (low, high); the defaults are the first round's.

    `resize_odds` are those of enlarging, shrinking and keeping the size; `noise` is the Gaussian's standard
    deviation on the 0-255 scale, `poisson` a factor on shot noise, `jpeg` the quality.
    """

    blur_odds: float = 1.0
    resize_odds: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize: tuple[float, float] = (0.15, 1.5)
    gaussian_odds: float = 0.5
    noise: tuple[float, float] = (1.0, 30.0)
    poisson: tuple[float, float] = (0.05, 3.0)
    gray_odds: float = 0.4
    jpeg: tuple[float, float] = (30.0, 95.0)


FIRST_ROUND = RoundSettings()
SECOND_ROUND = RoundSettings(
    blur_odds=0.8,
    resize_odds=(0.3, 0.4, 0.3),
    resize=(0.3, 1.2),
    noise=(1.0, 25.0),
    poisson=(0.05, 2.5),
)

MODERATE_FIRST_ROUND = RoundSettings(
    resize_odds=(0.1, 0.5, 0.4),
    resize=(0.5, 1.2),
    noise=(0.0, 15.0),
    poisson=(0.05, 1.5),
    jpeg=(50.0, 95.0),
)
"""What photos have gone through that were scanned, sent and stored, rather than spoilt: half of what is published."""
MODERATE_SECOND_ROUND = RoundSettings(
    blur_odds=0.4,
    resize_odds=(0.1, 0.3, 0.6),
    resize=(0.6, 1.1),
    noise=(0.0, 10.0),
    poisson=(0.05, 1.0),
    jpeg=(40.0, 95.0),
)


@dataclass(frozen=True)
class BatchKernels:
    """The blur kernels (B, k, k) of a batch: of the first round, of the second, and of the final sinc filter."""

    first: Tensor
    second: Tensor
    final: Tensor


class Draws:
    """The random numbers of one batch: `rng` for sizes, kinds and strengths, `noise` for the pixels' noise.

    Both follow from `rng`'s state alone, so a batch can be degraded again in exactly the same way on the same device.
    """

    def __init__(self, rng: np.random.Generator, device: torch.device) -> None:
        self.rng = rng
        self.noise = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        self.device = device

    def yes(self, odds: float) -> bool:
        """True with probability `odds`."""
        return bool(self.rng.uniform() < odds)

    def per_image(self, bounds: tuple[float, float], batch: int) -> Tensor:
        """(B,) numbers, even over the range."""
        return torch.from_numpy(self.rng.uniform(*bounds, batch)).float().to(self.device)

    def flags(self, odds: float, batch: int) -> Tensor:
        """(B,) booleans, true with probability `odds`."""
        return torch.from_numpy(self.rng.uniform(size=batch) < odds).to(self.device)

    def resize_mode(self) -> str:
        """One of area, bilinear and bicubic interpolation."""
        return RESIZE_MODES[self.rng.integers(len(RESIZE_MODES))]

    def resize_factor(self, settings: RoundSettings) -> float:
        """Above 1 when enlarging, below when shrinking."""
        odds = np.asarray(settings.resize_odds) / sum(settings.resize_odds)
        low, high = settings.resize
        bounds = ((1.0, high), (low, 1.0), (1.0, 1.0))[self.rng.choice(3, p=odds)]
        return float(self.rng.uniform(*bounds))


def degrade(
    gt: Tensor,
    kernels: BatchKernels,
    scale: int,
    draws: Draws,
    first: RoundSettings = FIRST_ROUND,
    second: RoundSettings = SECOND_ROUND,
) -> Tensor:
    """Low-quality partners (B, 3, H/scale, W/scale) of (B, 3, H, W), on the 255 grid as if read from files.

    H/scale and W/scale must be greater than k // 2, half the kernels' side.
    """
    height, width = gt.shape[-2:]
    assert height % scale == 0 and width % scale == 0
    final_size = (height // scale, width // scale)
    # Reflected borders need more pixels than half a kernel; only patches below 74 pixels ever come to this limit.
    smallest = kernels.second.shape[-1] // 2 + 1

    images = _blur(gt, kernels.first, first, draws)
    factor = draws.resize_factor(first)
    images = _resize(images, (max(smallest, round(height * factor)), max(smallest, round(width * factor))), draws)
    images = _jpeg(_add_noise(images, first, draws), first, draws)

    images = _blur(images, kernels.second, second, draws)
    factor = draws.resize_factor(second) / scale
    images = _resize(images, (max(1, round(height * factor)), max(1, round(width * factor))), draws)
    images = _add_noise(images, second, draws)

    # Resizing to the final size goes with the sinc filter, on either side of the compression.
    if draws.yes(0.5):
        images = filter_images(_resize(images, final_size, draws), kernels.final)
        images = _jpeg(images, second, draws)
    else:
        images = _jpeg(images, second, draws)
        images = filter_images(_resize(images, final_size, draws), kernels.final)
    return (images.clamp(0, 1) * 255).round() / 255


def _blur(images: Tensor, kernels: Tensor, settings: RoundSettings, draws: Draws) -> Tensor:
    return filter_images(images, kernels) if draws.yes(settings.blur_odds) else images


def _resize(images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
    return F.interpolate(images, size=size, mode=draws.resize_mode())


def _add_noise(images: Tensor, settings: RoundSettings, draws: Draws) -> Tensor:
    gray = draws.flags(settings.gray_odds, len(images))
    if draws.yes(settings.gaussian_odds):
        sigma = draws.per_image(settings.noise, len(images))
        return add_gaussian_noise(images, sigma, gray, draws.noise)
    strength = draws.per_image(settings.poisson, len(images))
    return add_poisson_noise(images, strength, gray, draws.noise)


def _jpeg(images: Tensor, settings: RoundSettings, draws: Draws) -> Tensor:
    return jpeg_batch(images, draws.per_image(settings.jpeg, len(images)))
