"""How noisy a photo is, from its pixels alone: quickly, and well enough to advise by.

The Laplacian of Immerkær (Fast Noise Variance Estimation, 1996) leaves of smooth surroundings nothing but noise. In
each block of 16x16 pixels its mean size tells a deviation; the smoothest twentieth of the blocks of a photo have noise
alone, and the others detail too.
"""

import cv2
import numpy as np

LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.int16)
GAIN = 6.0
"""Deviation of the filtered over that of the noise: the root of the sum of squares."""
BLOCK = 16
SMOOTHEST = 0.05
CORRECTION = 1.15
"""The smoothest blocks are those whose noise happens to be small. Measured on 200 photos of BSD400, 330 of ImageNet and
the 18 of McMaster with known noise, clipped and rounded; docs/restore.md has what errors are left."""
WINDOW = 768
"""The middle of a photo is looked at, at most this large."""
LOWEST, HIGHEST = 2, 253
"""Pixels beyond are clipped: their noise is cut off."""
FEWEST_BLOCKS = 8


def noise_level(image: np.ndarray) -> float | None:
    """The deviation, on the 0-255 scale, of white noise in a uint8 image (H, W, C); the median of its channels.

    None where there is nothing to tell it by: images below about 48 pixels, and those that are nearly all clipped.
    """
    height, width = image.shape[:2]
    top, left = max(0, (height - WINDOW) // 2), max(0, (width - WINDOW) // 2)
    middle = image[top : top + WINDOW, left : left + WINDOW]
    levels = [_channel(np.ascontiguousarray(middle[:, :, channel])) for channel in range(image.shape[2])]
    known = [level for level in levels if level is not None]
    return float(np.median(known)) if known else None


def _channel(plane: np.ndarray) -> float | None:
    detail = np.abs(cv2.filter2D(plane, cv2.CV_16S, LAPLACIAN))
    clipped = cv2.inRange(plane, LOWEST + 1, HIGHEST - 1) == 0
    usable = _block_means(clipped.astype(np.uint8)) < 0.1
    means = _block_means(detail)[usable]
    if means.size < FEWEST_BLOCKS:
        return None
    return float(np.quantile(means, SMOOTHEST)) * (np.pi / 2) ** 0.5 / GAIN * CORRECTION


def _block_means(plane: np.ndarray) -> np.ndarray:
    """Means of blocks of 16x16 pixels; the last rows and columns that fill none are left out."""
    height, width = (length // BLOCK for length in plane.shape)
    if not height or not width:
        return np.zeros((0, 0))
    whole = np.ascontiguousarray(plane[: height * BLOCK, : width * BLOCK], np.float32)
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
