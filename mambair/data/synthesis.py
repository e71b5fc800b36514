"""Low-quality images made from ground truth on the fly: noise, JPEG artifacts, bicubic reduction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mambair.contracts import Degradation, RandomNumbers
from mambair.data.transforms import Window
from mambair.imaging.jpeg import jpeg_compress
from mambair.imaging.pixels import to_float, to_uint8
from mambair.imaging.resize import imresize
from mambair.registry import DEGRADATIONS


@DEGRADATIONS.register()
@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise of standard deviation `sigma` on the 0-255 scale; neither clipped nor rounded.

    Colour noise is drawn in the order blue, green, red, as OpenCV stores pixels: with RandomState(0) that gives
    the noise of published tests.
    """

    sigma: float
    scale: ClassVar[int] = 1
    alignment: ClassVar[int] = 1
    margin: ClassVar[int] = 0

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The image as float32 in about [0, 1], with noise."""
        noise = rng.normal(0, self.sigma / 255, image.shape)
        return (to_float(image) + noise[:, :, ::-1]).astype(np.float32)


@DEGRADATIONS.register()
@dataclass(frozen=True)
class JpegArtifacts:
    """JPEG compression at one quality, 1 to 100."""

    quality: int
    scale: ClassVar[int] = 1
    # Colour is compressed in blocks of 16x16 pixels, and its halved chroma is interpolated across their borders.
    alignment: ClassVar[int] = 16
    margin: ClassVar[int] = 2

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The image after compression, uint8; `rng` is not used."""
        return jpeg_compress(to_uint8(image), self.quality)


@DEGRADATIONS.register()
@dataclass(frozen=True)
class BicubicReduction:
    """MATLAB's bicubic imresize by 1/scale."""

    scale: int

    @property
    def alignment(self) -> int:
        """Parts lie on the low-quality image's pixel grid."""
        return self.scale

    @property
    def margin(self) -> int:
        """Half the antialiased kernel's support."""
        return 2 * self.scale

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The reduced image; `rng` is not used."""
        return imresize(image, 1 / self.scale)


class Degradations:
    """Several degradations, one after the other, as one."""

    def __init__(self, steps: Sequence[Degradation]) -> None:
        self.steps = list(steps)
        self.scale, self.alignment, self.margin = 1, 1, 0
        for step in self.steps:  # what a later step asks for is meant in pixels that the earlier ones have reduced
            self.alignment = math.lcm(self.alignment, step.alignment * self.scale)
            self.margin += step.margin * self.scale
            self.scale *= step.scale

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The image after all of them."""
        for step in self.steps:
            image = step(image, rng)
        return image


def degrade_window(
    image: np.ndarray, window: Window, degradation: Degradation, rng: RandomNumbers
) -> tuple[np.ndarray, np.ndarray]:
    """Cut `window` (which lies on multiples of the scale) and degrade it as it would be within the whole image.

    Returns the ground truth (h, w, C), a view, and its low-quality partner (h/scale, w/scale, C).
    """
    scale = degradation.scale
    outer = window.widened(degradation.margin, degradation.alignment, *image.shape[:2])
    degraded = degradation(outer.cut(image), rng)
    inner = Window(
        (window.top - outer.top) // scale,
        (window.left - outer.left) // scale,
        window.height // scale,
        window.width // scale,
    )
    return window.cut(image), inner.cut(degraded)
