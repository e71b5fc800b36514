"""Photos to files: pixels first, then all metadata that the file type has a place for, each on its own.

What a type has no place for is left out, and the caller is told in words.
"""

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mambair.errors import UserError
from mambair.imaging import encoding, exif, profiles
from mambair.imaging.encoding import HOLDS, check_size, kind_of
from mambair.imaging.ifd import UNDEFINED, Order, Tags
from mambair.imaging.jpeg_parts import (
    COMMENT,
    exif_segment,
    icc_segments,
    iptc_resource,
    iptc_segment,
    with_segments,
    xmp_segment,
)
from mambair.imaging.metadata import ICC_TAG, IPTC_TAG, METRES_PER_INCH, XMP_KEYWORD, XMP_TAG, Metadata
from mambair.imaging.names import printable
from mambair.imaging.pictures import Photo
from mambair.imaging.pixels import to_uint8
from mambair.imaging.png import Chunk, keyword_and_text, raw_iptc, with_chunks
from mambair.runtime.files import atomic_write

_DESCRIPTION_TAG = 270


def fitted(path: Path, photo: Photo) -> Photo:
    """The photo as the file type of the path's extension can hold it: what it loses is added to what was dropped.

    Raises UserError for a type that is not written, for alpha (unless opaque) and colours that it cannot hold.
    """
    kind = kind_of(path)
    holding = HOLDS[kind]
    if not holding.alpha and photo.pixels.shape[2] in (2, 4):
        if any(image[:, :, -1].min() < np.iinfo(image.dtype).max for image in photo.images):
            raise UserError(
                f"{printable(path)}: {path.suffix.lower()} files hold no transparency; write PNG, WebP or TIFF"
            )
        photo = photo.with_images([image[:, :, :-1] for image in photo.images])
    if photo.further and not (holding.animations if photo.animation else holding.pages):
        what = "frames" if photo.animation else "pages"
        photo = replace(
            photo, further=(), animation=None, dropped=(*photo.dropped, f"{what} beyond the first (no place in {kind})")
        )
    if holding.depth < 16:
        photo = photo.with_images([*map(to_uint8, photo.images)])
    if kind != "PNG" and photo.metadata.colors:
        photo = replace(photo, metadata=_with_profile(path, photo.metadata, gray=photo.pixels.shape[2] < 3))
    return photo


def _with_profile(path: Path, metadata: Metadata, gray: bool) -> Metadata:
    """What a PNG says of its colours as a profile, for types that know nothing else."""
    if metadata.icc_profile is not None and b"cICP" not in dict(metadata.colors):
        return replace(metadata, colors=())
    try:
        profile = profiles.profile_of_png(metadata.colors, gray)
    except profiles.NoProfile as error:
        raise UserError(f"{printable(path)}: {error}; write PNG") from error
    return replace(metadata, icc_profile=profile, colors=())


def write_photo(path: str | Path, photo: Photo, quality: int = 95) -> tuple[str, ...]:
    """Write a photo, whole or not at all; see `encode_photo`. Returns in words what of it was left out."""
    path = Path(path)
    data, dropped = encode_photo(path, photo, quality)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return dropped


def encode_photo(path: Path, photo: Photo, quality: int = 95) -> tuple[bytes, tuple[str, ...]]:
    """A photo as the file type of the path's extension, and in words what of it was left out.

    16 bits are kept in PNG and TIFF and rounded to 8 in the other types. JPEG keeps full chroma resolution; `quality`
    (1 to 100) is that of JPEG and WebP.

    Raises UserError for a file type that cannot be written or cannot hold the image.
    """
    photo = fitted(path, photo)
    check_size(path, *photo.pixels.shape)
    parts = _Parts(kind_of(path))
    data = _WRITERS[parts.kind](photo, quality, parts)
    return data, (*photo.dropped, *dict.fromkeys(parts.dropped))


