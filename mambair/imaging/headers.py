"""What an image file says about itself before it is decoded, and how large it may be."""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (registers WEBP)

from mambair.errors import UserError

MAX_PIXELS_VARIABLE = "MAMBAIR_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 2**27

# Pillow's many other formats are rare among photos, and their readers less tried by damaged files.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_EXIF_ORIENTATION = 274
_PLANAR_CONFIGURATION, _SEPARATE = 284, 2
_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "F": 1, "LA": 2, "RGBA": 4, "PA": 4}


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says about itself before it is decoded."""

    height: int
    """Rows in pixels, after the EXIF orientation."""
    width: int
    """Columns in pixels, after the EXIF orientation."""
    channels: int
    """1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha."""
    format: str
    """Pillow's name of the format, such as PNG or JPEG."""
    orientation: int
    """EXIF orientation that remains to be applied to what OpenCV decodes, 1 to 8."""
    separate_planes: bool = False
    """Whether this is a TIFF whose channels follow each other; OpenCV mixes them up if they have 16 bits."""


def printable(path: str | Path) -> str:
    """A path as one line of an error message: quoted and escaped if it has newlines or other control characters."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def max_pixels() -> int:
    """Largest number of pixels an image may declare; the environment's MAMBAIR_MAX_PIXELS raises it."""
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return DEFAULT_MAX_PIXELS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise UserError(f"{MAX_PIXELS_VARIABLE}: expected a positive number of pixels, got '{text}'")
    # Pillow has a limit of its own, which would otherwise stay in force.
    Image.MAX_IMAGE_PIXELS = int(text)
    return int(text)


def _too_many_pixels(name: str | Path, declared: str) -> UserError:
    return UserError(
        f"{printable(name)}: declares {declared} pixels, more than the limit of {max_pixels()}; "
        f"if the file is to be trusted, set {MAX_PIXELS_VARIABLE} to a larger number"
    )


def parse_header(data: bytes, name: str | Path) -> ImageHeader:
    """Size and kind of an encoded image; `name` is the file that errors name.

    Raises UserError for data that is no image and for images beyond the pixel limit.
    """
    return _read_header(io.BytesIO(data), name)


# What Pillow raises on damaged headers, besides its own UnidentifiedImageError.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, struct.error)


def _read_header(stream: IO[bytes], name: str | Path) -> ImageHeader:
    limit = max_pixels()
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            header = _describe(image)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise _too_many_pixels(name, found.group() if found else "too many") from error
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise UserError(f"{printable(name)}: {_what_else(stream.read(12))}") from error
    except _DAMAGE as error:
        reason = printable(str(error))
        raise UserError(f"{printable(name)}: damaged image header ({reason}); replace or remove it") from error
    if header.width * header.height > limit:
        raise _too_many_pixels(name, f"{header.width}x{header.height}")
    return header


def _describe(image: Image.Image) -> ImageHeader:
    width, height = image.size
    orientation, separate = 1, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # OpenCV turns TIFF images itself, whatever it is told; versions of Pillow differ in what `size` is.
        width, height = image.tag_v2[256], image.tag_v2[257]
        turned = image.tag_v2.get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        separate = image.tag_v2.get(_PLANAR_CONFIGURATION) == _SEPARATE
    else:
        # A PNG's EXIF block can follow the pixels: asking for it then would decode them.
        tagged = "exif" in image.info
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if tagged else 1
        orientation = orientation if orientation in range(1, 9) else 1
        turned = orientation >= 5
    channels = _CHANNELS.get(image.mode, 3)
    if image.mode == "P" and "transparency" in image.info:
        channels = 4
    if turned:
        width, height = height, width
    return ImageHeader(height, width, channels, image.format or "", orientation, separate)


def _what_else(head: bytes) -> str:
    """What a file that Pillow does not identify may be, and what to do, by its first 12 bytes."""
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF image, or a video, which are not read as images; save it as JPEG or PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a damaged TIFF, or one of floats or another rare kind; save it with 8 or 16 bits per channel"
    return "not an image, or a damaged one; replace or remove it"


def read_header(path: str | Path) -> ImageHeader:
    """The header of an image file, without decoding the pixels."""
    try:
        with Path(path).open("rb") as stream:
            return _read_header(stream, path)
    except OSError as error:
        raise unreadable(path, error) from error


def read_image_size(path: str | Path) -> tuple[int, int, int]:
    """(height, width, channels) from a file's header, the EXIF orientation applied."""
    header = read_header(path)
    return header.height, header.width, header.channels


def unreadable(path: str | Path, error: OSError) -> UserError:
    """The error for a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{printable(path)}: no such file")
    return UserError(f"{printable(path)}: cannot be read ({error.strerror or error})")
