"""The one reader of pixels, for restoring, training and testing.

Which decoder a file gets depends on its format and depth, never on who asks: OpenCV for PNG and JPEG, so that training
reads the pixels that published models were trained on; Pillow for other files of 8 bits; tifffile for deep TIFF. What
tags say about pixels (which way is up, which value is white, what alpha was multiplied with) is applied here, alike
for all types and depths.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mambair.errors import UserError
from mambair.imaging import heif, png, pnm
from mambair.imaging.headers import DAMAGE, ImageHeader, parse_header
from mambair.imaging.jpeg_parts import (
    icc_of_jpeg,
    jpeg_is_complete,
    jpeg_segments,
    only_jpeg_pixels,
    read_jpeg_header,
)
from mambair.imaging.names import printable
from mambair.imaging.orientation import apply_orientation
from mambair.imaging.profiles import cmyk_to_rgb, lab_to_rgb
from mambair.imaging.tiff import (
    CIELAB,
    CMYK,
    ICC_PROFILE,
    ICCLAB,
    TiffPage,
    decode_tiff_samples,
    first_page,
    not_turned,
)

# OpenCV's own messages name no file; ours do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PLAIN_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
_AS_STORED = cv2.IMREAD_UNCHANGED
_AS_GRAY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Decoded:
    """The pixels of a file."""

    pixels: np.ndarray
    """(H, W, C) uint8 or uint16, upright; C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha (not multiplied)."""
    header: ImageHeader
    is_srgb: bool = False
    """Whether the colours were converted from others (CMYK, L*a*b*): the file's profile is not theirs."""


def decode(data: bytes, name: str | Path) -> Decoded:
    """Decode an image, the first one of a file that holds several; palettes are expanded.

    Raises UserError, naming the file: no image, damaged, truncated, too large, of a depth other than 1 to 16 bits.
    """
    header = parse_header(data, name)
    if header.format == "PNG":
        return Decoded(_turned(_decode_png(data, name), header), header)
    if header.format == "PPM":
        return Decoded(_decode_pnm(data, name), header)
    if header.format == "TIFF":
        return decode_tiff_page(data, first_page(io.BytesIO(data)), header, name)
    if header.format in ("JPEG", "MPO"):
        return _decode_jpeg(data, header, name)
    image = open_with_pillow(data, header, name)
    return Decoded(_turned(as_array(to_plain_mode(image)), header), header)


def gray_of(data: bytes, decoded: Decoded, name: str | Path) -> np.ndarray:
    """BT.601 full-range luma, (H, W, 1); gray files as they are.

    PNG's library rounds down where others round to nearest, half a level on average. Published models were fed so.
    """
    if decoded.pixels.shape[2] < 3:
        return decoded.pixels[:, :, :1]
    if decoded.header.format == "PNG":
        return _turned(_opencv(_png_pixels(data, name), _AS_GRAY, "PNG", name), decoded.header)
    return cv2.cvtColor(np.ascontiguousarray(decoded.pixels[:, :, :3]), cv2.COLOR_RGB2GRAY)[:, :, None]


def _turned(pixels: np.ndarray, header: ImageHeader) -> np.ndarray:
    return apply_orientation(pixels, header.orientation)


