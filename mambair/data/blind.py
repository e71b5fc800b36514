"""Degradations whose strength is drawn for each image, to train networks that are not told it (blind ones).

Draws follow from the given random numbers alone. In training these are functions of the run's seed and the sample's
number, so that workers and resumed runs draw the same. Tests and validation should use fixed strengths instead
(GaussianNoise, JpegArtifacts), since there every image begins with the same numbers.
"""

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mambair.contracts import RandomNumbers
from mambair.data.degradations.single_image import degrade_image
from mambair.data.synthesis import GaussianNoise
from mambair.errors import UserError
from mambair.imaging.jpeg import jpeg_compress
from mambair.imaging.pixels import to_float, to_uint8
from mambair.registry import DEGRADATIONS


@DEGRADATIONS.register()
class RandomGaussianNoise:
    """White Gaussian noise whose standard deviation is drawn evenly from a range, once per image.

    Args:
        sigma: (low, high) on the 0-255 scale.
        clip_odds: probability that the noisy image is clipped to [0, 1], as those that come from files are; the others
            keep what lies outside, as in the protocol of published tests.
    """

    scale = 1
    alignment = 1
    margin = 0

    def __init__(self, sigma: tuple[float, float] = (0.0, 55.0), clip_odds: float = 0.0) -> None:
        self.sigma = _checked_range(sigma, 0, 255, "sigma")
        self.clip_odds = _checked_odds(clip_odds, "clip_odds")

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The image as float32 in about [0, 1], with noise."""
        sigma = rng.uniform(*self.sigma)
        is_clipped = rng.uniform(0, 1) < self.clip_odds
        noisy = GaussianNoise(sigma)(image, rng)
        return np.clip(noisy, 0, 1) if is_clipped else noisy


@DEGRADATIONS.register()
class RandomJpeg:
    """JPEG compression whose quality and chroma sampling are drawn, once per image.

    Args:
        quality: (low, high), 1 to 100; whole numbers are drawn evenly, both ends included.
        full_chroma_odds: probability that colour is compressed at full resolution (4:4:4) instead of half (4:2:0).
    """

    scale = 1
    # As JpegArtifacts: blocks of 16x16 pixels with halved chroma, which is interpolated across their borders.
    alignment = 16
    margin = 2

    def __init__(self, quality: tuple[int, int] = (10, 95), full_chroma_odds: float = 0.5) -> None:
        low, high = _checked_range(quality, 1, 100, "quality")
        self.quality = int(low), int(high)
        self.full_chroma_odds = _checked_odds(full_chroma_odds, "full_chroma_odds")

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """The image after compression, uint8."""
        low, high = self.quality
        quality = min(high, int(rng.uniform(low, high + 1)))
        full_chroma = rng.uniform(0, 1) < self.full_chroma_odds
        return jpeg_compress(to_uint8(image), quality, full_chroma=full_chroma)


@DEGRADATIONS.register()
class SecondOrder:
    """Two rounds of blur, resizing, noise and JPEG (Real-ESRGAN, Section 3), with everything drawn, once per image.

    This is the degradation of RealESRGANDataset for one image on the CPU: for validation on pairs, and for training
    sets that shall be degraded by loader processes. Images that begin with the same random numbers, as those of a test
    set do, are degraded differently: the pixels take part in the draws, and the same image always gives the same.

    Args:
        scale: how many times smaller the result is, 1 included.
        strength: published, the settings of Real-ESRGAN; moderate, about half of them.
        seed: another number gives other draws.
    """

    # Borders that blur and resizing made stay outside the patch: 72 pixels on each side, as RealESRGANDataset cuts.
    margin = 72

    def __init__(self, scale: int = 1, strength: Literal["published", "moderate"] = "moderate", seed: int = 0) -> None:
        if scale < 1 or seed < 0:
            raise UserError(
                f"SecondOrder: expected a scale of at least 1 and a seed of at least 0, got {scale}, {seed}"
            )
        self.scale = self.alignment = scale
        self.strength = strength
        self.seed = seed

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        """(H, W, C) to uint8 (H / scale, W / scale, C), C 3 or 1."""
        pixels = to_uint8(image)
        entropy = (self.seed, int(rng.uniform(0, 1) * 2**53), zlib.crc32(pixels.tobytes()))
        degraded = degrade_image(to_float(pixels), self.scale, self.strength, np.random.default_rng(entropy))
        return to_uint8(degraded)


def _checked_range(bounds: Sequence[float], least: float, most: float, name: str) -> tuple[float, float]:
    low, high = bounds
    if not least <= low <= high <= most:
        raise UserError(
            f"{name}: expected two numbers from {least} to {most}, the smaller one first, got {low}, {high}"
        )
    return low, high


def _checked_odds(odds: float, name: str) -> float:
    if not 0 <= odds <= 1:
        raise UserError(f"{name}: expected a probability, 0 to 1, got {odds}")
    return odds
