"""Photos as people have them: pixels with alpha, depth, colour profile and EXIF block, read and written whole."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from mambair.errors import UserError
from mambair.imaging.files import decode_image, encode_image, read_bytes
from mambair.imaging.headers import parse_header, printable
from mambair.imaging.pixels import to_uint8
from mambair.runtime.files import atomic_write

PHOTO_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""File types that photos are written as; more can be read."""

_DEEP_EXTENSIONS = frozenset({".png", ".tif", ".tiff"})
_ALPHA_EXTENSIONS = frozenset({".png", ".tif", ".tiff", ".webp"})
_TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})

# EXIF tags that no longer hold for a restored image: it stands upright and has other dimensions.
_EXIF_ORIENTATION = 0x0112
_EXIF_SUB_IFD = 0x8769
_EXIF_PIXEL_DIMENSIONS = (0xA002, 0xA003)

_PLAIN_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}

_ICC_SPACE = slice(16, 20)
_ICC_SPACES = {b"GRAY": (1, 2), b"RGB ": (3, 4)}
# zlib's 4 took a 1024x1024 photo 0.11 to 0.17 s, its usual 6 took 0.27 to 0.43 s for files 0.5 to 2 % smaller.
_PNG_LEVEL = 4
_PNG_SIGNATURE_AND_IHDR = 8 + 25
_PNG_BIT_DEPTH = 24
_TIFF_BITS_PER_SAMPLE = 258


@dataclass(frozen=True)
class Photo:
    """A decoded image file."""

    pixels: np.ndarray
    """(H, W, C) uint8 or uint16, upright; C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha."""
    icc_profile: bytes | None = None
    """Colour profile, if the file has one that fits the channels."""
    exif: bytes | None = None
    """EXIF block without orientation and dimensions."""


def read_photo(path: str | Path) -> Photo:
    """Read an image file of any kind that Pillow knows, or of 16 bits that OpenCV decodes, turned upright.

    Palettes are expanded, CMYK becomes RGB. Of a file with several images, the first one is read.

    Raises UserError, naming the file, for one that is missing, damaged, beyond the pixel limit, or of another depth.
    """
    data = read_bytes(path)
    parse_header(data, path)  # refuses what is no image, and what is too large, before anything is decoded
    with Image.open(io.BytesIO(data)) as image:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError, EOFError, zlib.error, struct.error) as error:
            raise UserError(f"{printable(path)}: damaged or truncated ({error}); replace or remove it") from error
        if _is_deep(image, data):
            pixels = decode_image(data, "unchanged", name=path)
            if image.mode == "LA":  # OpenCV expands gray + alpha
                pixels = np.ascontiguousarray(pixels[:, :, [0, 3]])
        else:
            pixels = np.asarray(to_plain_mode(ImageOps.exif_transpose(image)))
            pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        icc_profile = image.info.get("icc_profile")
        exif = _upright_exif(image)
    if icc_profile is not None and pixels.shape[2] not in _ICC_SPACES.get(icc_profile[_ICC_SPACE], ()):
        icc_profile = None  # a CMYK profile of pixels that are RGB now, say
    return Photo(pixels, icc_profile, exif)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether a file has more than 8 bits per channel; Pillow would cut 16-bit colours down to 8."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "PNG":
        return data[_PNG_BIT_DEPTH] == 16
    return isinstance(image, TiffImageFile) and max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))) > 8


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert a PIL image of 8 bits or fewer to L, LA, RGB or RGBA; transparent palettes and colours become alpha."""
    if "transparency" in image.info:
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    return image.convert(_PLAIN_MODES[image.mode]) if image.mode in _PLAIN_MODES else image.convert("RGB")


def _upright_exif(image: Image.Image) -> bytes | None:
    """The EXIF block of an opened image, without what restoring makes untrue; None where there is none."""
    # In TIFF the same directory also says where the pixels are: nothing to carry over.
    if image.format == "TIFF" or "exif" not in image.info:
        return None
    exif = image.getexif()
    exif.pop(_EXIF_ORIENTATION, None)
    if _EXIF_SUB_IFD in exif:
        for tag in _EXIF_PIXEL_DIMENSIONS:
            exif.get_ifd(_EXIF_SUB_IFD).pop(tag, None)
    return exif.tobytes() if len(exif) else None


def write_photo(path: str | Path, photo: Photo, quality: int = 95) -> None:
    """Write a photo as the file type of the path's extension (PNG, JPEG, WebP, TIFF, BMP).

    16 bits are kept in PNG and TIFF and rounded to 8 in the other types; profile and EXIF block are kept, except
    in BMP, which has no place for them. JPEG keeps full chroma resolution; `quality` (1 to 100) is that of JPEG and
    WebP. The file appears whole or not at all.

    Raises UserError for a file type that cannot be written, and for alpha where the type has none.
    """
    path = Path(path)
    check_channels(path, photo.pixels.shape[2])
    extension = path.suffix.lower()
    if photo.pixels.dtype == np.uint16 and extension in _DEEP_EXTENSIONS:
        data = _encode_deep_tiff(photo) if extension in _TIFF_EXTENSIONS else _encode_deep_png(photo)
    else:
        data = _encode_8bit(photo, extension, quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def check_channels(path: Path, channels: int) -> None:
    """Raise UserError if the file type of the path's extension cannot hold 1, 2, 3 or 4 channels."""
    extension = path.suffix.lower()
    if extension not in PHOTO_EXTENSIONS:
        raise UserError(f"{printable(path)}: cannot write '{extension}'; use {', '.join(sorted(PHOTO_EXTENSIONS))}")
    if channels in (2, 4) and extension not in _ALPHA_EXTENSIONS:
        raise UserError(f"{printable(path)}: {extension} files hold no transparency; write PNG, WebP or TIFF")


