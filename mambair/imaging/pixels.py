"""Pixel types: integers on their own scale, floats in [0, 1]."""

import numpy as np
import numpy.typing as npt


def to_float(image: np.ndarray, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
    """Pixels as floats in [0, 1]: integers are divided by their type's largest value, floats taken as they are."""
    if np.issubdtype(image.dtype, np.integer):
        return np.divide(image, np.iinfo(image.dtype).max, dtype=dtype)
    return image.astype(dtype, copy=False)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Pixels as uint8: floats in [0, 1] are clipped and rounded (ties to even), uint16 is scaled and rounded."""
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(to_float(image, np.float64), 0, 1) * 255).astype(np.uint8)


def unassociated(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours (H, W, C) divided by their alpha (H, W, 1) of the same integer type; black where that is 0."""
    white = np.iinfo(color.dtype).max
    divided = np.divide(color * np.float64(white), alpha, out=np.zeros(color.shape), where=alpha > 0)
    return np.rint(np.minimum(divided, white)).astype(color.dtype)
