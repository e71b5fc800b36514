"""Patches and symmetries of image pairs, on HxWxC arrays, and the step to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y
from mambair.imaging.pixels import to_float
from mambair.imaging.tensors import image_to_tensor


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, factor: int) -> "Window":
        """The same rectangle of an image `factor` times as large."""
        return Window(self.top * factor, self.left * factor, self.height * factor, self.width * factor)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The rectangle of an (H, W, C) image; a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def widened(self, margin: int, alignment: int, height: int, width: int) -> "Window":
        """The smallest window with `margin` more pixels on each side, as far as the height x width image reaches,
        that starts on multiples of `alignment` and ends on one or at the image's edge."""
        top, bottom = _aligned(self.top - margin, self.top + self.height + margin, alignment, height)
        left, right = _aligned(self.left - margin, self.left + self.width + margin, alignment, width)
        return Window(top, left, bottom - top, right - left)


def _aligned(start: int, end: int, alignment: int, length: int) -> tuple[int, int]:
    return max(start, 0) // alignment * alignment, min(-(-end // alignment) * alignment, length)


def random_window(height: int, width: int, size: int, rng: np.random.Generator, name: str) -> Window:
    """A random size x size window of a height x width image; UserError naming `name` if it does not fit."""
    if min(height, width) < size:
        raise UserError(f"{name}: {height}x{width} pixels are too few for patches of {size}x{size}")
    return Window(int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1)), size, size)


@dataclass(frozen=True)
class Symmetries:
    """Which symmetries of the square are drawn; both together give all eight, equally likely."""

    hflip: bool = False
    """Mirror left and right."""
    rotate: bool = False
    """Mirror top and bottom, and transpose: with hflip, all rotations by 90 degrees."""

    def draw(self, rng: np.random.Generator, *images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The same random symmetry of every (H, W, C) image; views."""
        hflip, vflip, transpose = rng.random(3) < 0.5
        return tuple(
            symmetry(image, self.hflip and hflip, self.rotate and vflip, self.rotate and transpose) for image in images
        )


NO_SYMMETRIES = Symmetries()


def symmetry(image: np.ndarray, hflip: bool, vflip: bool, transpose: bool) -> np.ndarray:
    """An (H, W, C) image mirrored and transposed, in this order; a view."""
    if hflip:
        image = image[:, ::-1]
    if vflip:
        image = image[::-1]
    return image.transpose(1, 0, 2) if transpose else image


@dataclass(frozen=True)
class ToTensor:
    """From HxWxC pixels to the CxHxW float32 tensor that a network sees."""

    luma: bool = False
    """Reduce RGB to its BT.601 luma, 16/255 to 235/255."""
    mean: Sequence[float] | None = None
    """Subtracted per channel, in [0, 1] units."""
    std: Sequence[float] | None = None
    """Divided by per channel, after the mean is subtracted."""

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """The contiguous float32 tensor of an integer image, or of a float one in [0, 1]."""
        if self.luma:
            image = to_float(rgb_to_y(image)[:, :, None] / 255)
        tensor = image_to_tensor(image)
        if self.mean is not None:
            tensor -= torch.tensor(self.mean).view(-1, 1, 1)
        if self.std is not None:
            tensor /= torch.tensor(self.std).view(-1, 1, 1)
        return tensor


PLAIN_TENSOR = ToTensor()