def _encode_8bit(photo: Photo, extension: str, quality: int) -> bytes:
    pixels = to_uint8(photo.pixels)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    kind = Image.registered_extensions()[extension]
    by_type: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": "4:4:4"},
        "WEBP": {"quality": quality, "alpha_quality": 100},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "PNG": {"compress_level": _PNG_LEVEL},
        "BMP": {},
    }
    options = by_type[kind]
    if kind != "BMP":
        options |= {"icc_profile": photo.icc_profile, "exif": photo.exif or b""}
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **options)
    except (OSError, ValueError) as error:  # sides beyond what the type can hold, say 16383 in WebP
        raise UserError(f"cannot write {pixels.shape[1]}x{pixels.shape[0]} pixels as {kind} ({error})") from error
    return stream.getvalue()


def _encode_deep_png(photo: Photo) -> bytes:
    """16-bit PNG through OpenCV, since Pillow has no 16-bit RGB; the blocks that OpenCV leaves out are put in here."""
    data = encode_image(_deep_pixels(photo), ".png")
    profile = _deep_profile(photo)
    chunks = b""
    if profile is not None:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if photo.exif is not None:
        chunks += _png_chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    return data[:_PNG_SIGNATURE_AND_IHDR] + chunks + data[_PNG_SIGNATURE_AND_IHDR:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _encode_deep_tiff(photo: Photo) -> bytes:
    pixels = _deep_pixels(photo)
    channels = pixels.shape[2]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        pixels[:, :, 0] if channels == 1 else pixels,
        photometric="minisblack" if channels == 1 else "rgb",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression="zlib",
        iccprofile=_deep_profile(photo),
        metadata=None,
    )
    return stream.getvalue()


def _deep_pixels(photo: Photo) -> np.ndarray:
    """16-bit pixels as files hold them: gray + alpha becomes RGB + alpha, since hardly a program reads the former."""
    return photo.pixels[:, :, [0, 0, 0, 1]] if photo.pixels.shape[2] == 2 else photo.pixels


def _deep_profile(photo: Photo) -> bytes | None:
    """The profile that fits `_deep_pixels`: one for gray does not fit RGB."""
    return None if photo.pixels.shape[2] == 2 else photo.icc_profile
