"""Image files to arrays and back, for training and testing: pixels alone, as `mambair.imaging.decoding` reads them."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y
from mambair.imaging.decoding import decode, gray_of
from mambair.imaging.encoding import JPEG_EXTENSIONS, PHOTO_EXTENSIONS, encode_png, through_opencv
from mambair.imaging.headers import read_image_size, unreadable
from mambair.imaging.metadata import EMPTY, Metadata, colors_of
from mambair.imaging.names import printable
from mambair.imaging.optional_formats import HEIC_EXTENSIONS
from mambair.imaging.orientation import apply_orientation
from mambair.imaging.writing import with_colors
from mambair.runtime.files import atomic_write

__all__ = [
    "IMAGE_EXTENSIONS",
    "ColorMode",
    "apply_orientation",
    "decode_image",
    "encode_image",
    "list_images",
    "printable",
    "read_bytes",
    "read_colors",
    "read_image",
    "read_image_size",
    "write_image",
]

ColorMode = Literal["color", "gray", "y", "unchanged"]

_ONLY_READ_EXTENSIONS = {".gif", ".apng", ".avif", ".avifs", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm"}
IMAGE_EXTENSIONS = PHOTO_EXTENSIONS | HEIC_EXTENSIONS | _ONLY_READ_EXTENSIONS
"""Of all files that are read, whoever asks."""

_WRITTEN_EXTENSIONS = PHOTO_EXTENSIONS | {".ppm", ".pgm"}


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; UserError naming it where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_image(path: str | Path, mode: ColorMode = "color") -> np.ndarray:
    """Read and decode an image file; see `decode_image`."""
    return decode_image(read_bytes(path), mode, name=path)


def decode_image(data: bytes, mode: ColorMode = "color", *, name: str | Path = "image") -> np.ndarray:
    """Decode an image held in memory.

    Args:
        data: the encoded file.
        mode: color: HxWx3, alpha dropped, gray files as three equal channels; gray: HxWx1, colour files converted by
            BT.601 full-range luma; y: HxWx1, colour files converted to the rounded Y of MATLAB's rgb2ycbcr (16 to
            235), gray ones as they are; unchanged: the channels of the file, HxWx1 to HxWx4, palettes expanded.
        name: file that errors name.

    Returns:
        uint8 or uint16 array, contiguous, RGB order.

    Raises:
        UserError: no image, damaged, truncated, too large, or of a depth other than 1 to 16 bits.
    """
    decoded = decode(data, name)
    pixels = decoded.pixels
    is_gray = pixels.shape[2] < 3
    if mode == "unchanged":
        image = pixels
    elif mode == "gray":
        image = gray_of(data, decoded, name)
    elif mode == "y":
        image = pixels[:, :, :1] if is_gray else _rounded_luma(pixels[:, :, :3])
    else:
        image = pixels[:, :, [0, 0, 0]] if is_gray else pixels[:, :, :3]
    return np.ascontiguousarray(image)


def _rounded_luma(image: np.ndarray) -> np.ndarray:
    """The Y of MATLAB's rgb2ycbcr, (H, W, 1), on the scale of the RGB image's type."""
    luma = rgb_to_y(image) * (np.iinfo(image.dtype).max / 255)
    return np.rint(luma).astype(image.dtype)[:, :, None]


def encode_image(image: np.ndarray, extension: str, *, jpeg_quality: int = 95, png_level: int | None = None) -> bytes:
    """Encode an HxW or HxWxC array (uint8 or uint16; gray, RGB or RGBA) as the file type of `extension` ('.png').

    JPEG is OpenCV's, with halved chroma resolution, as benchmarks have it. `jpeg_quality` is 1 to 100; `png_level` is
    zlib's 0 to 9, OpenCV's choice if left out.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"cannot write {image.dtype} pixels; convert to uint8 or uint16")
    extension = extension.lower()
    if extension not in _WRITTEN_EXTENSIONS:
        raise UserError(f"cannot write '{extension}' images; use one of {', '.join(sorted(_WRITTEN_EXTENSIONS))}")
    image = image[:, :, None] if image.ndim == 2 else image
    if extension == ".png":
        return encode_png(image, png_level)
    if extension in JPEG_EXTENSIONS:
        return through_opencv(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    return through_opencv(image, extension, [])


def read_colors(path: str | Path) -> Metadata:
    """What a file says of its colours, for files that are made of it."""
    return colors_of(read_bytes(path), path)


def write_image(path: str | Path, image: np.ndarray, jpeg_quality: int = 95, colors: Metadata = EMPTY) -> None:
    """Write an image by the file type of the path's extension; makes parent folders.

    PNG and JPEG files say of their colours what `colors` does, if that is for as many channels. The file appears whole
    or not at all: it is written beside its place and renamed.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, jpeg_quality=jpeg_quality)
    if colors != EMPTY:
        data = with_colors(data, path, colors, channels=1 if image.ndim == 2 else image.shape[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; hidden files are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{printable(folder)}: no such folder")
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_EXTENSIONS and not entry.name.startswith(".") and entry.is_file()
    )