def _opencv(data: bytes, flags: int, kind: str, name: str | Path) -> np.ndarray:
    """What OpenCV decodes, (H, W, C) in RGB order."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{printable(name)}: OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise UserError(
            f"{printable(name)}: damaged, or a kind of {kind} that OpenCV cannot decode; replace or remove it"
        )
    if image.ndim == 2:
        return image[:, :, None]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _png_pixels(data: bytes, name: str | Path) -> bytes:
    """The chunks that make the pixels; refuses truncated files, which some decoders show partly gray."""
    if not png.is_complete(data):
        raise UserError(f"{printable(name)}: truncated PNG; replace or remove it")
    return png.only_pixels(data, png.read_png_header(io.BytesIO(data)).color)


def _decode_png(data: bytes, name: str | Path) -> np.ndarray:
    header = png.read_png_header(io.BytesIO(data))
    pixels = _opencv(_png_pixels(data, name), _AS_STORED, "PNG", name)
    if header.color == png.GRAY_ALPHA and pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels[:, :, [0, 3]])
    transparent = png.transparent_color(data, header)
    if transparent is None:
        return pixels
    white = np.iinfo(pixels.dtype).max
    hidden = (pixels == np.array(transparent, pixels.dtype)).all(axis=2, keepdims=True)
    return np.concatenate([pixels, np.where(hidden, 0, white).astype(pixels.dtype)], axis=2)


def _decode_pnm(data: bytes, name: str | Path) -> np.ndarray:
    try:
        return pnm.decode_pnm(data)
    except ValueError as error:
        raise UserError(f"{printable(name)}: damaged PBM, PGM or PPM ({error}); replace or remove it") from error


def _decode_jpeg(data: bytes, header: ImageHeader, name: str | Path) -> Decoded:
    if not jpeg_is_complete(data):
        raise UserError(f"{printable(name)}: truncated JPEG; replace or remove it")
    found, plain = read_jpeg_header(io.BytesIO(data)), only_jpeg_pixels(data)
    assert found is not None, "its header has been read"
    if found.components != 4:
        return Decoded(_turned(_opencv(plain, _AS_STORED, "JPEG", name), header), header)
    inks = open_with_pillow(plain, header, name)
    rgb = cmyk_to_rgb(inks, icc_of_jpeg(list(jpeg_segments(data))))
    return Decoded(_turned(np.asarray(rgb), header), header, is_srgb=True)


def open_with_pillow(data: bytes, header: ImageHeader, name: str | Path) -> Image.Image:
    """The first image of a file, loaded whole, as it is stored. Raises UserError, naming the file."""
    return _guarded(lambda: _load(data, header, 0), name)


def loaded(image: Image.Image, frame: int, name: str | Path) -> None:
    """Go to a frame of an opened file and load it. Raises UserError, naming the file."""

    def load() -> Image.Image:
        image.seek(frame)
        image.load()
        return image

    _guarded(load, name)


def _load(data: bytes, header: ImageHeader, frame: int) -> Image.Image:
    data = heif.without_exif(data) if header.format == "AVIF" else data
    image = Image.open(io.BytesIO(data), formats=["JPEG" if header.format == "MPO" else header.format])
    if frame:
        image.seek(frame)
    image.load()
    return image


def _guarded(load: Callable[[], Image.Image], name: str | Path) -> Image.Image:
    try:
        return load()
    except Image.DecompressionBombError as error:
        raise UserError(f"{printable(name)}: has more pixels than its header says; replace or remove it") from error
    except (*DAMAGE, zlib.error) as error:
        reason = printable(str(error))
        raise UserError(f"{printable(name)}: damaged or truncated ({reason}); replace or remove it") from error


def decode_tiff_page(data: bytes, page: TiffPage, header: ImageHeader, name: str | Path) -> Decoded:
    """One image of a TIFF file; `header` is that of the file."""
    profile = page.directory.tags[ICC_PROFILE].data if ICC_PROFILE in page.directory.tags else None
    # What Pillow has no modes for, or reads as something else.
    if page.bits > 8 or page.is_signed_or_float or _is_beyond_pillow(page):
        return _deep_tiff_page(data, page, header, profile, name)
    if page.photometric == ICCLAB:
        raise UserError(f"{printable(name)}: its colours are ICC's L*a*b* of 8 bits; save it as RGB")
    try:
        image = _guarded(lambda: _load(not_turned(data, page), header, page.number), name)
    except UserError:
        if page.bits != 8:
            raise
        return _deep_tiff_page(data, page, header, profile, name)
    is_srgb = image.mode in ("CMYK", "LAB")
    if image.mode == "LAB":
        stored = np.array(image)
        lab = np.concatenate([stored[..., :1] * (100 / 255), stored[..., 1:].view(np.int8)], axis=-1)
        pixels = np.rint(lab_to_rgb(lab) * 255).astype(np.uint8)
    elif image.mode == "CMYK":
        pixels = np.asarray(cmyk_to_rgb(image, profile))
    else:
        pixels = as_array(to_plain_mode(image))
    return Decoded(apply_orientation(pixels, page.orientation), header, is_srgb)


def _is_beyond_pillow(page: TiffPage) -> bool:
    """Whether 8-bit samples have their alpha where Pillow's modes have none."""
    return page.bits == 8 and page.alpha != "none" and (page.photometric == CMYK or page.alpha_sample > page.inks)


def _deep_tiff_page(
    data: bytes, page: TiffPage, header: ImageHeader, profile: bytes | None, name: str | Path
) -> Decoded:
    pixels = decode_tiff_samples(data, page, name)
    if page.photometric == CMYK:
        inks = Image.frombytes("CMYK", page.size[::-1], np.ascontiguousarray(pixels[:, :, :4]).tobytes())
        pixels = np.concatenate([np.asarray(cmyk_to_rgb(inks, profile)), pixels[:, :, 4:]], axis=2)
    converted = page.photometric in (CMYK, CIELAB, ICCLAB)
    return Decoded(apply_orientation(pixels, page.orientation), header, is_srgb=converted)


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert a PIL image of 8 bits or fewer to L, LA, RGB or RGBA; transparent palettes and colours become alpha."""
    if image.mode == "CMYK":
        return cmyk_to_rgb(image, image.info.get("icc_profile"))
    if "transparency" in image.info:
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    return image.convert(_PLAIN_MODES[image.mode]) if image.mode in _PLAIN_MODES else image.convert("RGB")


def as_array(image: Image.Image) -> np.ndarray:
    """A PIL image of mode L, LA, RGB or RGBA as (H, W, C)."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
