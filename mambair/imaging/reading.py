"""Photos read whole: pixels with alpha and depth, what the file says besides, and all its frames or pages."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mambair.errors import UserError
from mambair.imaging import heif, ifd, png
from mambair.imaging.decoding import (
    Decoded,
    as_array,
    decode,
    decode_tiff_page,
    loaded,
    open_with_pillow,
    to_plain_mode,
)
from mambair.imaging.files import read_bytes
from mambair.imaging.headers import ImageHeader, max_pixels
from mambair.imaging.jpeg_parts import behind_jpeg
from mambair.imaging.metadata import read_metadata, read_tiff_metadata
from mambair.imaging.names import printable
from mambair.imaging.orientation import apply_orientation
from mambair.imaging.pictures import Animation, Photo
from mambair.imaging.tiff import TiffPage, read_pages

_ANIMATED = ("GIF", "WEBP", "AVIF", "HEIF")
_DEFAULT_MILLISECONDS = 100.0
_JPEG_START, _FILM_START = b"\xff\xd8\xff", b"ftyp"


def read_photo(path: str | Path) -> Photo:
    """Read an image file of any known type, turned upright, with all its frames or pages.

    Palettes are expanded; CMYK and L*a*b* become sRGB.

    Raises UserError, naming the file, for one that is missing, damaged, beyond the pixel limit, or of another depth.
    """
    data = read_bytes(path)
    decoded = decode(data, path)
    pixels, header = decoded.pixels, decoded.header
    found = read_metadata(data, header, pixels.shape[2], decoded.is_srgb)
    photo = Photo(pixels, found.metadata, dropped=found.dropped)
    if header.format == "TIFF":
        return _with_pages(photo, data, header, path)
    if header.format == "PNG":
        try:
            return _with_frames(photo, data, decoded, path)
        except UserError:  # of what was added to a picture that is whole
            return replace(photo, dropped=(*photo.dropped, "frames beyond the first, which are damaged"))
    if header.format in _ANIMATED:
        return _with_frames(photo, data, decoded, path)
    if header.format in ("JPEG", "MPO"):
        return _without_followers(photo, data, header)
    return photo


def _without_followers(photo: Photo, data: bytes, header: ImageHeader) -> Photo:
    """The photo that says what follows it in its JPEG file, which is dropped."""
    behind, dropped = behind_jpeg(data), list(photo.dropped)
    if header.format == "MPO" or behind.startswith(_JPEG_START):
        dropped.append("further images of a JPEG (previews, gain maps, other views)")
    if _FILM_START in behind:
        dropped.append("the film of a motion photo")
    return replace(photo, dropped=tuple(dropped))


def _with_pages(photo: Photo, data: bytes, header: ImageHeader, path: str | Path) -> Photo:
    if photo.pixels.dtype == np.uint8 and header.depth > 8:
        photo = replace(photo, dropped=(*photo.dropped, "bits beyond 8 of CMYK"))
    try:
        pages = read_pages(io.BytesIO(data))
    except ifd.Damaged as error:
        raise UserError(f"{printable(path)}: damaged TIFF ({error}); replace or remove it") from error
    if sum(height * width for height, width in (page.size for page in pages)) > max_pixels():
        return replace(photo, dropped=(*photo.dropped, "pages beyond the limit of pixels (MAMBAIR_MAX_PIXELS)"))
    return replace(photo, further=tuple(_page(page, data, header, path) for page in pages[1:]))


def _page(page: TiffPage, data: bytes, header: ImageHeader, path: str | Path) -> Photo:
    decoded = decode_tiff_page(data, page, header, f"{path}, page {page.number + 1}")
    found = read_tiff_metadata(page, decoded.pixels.shape[2], decoded.is_srgb)
    return Photo(decoded.pixels, found.metadata, dropped=found.dropped)


def _with_frames(photo: Photo, data: bytes, decoded: Decoded, path: str | Path) -> Photo:
    """The photo with all frames of an animation, as they are shown: of one size, all of them with alpha or none."""
    header = decoded.header
    if header.frames == 1:
        return photo
    if header.format == "PNG":  # what is not pixels can be too much for Pillow
        data = png.only_pixels(data, png.PALETTE, animated=True)
    image = open_with_pillow(data, header, path)
    if image.info.get("bit_depth", 8) > 8 or (header.format == "AVIF" and heif.is_deep_avif(data)):
        kind = "a HEIC photo" if header.format == "HEIF" else "an AVIF image"
        photo = replace(photo, dropped=(*photo.dropped, f"bits beyond 8 of {kind}"))
    count = int(getattr(image, "n_frames", 1))
    if count == 1:
        return photo
    if header.format == "HEIF":
        return replace(photo, dropped=(*photo.dropped, "further images of a HEIC file"))
    if header.depth > 8:
        return replace(photo, dropped=(*photo.dropped, "frames beyond the first of 16 bits"))
    if count * photo.pixels.shape[0] * photo.pixels.shape[1] > max_pixels():
        return replace(photo, dropped=(*photo.dropped, "frames beyond the limit of pixels (MAMBAIR_MAX_PIXELS)"))
    still = image.info.get("default_image", False)  # a picture for programs that show no animations
    numbers = range(1 if still else 0, count)
    frames, times = zip(*_frames(image, numbers, header, path), strict=True)
    if len({frame.shape for frame in frames}) > 1:
        frames = tuple(map(_with_alpha, frames))
    dropped = (*photo.dropped, "the still picture of an animation") if still else photo.dropped
    animation = Animation(tuple(times), _loops(image))
    return replace(photo, pixels=frames[0], further=tuple(map(Photo, frames[1:])), animation=animation, dropped=dropped)


def _loops(image: Image.Image) -> int:
    loops = image.info.get("loop")
    if image.format == "GIF":  # which counts what follows the first showing; without a number it is shown once
        return 1 if loops is None else (loops + 1 if loops else 0)
    return int(loops or 0)


def _frames(
    image: Image.Image, numbers: Iterable[int], header: ImageHeader, path: str | Path
) -> Iterator[tuple[np.ndarray, float]]:
    """(pixels, milliseconds) of each frame."""
    for number in numbers:
        loaded(image, number, path)
        pixels = apply_orientation(as_array(to_plain_mode(image)), header.orientation)
        yield pixels, float(image.info.get("duration") or _DEFAULT_MILLISECONDS)


def _with_alpha(pixels: np.ndarray) -> np.ndarray:
    """RGB + alpha, opaque where there was none."""
    color = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, [0, 0, 0]]
    alpha = pixels[:, :, -1:] if pixels.shape[2] in (2, 4) else np.full_like(pixels[:, :, :1], 255)
    return np.concatenate([color, alpha], axis=2)
