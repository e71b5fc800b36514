"""Image files to arrays and back.

Arrays are HxWxC in RGB order, uint8, or uint16 where the file has 16 bits. OpenCV decodes, so that training reads the
pixels that published models were trained on; Pillow reads the headers. The EXIF orientation is applied, as OpenCV does.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mambair.errors import UserError
from mambair.runtime.files import atomic_write

ColorMode = Literal["color", "gray", "unchanged"]

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MAX_PIXELS_VARIABLE = "MAMBAIR_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 2**27

_EXIF_ORIENTATION = 274
_READ_FLAGS = {
    "color": cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "gray": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "unchanged": cv2.IMREAD_UNCHANGED,
}
_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "F": 1, "LA": 2, "RGBA": 4, "PA": 4}

# OpenCV's own messages name no file; ours do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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


def _read_header(stream: io.BufferedIOBase, name: str | Path) -> ImageHeader:
    limit = max_pixels()
    try:
        image = Image.open(stream)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, "too many") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{printable(name)}: not an image, or a damaged one; replace or remove it") from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise UserError(f"{printable(name)}: damaged image header ({error}); replace or remove it") from error
    with image:
        width, height = image.size
        orientation = 1
        if image.format == "TIFF":
            # OpenCV turns TIFF images itself, whatever it is told; versions of Pillow differ in what `size` is.
            width, height = image.tag_v2[256], image.tag_v2[257]
            turned = image.tag_v2.get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        else:
            # A PNG's EXIF block can follow the pixels: asking for it then would decode them.
            tagged = "exif" in image.info
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if tagged else 1
            orientation = orientation if orientation in range(1, 9) else 1
            turned = orientation >= 5
        if width * height > limit:
            raise _too_many_pixels(name, f"{width}x{height}")
        channels = _CHANNELS.get(image.mode, 3)
        if image.mode == "P" and "transparency" in image.info:
            channels = 4
        kind = image.format or ""
    if turned:
        width, height = height, width
    return ImageHeader(height, width, channels, kind, orientation)


def read_header(path: str | Path) -> ImageHeader:
    """The header of an image file, without decoding the pixels."""
    try:
        with Path(path).open("rb") as stream:
            return _read_header(stream, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_image_size(path: str | Path) -> tuple[int, int, int]:
    """(height, width, channels) from a file's header, the EXIF orientation applied."""
    header = read_header(path)
    return header.height, header.width, header.channels


def _unreadable(path: str | Path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{printable(path)}: no such file")
    return UserError(f"{printable(path)}: cannot be read ({error.strerror or error})")


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; UserError naming it where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_image(path: str | Path, mode: ColorMode = "color", allow_gray: bool = False) -> np.ndarray:
    """Read and decode an image file; see `decode_image`."""
    return decode_image(read_bytes(path), mode, name=path, allow_gray=allow_gray)


def decode_image(
    data: bytes, mode: ColorMode = "color", *, name: str | Path = "image", allow_gray: bool = False
) -> np.ndarray:
    """Decode an image held in memory.

    Args:
        data: the encoded file.
        mode: color: HxWx3, alpha dropped; gray: HxWx1, colour files converted by BT.601 full-range luma;
            unchanged: the channels of the file, HxWx1, HxWx3 or HxWx4, palettes expanded.
        name: file that errors name.
        allow_gray: let mode "color" repeat the channel of a gray file three times.

    Returns:
        uint8 or uint16 array, contiguous, RGB order.

    Raises:
        UserError: no image, damaged, truncated, too large, of a depth other than 8 or 16 bits, or gray
            where colour is asked for.
    """
    header = parse_header(data, name)
    if mode == "color" and header.channels < 3 and not allow_gray:
        raise UserError(f"{printable(name)}: is a gray image where colour is expected; convert it or remove it")
    _check_complete(data, header, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _READ_FLAGS[mode])
    except cv2.error as error:
        raise UserError(f"{printable(name)}: OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise UserError(
            f"{printable(name)}: damaged, or a kind of {header.format} that OpenCV cannot decode; replace or remove it"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{printable(name)}: has {image.dtype} pixels; convert it to 8 or 16 bits per channel")
    if image.ndim == 2:
        image = image[:, :, None]
    image = apply_orientation(image, header.orientation)
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    return np.ascontiguousarray(image)


def _check_complete(data: bytes, header: ImageHeader, name: str | Path) -> None:
    """Refuse truncated and bit-flipped files that some versions of OpenCV decode to a partly gray image."""
    if header.format == "PNG":
        try:
            # Compares every chunk's checksum, for a fiftieth of the time that decoding takes.
            Image.open(io.BytesIO(data)).verify()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UserError(f"{printable(name)}: damaged or truncated PNG ({error}); replace or remove it") from error
    elif header.format in ("JPEG", "MPO") and not _has_end_of_image(data):
        raise UserError(f"{printable(name)}: truncated JPEG; replace or remove it")


def _has_end_of_image(data: bytes) -> bool:
    """Whether a JPEG's compressed pixels are followed by the end marker (an EXIF thumbnail's own does not count)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding between segments
            position += 1
            continue
        if marker == 0xDA:  # start of scan: byte stuffing keeps 0xFFD9 out of the compressed data that follows
            return data.find(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


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


def encode_image(image: np.ndarray, extension: str, jpeg_quality: int = 95) -> bytes:
    """Encode an HxW or HxWxC array (uint8 or uint16; gray, RGB or RGBA) as the file type of `extension` ('.png')."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"cannot write {image.dtype} pixels; convert to uint8 or uint16")
    if extension.lower() not in IMAGE_EXTENSIONS:
        raise UserError(f"cannot write '{extension}' images; use one of {', '.join(sorted(IMAGE_EXTENSIONS))}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    elif channels == 4:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if extension.lower() in (".jpg", ".jpeg") else []
    try:
        written, data = cv2.imencode(extension.lower(), image, parameters)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot encode {image.shape} {image.dtype} as {extension}: {error.err}") from error
    if not written:
        raise ValueError(f"OpenCV cannot encode {image.shape} {image.dtype} as {extension}")
    return data.tobytes()


def write_image(path: str | Path, image: np.ndarray, jpeg_quality: int = 95) -> None:
    """Write an image by the file type of the path's extension; makes parent folders.

    The file appears whole or not at all: it is written beside its place and renamed.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, jpeg_quality)
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