class _Parts:
    """Collects metadata for one file; what cannot be had is named, and nothing else is touched by it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.dropped: list[str] = []

    def add(self, name: str, make: Callable[[], None]) -> None:
        """Call `make`; note `name` as dropped if it cannot be written."""
        try:
            make()
        except (ValueError, OverflowError, struct.error, UnicodeError, zlib.error):
            self.drop(name)

    def drop(self, name: str) -> None:
        """Note what has no place in this file."""
        self.dropped.append(f"{name} (no place in {self.kind})")

    def drop_all(self, metadata: Metadata, *kept: str) -> None:
        """Note all metadata but those called `kept`, fields of Metadata."""
        names = {
            "icc_profile": "the colour profile",
            "exif": "EXIF",
            "xmp": "XMP",
            "iptc": "IPTC",
            "comment": "the comment",
            "texts": "PNG text",
            "resolution": "the resolution",
        }
        for field, name in names.items():
            if field not in kept and getattr(metadata, field):
                self.drop(name)


def _png(photo: Photo, quality: int, parts: _Parts) -> bytes:
    metadata, pixels = photo.metadata, photo.pixels
    parts.drop_all(metadata, "icc_profile", "exif", "xmp", "iptc", "comment", "texts", "resolution")
    if photo.animation is not None:
        options = {"duration": list(photo.animation.milliseconds), "loop": photo.animation.loops}
        options |= {"disposal": 0, "blend": 0, "compress_level": encoding.PNG_LEVEL}
        data = encoding.encode_animation(photo.images, "PNG", options)
        channels = pixels.shape[2]
    else:
        data = encoding.encode_png(pixels)
        channels = 4 if pixels.shape[2] == 2 and pixels.dtype == np.uint16 else pixels.shape[2]
    return with_metadata_chunks(data, metadata, channels, parts)


def _profile_for(metadata: Metadata, channels: int, parts: "_Parts") -> bytes | None:
    """The profile for pixels that are stored in so many channels: that of a gray image may be stored in three."""
    profile = metadata.icc_profile
    if profile is None or profiles.fits(profile, channels):
        return profile
    profile = profiles.as_rgb(profile) if channels >= 3 and profiles.is_for_gray(profile) else None
    if profile is None:
        parts.drop("a profile for other channels than are stored")
    return profile


def with_metadata_chunks(data: bytes, metadata: Metadata, channels: int, parts: "_Parts | None" = None) -> bytes:
    """A PNG that has nothing but pixels, of so many channels, with all that PNG has a place for."""
    parts = parts or _Parts("PNG")
    before: list[Chunk] = [*metadata.colors]
    profile = _profile_for(metadata, channels, parts)
    if profile is not None:
        before.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if metadata.resolution is not None:
        resolution = metadata.resolution
        parts.add("the resolution", lambda: before.append((b"pHYs", _phys(resolution))))
    if metadata.exif is not None:
        before.append((b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        before.append((b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc is not None:
        before.append(raw_iptc(iptc_resource(metadata.iptc)))
    if metadata.comment is not None and not any(text.startswith(b"Comment\0") for _, text in metadata.texts):
        comment = metadata.comment
        parts.add("the comment", lambda: before.append((b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())))
    return with_chunks(data, [*before, *metadata.texts])


def with_colors(data: bytes, path: Path, colors: Metadata, channels: int) -> bytes:
    """An encoded PNG or JPEG of so many channels that says of its colours what `colors` does; others as they are.

    Raises UserError for colours that only PNG can say.
    """
    kind = kind_of(path)
    if kind == "PNG":
        return with_metadata_chunks(data, colors, channels)
    if kind == "JPEG":
        profile = _with_profile(path, colors, gray=channels < 3).icc_profile if colors.colors else colors.icc_profile
        if profile is not None and profiles.fits(profile, channels):
            return with_segments(data, icc_segments(profile))
    return data


def _phys(resolution: tuple[float, float]) -> bytes:
    across, down = (round(value / METRES_PER_INCH) for value in resolution)
    return struct.pack(">IIB", across, down, 1)


def _jpeg(photo: Photo, quality: int, parts: _Parts) -> bytes:
    metadata = photo.metadata
    parts.drop_all(metadata, "icc_profile", "exif", "xmp", "iptc", "comment", "resolution", "texts")
    comment = _comment_for_jpeg(metadata, parts)
    segments = [
        ("EXIF", [] if metadata.exif is None else [exif_segment(metadata.exif)]),
        ("XMP", [] if metadata.xmp is None else [xmp_segment(metadata.xmp)]),
        ("IPTC", [] if metadata.iptc is None else [iptc_segment(metadata.iptc)]),
        ("the comment", [] if comment is None else [(COMMENT, comment.encode())]),
    ]
    data = encoding.encode_jpeg(photo.pixels, quality, metadata.resolution)

    def add(pieces: Iterable[tuple[int, bytes]]) -> None:
        nonlocal data
        data = with_segments(data, list(pieces))

    profile = metadata.icc_profile
    if profile is not None:
        parts.add("the colour profile", lambda: add(icc_segments(profile)))
    for name, pieces in reversed(segments):
        parts.add(name, lambda pieces=pieces: add(pieces))  # type: ignore[misc]
    return data


def _comment_for_jpeg(metadata: Metadata, parts: _Parts) -> str | None:
    """The comment, or PNG's text of that name; other texts have no place."""
    comments = []
    for kind, content in metadata.texts:
        keyword, text = keyword_and_text(kind, content)
        if keyword == b"Comment" and text is not None:
            comments.append(text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace"))
    if len(metadata.texts) > len(comments):
        parts.drop("PNG text")
    return next(iter(comments), None) if metadata.comment is None else metadata.comment


def _webp(photo: Photo, quality: int, parts: _Parts) -> bytes:
    metadata = photo.metadata
    parts.drop_all(metadata, "icc_profile", "exif", "xmp", "resolution")
    block = metadata.exif
    if block is None and metadata.resolution is not None:
        block = exif.block_of_resolution(metadata.resolution)
    options: dict[str, object] = {"quality": quality, "alpha_quality": 100}
    profile = _profile_for(metadata, 4, parts)  # even gray images are RGB there
    options |= {"icc_profile": profile or b"", "exif": block or b"", "xmp": metadata.xmp or b""}
    if photo.animation is None:
        return encoding.encode_webp(photo.pixels, options)
    times = [round(value) for value in photo.animation.milliseconds]
    return encoding.encode_animation(
        photo.images, "WEBP", options | {"duration": times, "loop": photo.animation.loops, "minimize_size": False}
    )


def _bmp(photo: Photo, quality: int, parts: _Parts) -> bytes:
    parts.drop_all(photo.metadata, "resolution")
    return encoding.encode_bmp(photo.pixels, photo.metadata.resolution)


def _tiff(photo: Photo, quality: int, parts: _Parts) -> bytes:
    if photo.animation is not None:
        parts.drop("the times of frames")
    order: Order = exif.page_tags(photo.metadata.exif)[0]
    pages = []
    for page in (photo, *photo.further):
        parts.drop_all(page.metadata, "icc_profile", "exif", "xmp", "iptc", "comment", "resolution")
        pixels = page.pixels
        if pixels.shape[2] == 2 and pixels.dtype == np.uint16:
            pixels = pixels[:, :, [0, 0, 0, 1]]
        own_order, tags, sub_directories = exif.page_tags(page.metadata.exif)
        if own_order != order:  # of another file
            tags, sub_directories = {}, {}
        tags = {**tags, **_tiff_tags(page.metadata, pixels.shape[2], order, parts)}
        if page.metadata.exif is not None and exif.has_maker_note(page.metadata.exif):
            parts.drop("the maker's note in EXIF")
        pages.append((pixels, tags, sub_directories))
    return encoding.encode_tiff(pages, order)


def _tiff_tags(metadata: Metadata, channels: int, order: Order, parts: _Parts) -> Tags:
    tags = {}
    profile = _profile_for(metadata, channels, parts)
    if profile is not None:
        tags[ICC_TAG] = encoding.raw_tag(profile, UNDEFINED)
    if metadata.xmp is not None:
        tags[XMP_TAG] = encoding.raw_tag(metadata.xmp)
    if metadata.iptc is not None:
        tags[IPTC_TAG] = encoding.raw_tag(metadata.iptc, UNDEFINED)
    if metadata.comment is not None:
        tags[_DESCRIPTION_TAG] = exif.text_tag(metadata.comment)
    if metadata.resolution is not None:
        resolution = metadata.resolution
        parts.add("the resolution", lambda: tags.update(exif.resolution_tags(resolution, order)))
    return tags


_WRITERS: dict[str, Callable[[Photo, int, _Parts], bytes]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WebP": _webp,
    "BMP": _bmp,
    "TIFF": _tiff,
}
