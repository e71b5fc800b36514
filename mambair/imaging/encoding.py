"""Pixels as files: what each type can hold, and how it is written.

PNG's pixels are OpenCV's, which is twice as fast as Pillow and has 16 bits; TIFF is written here; the rest is Pillow's.
"""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mambair.errors import UserError
from mambair.imaging.ifd import BYTE, LONG, SHORT, Order, Page, Tag, Tags, build, number_tag
from mambair.imaging.names import printable
from mambair.imaging.pixels import to_uint8
from mambair.imaging.tiff import (
    BITS,
    BLACK_IS_ZERO,
    COMPRESSION,
    EXTRA_SAMPLES,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RGB,
    ROWS_PER_STRIP,
    SAMPLES,
    WIDTH,
)

JPEG_EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
PHOTO_EXTENSIONS = frozenset({".png", ".webp", ".bmp"}) | JPEG_EXTENSIONS | TIFF_EXTENSIONS
"""File types that photos are written as; more can be read."""

_KINDS = {".png": "PNG", ".webp": "WebP", ".bmp": "BMP"}
_KINDS |= dict.fromkeys(JPEG_EXTENSIONS, "JPEG") | dict.fromkeys(TIFF_EXTENSIONS, "TIFF")

# 1024x1024 pixels of photos took 0.06 s at level 4 (1 to 4 differ by 5 % in time and size), 0.10 s at 6, for 1 % less.
PNG_LEVEL = 4
_TIFF_LEVEL, _TIFF_STRIP_BYTES = 4, 2**18
_TIFF_SUB_PREDICTOR, _TIFF_DEFLATE, _STRAIGHT_ALPHA = 2, 8, 2
# Sides: what libjpeg, libwebp and libpng (as it is usually built) take. Bytes: a BMP's length has 32 bits.
_LONGEST_SIDE = {"JPEG": 65_500, "WebP": 16_383, "PNG": 1_000_000}
_MOST_BYTES = {"BMP": 2**32 - 2**10}
_BMP_HEADER = 14 + 108


@dataclass(frozen=True)
class Holding:
    """What a file type has room for."""

    depth: int = 8
    alpha: bool = True
    animations: bool = False
    pages: bool = False


HOLDS = {
    "PNG": Holding(depth=16, animations=True),
    "TIFF": Holding(depth=16, animations=True, pages=True),
    "WebP": Holding(animations=True),
    "BMP": Holding(),
    "JPEG": Holding(alpha=False),
}


def kind_of(path: Path) -> str:
    """The file type of a path's extension: PNG, TIFF, WebP, JPEG or BMP. UserError for one that is not written."""
    extension = path.suffix.lower()
    if extension not in _KINDS:
        raise UserError(f"{printable(path)}: cannot write '{extension}'; use {', '.join(sorted(PHOTO_EXTENSIONS))}")
    return _KINDS[extension]


def check_size(path: Path, height: int, width: int, channels: int) -> None:
    """Raise UserError if the file type of the path's extension cannot hold an image of that size."""
    kind = kind_of(path)
    limit = _LONGEST_SIDE.get(kind)
    if limit is not None and max(height, width) > limit:
        others = "TIFF or PNG" if max(height, width) <= _LONGEST_SIDE["PNG"] else "TIFF"
        raise UserError(
            f"{printable(path)}: the result has {width}x{height} pixels, and {kind} holds at most {limit} a side; "
            f"write {others} (--format)"
        )
    if height * ((width * channels + 3) // 4 * 4) > _MOST_BYTES.get(kind, np.inf):
        raise UserError(
            f"{printable(path)}: the result has {width}x{height} pixels, more than {kind} holds; write TIFF"
        )


def encode_png(pixels: np.ndarray, level: int | None = PNG_LEVEL) -> bytes:
    """(H, W, C), uint8 or uint16, as PNG with nothing but pixels. 16-bit gray + alpha becomes RGB + alpha."""
    if pixels.shape[2] == 2 and pixels.dtype == np.uint8:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=PNG_LEVEL if level is None else level)
        return stream.getvalue()
    return through_opencv(pixels, ".png", [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level])


def through_opencv(pixels: np.ndarray, extension: str, parameters: Sequence[int]) -> bytes:
    """(H, W, C) in RGB order as OpenCV writes it; gray + alpha becomes RGB + alpha."""
    channels = pixels.shape[2]
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    image = pixels if channels == 1 else np.ascontiguousarray(pixels[:, :, order])
    try:
        written, data = cv2.imencode(extension, image, list(parameters))
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot encode {pixels.shape} {pixels.dtype} as {extension}: {error.err}") from error
    if not written:
        raise ValueError(f"OpenCV cannot encode {pixels.shape} {pixels.dtype} as {extension}")
    return data.tobytes()


