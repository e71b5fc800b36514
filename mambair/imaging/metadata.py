"""What image files say besides pixels: read whatever it is, never trusted, and kept where it is known to be safe."""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from mambair.imaging import exif, heif, profiles
from mambair.imaging.containers import profile_of_bmp, webp_chunks, xmp_of_gif
from mambair.imaging.headers import DAMAGE, ImageHeader, parse_header
from mambair.imaging.jpeg_parts import (
    APP1,
    COMMENT,
    EXIF_HEAD,
    LONG_XMP_HEAD,
    XMP_HEAD,
    icc_of_jpeg,
    iptc_of_jpeg,
    iptc_of_resources,
    jfif_resolution,
    jpeg_segments,
)
from mambair.imaging.optional_formats import openable
from mambair.imaging.png import TEXT_CHUNKS, Chunk, chunks_of, inflate, keyword_and_text, raw_profile
from mambair.imaging.tiff import ICC_PROFILE as ICC_TAG
from mambair.imaging.tiff import TiffPage, read_pages

XMP_TAG, IPTC_TAG = 700, 33723
METRES_PER_INCH = 0.0254
XMP_KEYWORD = b"XML:com.adobe.xmp"
_COLOR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8]")


@dataclass(frozen=True)
class Metadata:
    """What goes from a photo into its result."""

    icc_profile: bytes | None = None
    """Colour profile, if there is one that fits the channels."""
    exif: bytes | None = None
    """EXIF block (without 'Exif' and two zeros) of safe tags: see `mambair.imaging.exif`."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: str | None = None
    """Of JPEG and GIF."""
    texts: tuple[Chunk, ...] = ()
    """PNG's chunks of text, as they are."""
    colors: tuple[Chunk, ...] = ()
    """PNG's chunks on colours, as they are; for AVIF and HEIC those that say the same."""
    resolution: tuple[float, float] | None = None
    """Pixels per inch, across and down."""


EMPTY = Metadata()


@dataclass(frozen=True)
class Found:
    """Metadata of a file, and what of them cannot be kept."""

    metadata: Metadata
    dropped: tuple[str, ...] = ()


def read_metadata(data: bytes, header: ImageHeader, channels: int, is_srgb: bool) -> Found:
    """What a file says, for pixels of so many channels, which were converted to sRGB if `is_srgb`."""
    if header.format == "TIFF":
        return read_tiff_metadata(read_pages(io.BytesIO(data))[0], channels, is_srgb)
    read = _READERS.get(header.format)
    raw, dropped = (Metadata(), []) if read is None else read(data)
    return _safe(raw, dropped, header.orientation, channels, is_srgb)


def colors_of(data: bytes, name: str | Path) -> Metadata:
    """What a file says of its colours and nothing else: its profile, or PNG's chunks. UserError for no image."""
    header = parse_header(data, name)
    found = read_metadata(data, header, header.channels, is_srgb=False).metadata
    return Metadata(icc_profile=found.icc_profile, colors=found.colors)


def profile_of(data: bytes, name: str | Path) -> bytes | None:
    """The profile that a file has, or that says what PNG's chunks say; None for sRGB, and for what no profile says."""
    colors = colors_of(data, name)
    if colors.icc_profile is not None or not colors.colors:
        return colors.icc_profile
    try:
        return profiles.profile_of_png(colors.colors, gray=parse_header(data, name).channels < 3)
    except profiles.NoProfile:
        return None


def read_tiff_metadata(page: TiffPage, channels: int, is_srgb: bool) -> Found:
    """What the tags of one image of a TIFF file say."""
    tags = page.directory.tags
    values = [tags[number].data if number in tags else None for number in (ICC_TAG, XMP_TAG, IPTC_TAG)]
    block = exif.block_of_tiff(page.reader, page.directory)
    raw = Metadata(values[0], block, values[1], values[2], resolution=exif.resolution_in(page.directory))
    return _safe(raw, [], page.orientation, channels, is_srgb)


def _safe(raw: Metadata, dropped: list[str], orientation: int, channels: int, is_srgb: bool) -> Found:
    """The metadata without what does not hold for the decoded pixels."""
    dropped = list(dropped)
    profile = None if raw.icc_profile is None else profiles.trimmed(raw.icc_profile)
    if raw.icc_profile is not None and not is_srgb and (profile is None or not profiles.fits(profile, channels)):
        profile = None
        dropped.append("a colour profile that is damaged or for other colours")
    block = None if raw.exif is None else exif.upright_block(raw.exif, converted=is_srgb)
    if raw.exif is not None and exif.is_damaged(raw.exif):
        dropped.append("damaged EXIF")
    resolution, xmp = raw.resolution, raw.xmp
    if resolution is not None and orientation >= 5:
        resolution = resolution[::-1]
    if xmp is not None and orientation != 1:
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    colors = () if is_srgb else raw.colors
    profile = None if is_srgb else profile
    kept = replace(raw, icc_profile=profile, exif=block, xmp=xmp, resolution=resolution, colors=colors)
    return Found(kept, tuple(dropped))


Raw = tuple[Metadata, list[str]]


