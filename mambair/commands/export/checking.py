"""Whether an exported file gives the picture that PyTorch gives, and if not, where the two part.

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mambair.archs.network import traits_of
from mambair.imaging.files import read_image
from mambair.imaging.resize import imresize
from mambair.imaging.tensors import image_to_tensor

PHOTO = Path(__file__).with_name("photo.png")
"""Eileen Collins, photographed for NASA; in the public domain."""

LARGEST_ERROR = 1e-4
"""Of single-precision files, relative to the largest value."""
DECIBELS = {False: 0.01, True: 0.05}
"""How far the PSNR may be from PyTorch's, in single and in half precision."""

ANY_SIZE = ((1, 48, 40), (2, 33, 57), (1, 64, 64))
"""(B, H, W) at which a file for any size is tried, none of them what it was traced with."""
NOISE = 25 / 255
"""Sigma of the noise on what a network of scale 1 is given."""

Run = Callable[[Tensor], Sequence[Tensor]]
"""(B, C, H, W) -> the restored image, then what the stages gave."""


class Agreement(NamedTuple):
    """How an exported file's picture compares with PyTorch's."""

    shape: tuple[int, ...]
    error: float
    """Largest difference, relative to PyTorch's largest value."""
    decibels: float
    """The file's PSNR minus PyTorch's, against the photo that the input was made of."""

    def holds(self, half: bool) -> bool:
        """Whether the file may be kept."""
        exact = half or self.error <= LARGEST_ERROR
        return exact and abs(self.decibels) <= DECIBELS[half]  # also false where a number is none

    def __str__(self) -> str:
        batch, _, height, width = self.shape
        images = f"{batch} images of " if batch > 1 else ""
        return f"{images}{width}x{height}: largest error {self.error:.1e}, PSNR {self.decibels:+.4f} dB"


def check_photos(network: nn.Module, size: tuple[int, int] | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(input, photo) at each size that a file is checked at: (B, C, H, W) and (B, C, s*H, s*W)."""
    traits = traits_of(network)
    for batch, height, width in ANY_SIZE if size is None else ((1, *size),):
        photo = _photo(height * traits.scale, width * traits.scale, traits.in_channels)
        if traits.scale > 1:
            degraded = imresize(photo, (height, width))
        else:
            degraded = photo + np.random.default_rng(0).normal(0, NOISE, photo.shape).astype(np.float32)
        lq, original = image_to_tensor(degraded).float(), image_to_tensor(photo)
        # Further images are the photo turned by half.
        turned = range(batch)
        yield (
            torch.stack([lq.rot90(2 * times, (1, 2)) for times in turned]),
            torch.stack([original.rot90(2 * times, (1, 2)) for times in turned]),
        )


def _photo(height: int, width: int, channels: int) -> np.ndarray:
    """(height, width, channels) of the photo, in [0, 1]; mirrored at its borders where it is too small."""
    pixels = read_image(PHOTO).astype(np.float32) / 255
    margins = [(0, max(wanted - found, 0)) for wanted, found in zip((height, width), pixels.shape, strict=False)]
    pixels = np.pad(pixels, (*margins, (0, 0)), mode="symmetric")[:height, :width]
    return pixels if channels == 3 else pixels.mean(axis=2, keepdims=True).repeat(channels, axis=2)


def compare(network: nn.Module, run: Run, size: tuple[int, int] | None) -> Iterator[Agreement]:
    """How `run`, an exported file, compares with the network in single precision, at each size that is tried."""
    for lq, photo in check_photos(network, size):
        with torch.inference_mode():
            expected = network(lq)
        found = run(lq)[0]
        error = (found - expected).abs().max().item() / expected.abs().max().item()
        yield Agreement(tuple(lq.shape), error, psnr(found, photo) - psnr(expected, photo))


def psnr(image: Tensor, photo: Tensor) -> float:
    """In dB, of images in [0, 1], which are not rounded: so that the smallest difference shows."""
    return -10 * math.log10((image - photo).double().square().mean().item())


def stages_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that an image passes through one after the other, by name; lists of modules one by one."""
    stages: dict[str, nn.Module] = {}
    for name, module in network.named_children():
        if isinstance(module, nn.ModuleList):
            stages |= {f"{name}.{index}": part for index, part in enumerate(module)}
        else:
            stages[name] = module
    return stages


def parting(names: Sequence[str], expected: Sequence[Tensor], found: Sequence[Tensor], limit: float) -> str:
    """The first stage whose results differ by more than `limit` of their largest value, in words."""
    for name, one, other in zip(names, expected, found, strict=True):
        error = (one - other).abs().max().item() / max(one.abs().max().item(), 1e-30)
        if not error <= limit:
            return f"the graphs part at '{name}', by {error:.1e} of its largest value"
    return "the graphs part behind the last of the network's stages"