def encode_jpeg(pixels: np.ndarray, quality: int, resolution: tuple[float, float] | None) -> bytes:
    """(H, W, 1 or 3) as JPEG with full chroma resolution and pixels per inch, and nothing else."""
    options: dict[str, object] = {"quality": quality, "subsampling": "4:4:4"}
    if resolution is not None and max(resolution) < 65536:
        options["dpi"] = resolution
    return _through_pillow(pixels, "JPEG", options)


def encode_webp(pixels: np.ndarray, options: Mapping[str, object]) -> bytes:
    """(H, W, C) as WebP; `options` are Pillow's."""
    return _through_pillow(pixels, "WEBP", options)


def as_pillow(pixels: np.ndarray) -> Image.Image:
    """(H, W, C) as a PIL image of 8 bits."""
    pixels = to_uint8(pixels)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _through_pillow(pixels: np.ndarray, kind: str, options: Mapping[str, object]) -> bytes:
    stream = io.BytesIO()
    try:
        as_pillow(pixels).save(stream, kind, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {pixels.shape[1]}x{pixels.shape[0]} pixels as {kind} ({error})") from error
    return stream.getvalue()


def encode_animation(frames: Sequence[np.ndarray], kind: str, options: Mapping[str, object]) -> bytes:
    """Frames of one shape as an animated PNG or WebP; `options` are Pillow's."""
    stream = io.BytesIO()
    first, *others = map(as_pillow, frames)
    try:
        first.save(stream, kind, save_all=True, append_images=others, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot write {len(frames)} frames of {first.width}x{first.height} as {kind} ({error})"
        ) from error
    return stream.getvalue()


def encode_bmp(pixels: np.ndarray, resolution: tuple[float, float] | None) -> bytes:
    """(H, W, C) as BMP of 8 bits; alpha goes into the fourth byte, with the header that says so."""
    pixels = to_uint8(pixels)
    if pixels.shape[2] in (1, 3):
        return _through_pillow(pixels, "BMP", {} if resolution is None else {"dpi": resolution})
    height, width = pixels.shape[:2]
    order = [0, 0, 0, 1] if pixels.shape[2] == 2 else [2, 1, 0, 3]
    body = np.ascontiguousarray(pixels[::-1, :, order]).tobytes()
    per_metre = [round(value / 0.0254) for value in resolution or (96, 96)]
    bitfields = 3
    head = struct.pack("<IiiHHII2iII", 108, width, height, 1, 32, bitfields, len(body), *per_metre, 0, 0)
    head += struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(48)
    return b"BM" + struct.pack("<IHHI", _BMP_HEADER + len(body), 0, 0, _BMP_HEADER) + head + body


def encode_tiff(pages: Sequence[tuple[np.ndarray, Tags, Mapping[int, Tags]]], order: Order) -> bytes:
    """Images of 8 or 16 bits as the pages of a TIFF, each with more tags and sub-directories, in a byte order."""
    return build([_tiff_page(pixels, tags, parts, order) for pixels, tags, parts in pages], order)


def _tiff_page(pixels: np.ndarray, tags: Tags, parts: Mapping[int, Tags], order: Order) -> Page:
    """Strips compressed by zlib, of differences to the pixel on the left."""
    height, width, channels = pixels.shape
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    stored = np.ascontiguousarray(differences, dtype=pixels.dtype.newbyteorder(order))
    rows = max(1, _TIFF_STRIP_BYTES // max(stored[0].nbytes, 1))
    strips = [zlib.compress(stored[top : top + rows].tobytes(), _TIFF_LEVEL) for top in range(0, height, rows)]
    layout: dict[int, Tag] = {
        WIDTH: number_tag(LONG, [width], order),
        HEIGHT: number_tag(LONG, [height], order),
        BITS: number_tag(SHORT, [8 * pixels.itemsize] * channels, order),
        COMPRESSION: number_tag(SHORT, [_TIFF_DEFLATE], order),
        PHOTOMETRIC: number_tag(SHORT, [RGB if channels >= 3 else BLACK_IS_ZERO], order),
        SAMPLES: number_tag(SHORT, [channels], order),
        ROWS_PER_STRIP: number_tag(LONG, [rows], order),
        PLANAR: number_tag(SHORT, [1], order),
        PREDICTOR: number_tag(SHORT, [_TIFF_SUB_PREDICTOR], order),
    }
    if channels in (2, 4):
        layout[EXTRA_SAMPLES] = number_tag(SHORT, [_STRAIGHT_ALPHA], order)
    return Page({**tags, **layout}, parts, strips)


def raw_tag(data: bytes, kind: int = BYTE) -> Tag:
    """A tag of bytes."""
    return Tag(kind, len(data), data)
