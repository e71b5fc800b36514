"""MATLAB's imresize: bicubic, antialiased, symmetric at the borders."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.sparse


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5; support [-2, 2]."""
    distance = np.abs(x)
    square = distance**2
    cube = distance**3
    inner = 1.5 * cube - 2.5 * square + 1
    outer = -0.5 * cube + 2.5 * square - 4 * distance + 2
    return np.where(distance <= 1, inner, np.where(distance <= 2, outer, 0.0))


@lru_cache(maxsize=256)
def _weights(length: int, target: int, scale: float) -> scipy.sparse.csr_array:
    """The (target, length) matrix that resizes one axis, float64.

    When shrinking, the kernel is widened by 1/scale so that it also removes what the target cannot show.
    """
    stretch = min(scale, 1.0)
    support = 4 / stretch
    # Centres of the target's pixels on the source's axis, in MATLAB's own terms (pixels counted from 1) since the
    # rounding of the result can hang on the last bit.
    centres = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)
    taps = math.ceil(support) + 2
    first = np.floor(centres - support / 2).astype(np.int64)
    positions = first[:, None] + np.arange(taps)  # (target, taps)
    weights = stretch * _cubic(stretch * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    # Symmetric borders: ... 2 1 | 1 2 ... length | length ... 2 1 | 1 2 ..., from here on counted from 0.
    wrapped = (positions - 1) % (2 * length)
    columns = np.minimum(wrapped, 2 * length - 1 - wrapped)
    # Entries stay in the order of the taps, mirrored duplicates included: sums are then made in MATLAB's order.
    rows = np.arange(target + 1) * taps
    return scipy.sparse.csr_array((weights.ravel(), columns.ravel(), rows), shape=(target, length))


def _resize_axis(image: np.ndarray, axis: int, target: int, scale: float) -> np.ndarray:
    """One axis of a float64 (H, W, C) array, resized."""
    moved = np.moveaxis(image, axis, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    resized = _weights(moved.shape[0], target, scale) @ flat
    return np.moveaxis(resized.reshape(target, *moved.shape[1:]), 0, axis)


def _targets(size: Sequence[int], scale: float | Sequence[int]) -> list[tuple[int, float]]:
    """Target length and scale of each axis, from a factor or from a target (height, width)."""
    if isinstance(scale, Sequence):
        if len(scale) != 2 or min(scale) < 1:
            raise ValueError(f"expected a target size (height, width) of at least one pixel, got {scale}")
        return [(int(target), target / length) for target, length in zip(scale, size, strict=True)]
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"expected a positive scale, got {scale}")
    return [(math.ceil(scale * length), float(scale)) for length in size]


def imresize(image: np.ndarray, scale: float | Sequence[int]) -> np.ndarray:
    """Resize as MATLAB's `imresize(image, scale)` does by default.

    Integer images are rounded half up and clipped after each axis, as MATLAB does; with that the LR images of the
    SR benchmarks are reproduced pixel by pixel. Rows are resized first, or the axis that shrinks more.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16 or float (any range; not rounded, not clipped).
        scale: factor for both axes, giving ceil(scale * size) pixels, or the target (height, width).

    Returns:
        The resized image, contiguous, of the input's dtype and number of axes.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"expected an image of shape (H, W) or (H, W, C), got {image.shape}")
    integer = np.issubdtype(image.dtype, np.integer)
    if not integer and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected an integer or float image, got {image.dtype}")
    result = image.reshape(*image.shape[:2], -1).astype(np.float64)
    targets = _targets(image.shape[:2], scale)
    for axis in sorted((0, 1), key=lambda axis: targets[axis][1]):
        result = _resize_axis(result, axis, *targets[axis])
        if integer:
            result = np.clip(np.floor(result + 0.5), 0, np.iinfo(image.dtype).max)
    return np.ascontiguousarray(result.astype(image.dtype).reshape(*result.shape[:2], *image.shape[2:]))


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """The (H, W, ...) image without the last rows and columns beyond a multiple; a view."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]
