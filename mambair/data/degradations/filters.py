"""Filtering of image batches on their device: one blur kernel per image, and unsharp masking.

Shapes: B images, C channels, H x W pixels; float images in [0, 1].
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur


def filter_images(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each image (B, C, H, W) with its own kernel (B, k, k), k odd; borders are reflected.

    H and W must be greater than k // 2.
    """
    batch, channels, height, width = images.shape
    side = kernels.shape[-1]
    assert kernels.shape == (batch, side, side) and side % 2 == 1
    padded = F.pad(images, [side // 2] * 4, mode="reflect")
    # Batch and channels become groups, so that one convolution applies all kernels.
    grouped = padded.view(1, batch * channels, height + side - 1, width + side - 1)
    weights = kernels.to(images).repeat_interleave(channels, dim=0).unsqueeze(1)  # (B*C, 1, k, k)
    return F.conv2d(grouped, weights, groups=batch * channels).view(batch, channels, height, width)


def sharpen(images: Tensor, weight: float = 0.5, radius: int = 50, threshold: float = 10.0) -> Tensor:
    """Unsharp masking of (B, C, H, W), for the ground truth of real-world super-resolution (Real-ESRGAN, Section 3.4).

    Adds `weight` times the difference from a Gaussian blur where the difference exceeds `threshold` (of 255), with
    soft edges of that region. The blur's window has side `radius` (the next odd number if even) and the standard
    deviation that OpenCV derives from a window: 0.3 * ((side - 1) / 2 - 1) + 0.8.
    """
    side = radius + 1 - radius % 2
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    difference = images - _blur(images, side, sigma)
    region = (difference.abs() * 255 > threshold).to(images.dtype)
    soft_region = _blur(region, side, sigma)
    sharpened = (images + weight * difference).clamp(0, 1)
    return torch.lerp(images, sharpened, soft_region)


def _blur(images: Tensor, side: int, sigma: float) -> Tensor:
    """Gaussian blur with reflected borders; images smaller than the window get a smaller window of the same sigma."""
    height, width = images.shape[-2:]
    return gaussian_blur(images, [min(side, 2 * width - 1), min(side, 2 * height - 1)], [sigma, sigma])
