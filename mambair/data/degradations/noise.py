"""Gaussian and Poisson noise on image batches, on their device.

Shapes: images (B, 3, H, W) float in [0, 1]; per-image settings (B,). Results are clipped to [0, 1], not rounded.
"""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601, full range


def add_gaussian_noise(images: Tensor, sigma: Tensor, gray: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (of 255), the same in all channels where `gray` is true."""
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    noise = torch.where(_per_image(gray), noise[:, :1], noise)
    return (images + noise * _per_image(sigma) / 255).clamp(0, 1)


def add_poisson_noise(images: Tensor, scale: Tensor, gray: Tensor, generator: torch.Generator) -> Tensor:
    """Add `scale` times the shot noise of each image's own number of gray levels.

    An image rounded to 8 bits with n different values is taken for a sensor that counts up to 2^ceil(log2 n) photons
    (Real-ESRGAN, Section 3.1, as implemented there). Where `gray` is true the noise is that of the image's luma, the
    same in all channels.
    """
    noise = _shot_noise(images, generator)
    luma = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    noise = torch.where(_per_image(gray), _shot_noise(luma, generator), noise)
    return (images + noise * _per_image(scale)).clamp(0, 1)


def _shot_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zero-mean Poisson noise (B, C, H, W) of images that are rounded to 8 bits first."""
    levels = (images * 255).round().clamp(0, 255)
    seen = torch.zeros(len(images), 256, device=images.device, dtype=images.dtype)
    seen.scatter_(1, levels.flatten(1).long(), 1.0)
    photons = _per_image(2 ** seen.sum(dim=1).log2().ceil())
    rounded = levels / 255
    return torch.poisson(rounded * photons, generator=generator) / photons - rounded


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
