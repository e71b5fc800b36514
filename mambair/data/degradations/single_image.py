"""The second-order degradation of one image on the CPU, with named strengths.

Shapes: H x W pixels of the image, s the scale.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mambair.data.degradations.blur_kernels import KernelDistribution
from mambair.data.degradations.second_order import (
    FIRST_ROUND,
    MODERATE_FIRST_ROUND,
    MODERATE_SECOND_ROUND,
    SECOND_ROUND,
    BatchKernels,
    Draws,
    RoundSettings,
    degrade,
)
from mambair.imaging.tensors import image_to_tensor

_SMALLEST = 16
"""Sides of the result that blurring with reflected borders needs; smaller images are continued and cut again."""


@dataclass(frozen=True)
class Strength:
    """Settings of both rounds: what the kernels are drawn from, and the rest."""

    first_kernels: KernelDistribution
    second_kernels: KernelDistribution
    final_sinc_odds: float
    first: RoundSettings
    second: RoundSettings


STRENGTHS = {
    "published": Strength(KernelDistribution(), KernelDistribution(sigma=(0.2, 1.5)), 0.8, FIRST_ROUND, SECOND_ROUND),
    "moderate": Strength(
        KernelDistribution(sinc_odds=0.05, sigma=(0.2, 1.8)),
        KernelDistribution(sinc_odds=0.05, sigma=(0.2, 0.8)),
        0.4,
        MODERATE_FIRST_ROUND,
        MODERATE_SECOND_ROUND,
    ),
}
"""published is Real-ESRGAN's; options/train/photo_x1.yml and photo_x4.yml write moderate out key by key."""


def degrade_image(image: np.ndarray, scale: int, strength: str, rng: np.random.Generator) -> np.ndarray:
    """(H, W, C) float in [0, 1], H and W multiples of s, C 3 or 1, to float32 (H/s, W/s, C) on the 255 grid.

    A gray image is degraded as one of three equal channels, and becomes gray again by its first.
    """
    settings = STRENGTHS[strength]
    height, width, channels = image.shape
    assert height % scale == 0 and width % scale == 0
    missing = [max(0, _SMALLEST * scale - length) for length in (height, width)]
    padded = np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")
    batch = image_to_tensor(padded).expand(3, -1, -1)[None]
    kernels = BatchKernels(
        torch.from_numpy(settings.first_kernels.draw(rng))[None],
        torch.from_numpy(settings.second_kernels.draw(rng))[None],
        torch.from_numpy(settings.first_kernels.draw_sinc_or_identity(settings.final_sinc_odds, rng))[None],
    )
    with torch.no_grad():
        lq = degrade(batch, kernels, scale, Draws(rng, batch.device), settings.first, settings.second)
    return lq[0, :channels, : height // scale, : width // scale].permute(1, 2, 0).numpy()
