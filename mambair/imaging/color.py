"""BT.601 YCbCr as MATLAB's rgb2ycbcr computes it (studio range), without its rounding."""

import numpy as np

from mambair.imaging.pixels import to_float

# Rows give Y, Cb, Cr for R, G, B in [0, 1]; Y spans 16..235, Cb and Cr 16..240.
_MATRIX = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_OFFSET = np.array([16.0, 128.0, 128.0])
_INVERSE = np.linalg.inv(_MATRIX)


def rgb_to_ycbcr(image: np.ndarray) -> np.ndarray:
    """RGB (..., 3), uint8, uint16 or float in [0, 1], to float64 YCbCr (..., 3), Y in 16..235, Cb and Cr in 16..240."""
    return to_float(image, np.float64) @ _MATRIX.T + _OFFSET


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3), uint8, uint16 or float in [0, 1], to luma (H, W), float64 on the scale 16..235, not rounded."""
    return to_float(image, np.float64) @ _MATRIX[0] + _OFFSET[0]


def ycbcr_to_rgb(image: np.ndarray) -> np.ndarray:
    """YCbCr (..., 3) on the scale 16..235 to float64 RGB in [0, 1] (colours outside RGB fall outside that range)."""
    return (image - _OFFSET) @ _INVERSE.T
