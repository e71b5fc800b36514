"""What an image file says about itself before it is decoded, and how large it may be."""

import io
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from mambair.errors import UserError
from mambair.imaging import heif, ifd, png, pnm
from mambair.imaging.exif import orientation_of
from mambair.imaging.jpeg_parts import jpeg_precision, read_jpeg_header
from mambair.imaging.names import printable
from mambair.imaging.optional_formats import openable, reads_heic
from mambair.imaging.tiff import first_page

__all__ = ["ImageHeader", "max_pixels", "parse_header", "printable", "read_header", "read_image_size", "unreadable"]

MAX_PIXELS_VARIABLE = "MAMBAIR_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 2**27
_HEAD_BYTES = 2**18

_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "F": 1, "LA": 2, "La": 2}
_JPEG_START, _JPEG_CHANNELS = b"\xff\xd8", {1: 1, 3: 3, 4: 3}
_CHANNELS |= {"RGBA": 4, "RGBa": 4, "PA": 4}


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
    """EXIF orientation that remains to be applied to the stored pixels, 1 to 8."""
    depth: int = 8
    """Bits per channel."""
    frames: int | None = 1
    """Of an animation; None where only decoding tells."""


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


# What damaged headers lead to, in Pillow and in the readers here.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, struct.error)


def _read_header(stream: IO[bytes], name: str | Path) -> ImageHeader:
    limit = max_pixels()
    try:
        header = _parse(stream)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise _too_many_pixels(name, found.group() if found else "too many") from error
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise UserError(f"{printable(name)}: {_what_else(stream.read(_HEAD_BYTES))}") from error
    except DAMAGE as error:
        reason = printable(str(error))
        raise UserError(f"{printable(name)}: damaged image header ({reason}); replace or remove it") from error
    if header.width * header.height > limit:
        raise _too_many_pixels(name, f"{header.width}x{header.height}")
    return header


def _parse(stream: IO[bytes]) -> ImageHeader:
    """By the file's first bytes, whatever its name."""
    head = stream.read(16)
    stream.seek(0)
    if head.startswith(png.SIGNATURE):
        found = png.read_png_header(stream)
        orientation = 1 if found.exif is None else orientation_of(found.exif)
        return _turned(found.height, found.width, found.channels, "PNG", orientation, found.depth, found.frames)
    if pnm.is_pnm(head):
        plain = pnm.read_pnm_header(stream.read(pnm.HEADER_BYTES))
        return ImageHeader(plain.height, plain.width, plain.channels, "PPM", 1, 8 if plain.largest <= 255 else 16)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _describe_tiff(stream)
    if head.startswith(_JPEG_START):
        return _describe_jpeg(stream)
    if heif.is_avif(head):
        stream = io.BytesIO(heif.without_exif(stream.read()))
    with Image.open(stream, formats=openable()) as image:
        return _describe(image)


def _turned(
    height: int, width: int, channels: int, kind: str, orientation: int, depth: int, frames: int | None = 1
) -> ImageHeader:
    if orientation >= 5:
        height, width = width, height
    return ImageHeader(height, width, channels, kind, orientation, depth, frames)


def _describe_jpeg(stream: IO[bytes]) -> ImageHeader:
    """By its frame alone: Pillow refuses photos for what their other segments hold."""
    found = read_jpeg_header(stream)
    if found is None or found.precision != 8 or found.components not in _JPEG_CHANNELS:
        raise UnidentifiedImageError("no JPEG that is read")
    if not found.height or not found.width:
        raise ifd.Damaged("it states no size")
    kind = "MPO" if found.images > 1 else "JPEG"
    return _turned(found.height, found.width, _JPEG_CHANNELS[found.components], kind, orientation_of(found.exif), 8)


def _describe_tiff(stream: IO[bytes]) -> ImageHeader:
    page = first_page(stream)
    height, width = page.size
    if not height or not width:
        raise ifd.Damaged("it states no size")
    return _turned(height, width, page.channels, "TIFF", page.orientation, page.bits)


def _describe(image: Image.Image) -> ImageHeader:
    block = image.info.get("exif") or b""
    orientation = orientation_of(block.removeprefix(b"Exif\0\0"))
    channels = _CHANNELS.get(image.mode, 3)
    if image.mode == "P" and "transparency" in image.info:
        channels = 4
    return _turned(image.height, image.width, channels, image.format or "", orientation, 8, None)


def _what_else(head: bytes) -> str:
    """What a file that no reader knows may be, and what to do, by its first bytes."""
    if head.startswith(_JPEG_START) and jpeg_precision(head) != 8:
        return f"a JPEG of {jpeg_precision(head)} bits, which is not read; save it as PNG or TIFF of 16 bits"
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        if reads_heic():
            return "a damaged HEIC photo; replace or remove it"
        return "a HEIC photo; to read those: pip install 'mambair[heic]', or save it as JPEG or PNG"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "an AVIF image that is damaged, or needs Pillow 11.3 or later; save it as JPEG or PNG"
    if head[4:8] == b"ftyp":
        return "a video, or a kind of HEIC or AVIF image that is not read; save it as JPEG or PNG"
    if head[:3] in (b"P7\n", b"PF\n", b"Pf\n"):
        return "a PAM or PFM image, which is not read; save it as PNG or TIFF"
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
