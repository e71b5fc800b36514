"""TIFF files that OpenCV does not decode, or decodes wrongly: separate planes, rare compressions."""

import io
import lzma
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import tifffile

from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.imaging.orientation import apply_orientation

_DAMAGES = (ValueError, OSError, RuntimeError, LookupError, ImportError, zlib.error, lzma.LZMAError, struct.error)
_ORIENTATION = 274
_READABLE = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK)


def decode_tiff(data: bytes, name: str | Path) -> np.ndarray:
    """The first image of a gray or RGB TIFF, with alpha or without: (H, W, C), RGB order, upright.

    Raises UserError, naming the file, for one that tifffile cannot decode either.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as archive:
            page = archive.pages[0]
            if page.photometric not in _READABLE:
                # A number that tifffile has no name for stays a number.
                raise ValueError(f"its colours are {getattr(page.photometric, 'name', page.photometric)}")
            image = page.asarray()
            tag = page.tags.get(_ORIENTATION)
            orientation = tag.value if tag is not None else 1
            separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3
    except (*_DAMAGES, tifffile.TiffFileError) as error:
        raise UserError(
            f"{printable(name)}: damaged, or a kind of TIFF that cannot be decoded here ({error}); "
            "save it again without compression, channels interleaved"
        ) from error
    image = np.moveaxis(image, 0, 2) if separate else image
    image = image[:, :, None] if image.ndim == 2 else image
    image = apply_orientation(image, orientation if orientation in range(1, 9) else 1)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def as_mode(image: np.ndarray, mode: str) -> np.ndarray:
    """(H, W, C) in RGB order as `decode_image` returns it: color has 3 channels, gray 1, unchanged those it has."""
    if mode == "unchanged":
        return image
    if mode == "gray":
        return image[:, :, :1] if image.shape[2] < 3 else cv2.cvtColor(image[:, :, :3], cv2.COLOR_RGB2GRAY)[:, :, None]
    return np.ascontiguousarray(image[:, :, :3] if image.shape[2] >= 3 else image[:, :, [0, 0, 0]])
