"""Turning an image as its EXIF orientation asks for."""

import numpy as np


def apply_orientation(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an HxWxC array as EXIF orientation 1 to 8 asks for; a view where that is enough."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition of 5 to 8, these are the flips that remain.
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