def _of_png(data: bytes) -> Raw:
    found: dict[str, bytes | None] = {"icc": None, "exif": None, "xmp": None, "iptc": None}
    texts, colors, resolution, dropped = [], [], None, []
    for kind, content in chunks_of(data):
        if kind in _COLOR_CHUNKS:
            if profiles.is_possible((kind, content)):
                colors.append((kind, content))
            else:
                dropped.append("what a PNG says of its colours, damaged")
        elif kind == b"iCCP":
            found["icc"] = inflate(content.partition(b"\0")[2][1:])
            if found["icc"] is None:
                dropped.append("a colour profile that is damaged or for other colours")
        elif kind == b"eXIf":
            found["exif"] = content
        elif kind == b"pHYs" and len(content) == 9:
            resolution = _of_phys(content)
        elif kind in TEXT_CHUNKS:
            keyword, text = keyword_and_text(kind, content)
            raw = None if text is None else raw_profile(keyword, text)
            if text is None:
                dropped.append("PNG text that is damaged or longer than 1 MiB")
            elif keyword == XMP_KEYWORD:
                found["xmp"] = text
            elif raw is not None and raw[1] is not None:
                found[raw[0]] = found[raw[0]] or raw[1]
            elif raw is not None:
                dropped.append("PNG text that holds other programs' data")
            else:
                texts.append((kind, content))
    iptc = None if found["iptc"] is None else iptc_of_resources(found["iptc"])
    packets = found["icc"], found["exif"], found["xmp"], iptc
    return Metadata(*packets, texts=tuple(texts), colors=tuple(colors), resolution=resolution), dropped


def _of_phys(content: bytes) -> tuple[float, float] | None:
    across, down, unit = struct.unpack(">IIB", content)
    return (across * METRES_PER_INCH, down * METRES_PER_INCH) if unit == 1 and across and down else None


def _of_jpeg(data: bytes) -> Raw:
    segments = list(jpeg_segments(data))
    block, xmp = (
        next((body.removeprefix(head) for marker, body in segments if marker == APP1 and body.startswith(head)), None)
        for head in (EXIF_HEAD, XMP_HEAD)
    )
    comments = [_decoded(body) for marker, body in segments if marker == COMMENT]
    dropped = ["XMP beyond 64 KB"] if any(body.startswith(LONG_XMP_HEAD) for _, body in segments) else []
    resolution = jfif_resolution(segments) or (None if block is None else exif.resolution_of(block))
    profile, iptc = icc_of_jpeg(segments), iptc_of_jpeg(segments)
    return Metadata(profile, block, xmp, iptc, "\n".join(comments) or None, resolution=resolution), dropped


def _decoded(comment: bytes) -> str:
    """A comment, which no format says the encoding of."""
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _of_webp(data: bytes) -> Raw:
    chunks = dict(webp_chunks(data))
    block = chunks.get(b"EXIF")
    block = None if block is None else block.removeprefix(EXIF_HEAD)
    resolution = None if block is None else exif.resolution_of(block)
    return Metadata(chunks.get(b"ICCP"), block, chunks.get(b"XMP "), resolution=resolution), []


def _of_pillow(data: bytes) -> Raw:
    """BMP, GIF, AVIF and HEIC: what Pillow finds in their headers."""
    info, dropped = _info_of_pillow(data)
    comment, dpi = info.get("comment"), info.get("dpi")
    profile, block, xmp = (info.get(key) or None for key in ("icc_profile", "exif", "xmp"))
    raw = Metadata(
        profile if isinstance(profile, bytes) else None,
        block.removeprefix(EXIF_HEAD) if isinstance(block, bytes) else None,
        xmp if isinstance(xmp, bytes) else None,
        comment=_decoded(comment) if isinstance(comment, bytes) else None,
        resolution=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
    )
    return raw, dropped


def _info_of_pillow(data: bytes) -> tuple[dict[Any, Any], list[str]]:
    """What Pillow finds, and what is damaged beyond what it reads past: EXIF of AVIF images."""
    for content, dropped in ((data, []), (heif.without_exif(data), ["damaged EXIF"])):
        try:
            with Image.open(io.BytesIO(content), formats=openable()) as image:
                return dict(image.info), dropped
        except DAMAGE:
            continue
    return {}, []


def _of_gif(data: bytes) -> Raw:
    raw, dropped = _of_pillow(data)
    return replace(raw, xmp=raw.xmp or xmp_of_gif(data)), dropped


def _of_bmp(data: bytes) -> Raw:
    raw, dropped = _of_pillow(data)
    return replace(raw, icc_profile=profile_of_bmp(data)), dropped


def _of_heif(data: bytes) -> Raw:
    """AVIF and HEIC, whose primaries and curve are told by a profile or, without one, by numbers that PNG has too."""
    raw, dropped = _of_pillow(data)
    numbers = heif.code_points(data)
    if numbers is None or raw.icc_profile is not None:
        return raw, dropped
    return replace(raw, colors=((b"cICP", bytes([*numbers, 0, 1])),)), dropped


_READERS: dict[str, Callable[[bytes], Raw]] = {
    "PNG": _of_png,
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "WEBP": _of_webp,
    "BMP": _of_bmp,
    "GIF": _of_gif,
    "AVIF": _of_heif,
    "HEIF": _of_heif,
}
