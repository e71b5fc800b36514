"""Structural similarity as a loss, at several scales.

Shapes: images (B, C, H, W) in [0, 1]; every channel is compared by itself.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.registry import LOSSES

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, the finest first (Wang et al., 2003)."""
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """(size,) weights that sum to 1."""
    steps = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    return weights / weights.sum()


def blur(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H - 10, W - 10): the Gaussian mean wherever the window fits entirely."""
    channels = images.shape[1]
    window = gaussian_window(WINDOW, SIGMA, images)
    images = F.conv2d(images, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(images, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def similarity(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its part without luminance (contrast and structure), each a mean (B, C) over the pixels."""
    mean1, mean2 = blur(first), blur(second)
    variance1 = blur(first * first) - mean1 * mean1
    variance2 = blur(second * second) - mean2 * mean2
    covariance = blur(first * second) - mean1 * mean2
    structure = (2 * covariance + C2) / (variance1 + variance2 + C2)
    luminance = (2 * mean1 * mean2 + C1) / (mean1 * mean1 + mean2 * mean2 + C1)
    return (luminance * structure).mean(dim=(2, 3)), structure.mean(dim=(2, 3))


@LOSSES.register()
class MSSSIMLoss(nn.Module):
    """1 - MS-SSIM (Wang, Simoncelli and Bovik, 2003), from 0 for equal images up.

    Args:
        loss_weight: factor.
        scales: 1 (plain SSIM) to 5; the weights of those that are used are scaled to sum to 1. Patches need
            11 * 2^(scales - 1) pixels each way: 176 for five, 88 for four, 44 for three.
    """

    def __init__(self, loss_weight: float = 1.0, scales: int = 5) -> None:
        super().__init__()
        if not 1 <= scales <= len(SCALE_WEIGHTS):
            raise UserError(f"MSSSIMLoss: scales is {scales}; it must be from 1 to {len(SCALE_WEIGHTS)}")
        self.loss_weight = loss_weight
        self.weights = [weight / sum(SCALE_WEIGHTS[:scales]) for weight in SCALE_WEIGHTS[:scales]]

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        needed = WINDOW * 2 ** (len(self.weights) - 1)
        if min(target.shape[2:]) < needed:
            raise UserError(
                f"MSSSIMLoss: {len(self.weights)} scales need patches of {needed} pixels, these have "
                f"{min(target.shape[2:])}; set scales to less, or gt_size to more"
            )
        product = target.new_ones(())
        for index, weight in enumerate(self.weights):
            if index > 0:
                prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
            whole, structure = similarity(prediction, target)
            value = whole if index == len(self.weights) - 1 else structure
            # A negative similarity has no real power, and at 0 a root has no slope.
            product = product * (value if len(self.weights) == 1 else value.clamp(min=1e-6) ** weight)
        return self.loss_weight * (1 - product.mean())
