"""AVIF and HEIC files as the boxes that they consist of: what they say of their colours, and files without EXIF.

Sources: ISO/IEC 14496-12 (boxes) and 23008-12 (items and their properties), the AV1 image file format, ITU-T H.273.
"""

import struct
from collections.abc import Iterator

Span = tuple[int, int]
"""Where the content of a box begins and ends."""

_FULL_BOX = 4
_SDR_CURVES = (1, 2, 6, 14, 15)  # unspecified, or those of video: viewers take sRGB's
_SRGB = (1, 13)
_UNSPECIFIED = 2
_HIGH_BITDEPTH = 0x40


def is_avif(data: bytes) -> bool:
    """Whether these are the first bytes of an AVIF image or animation."""
    return data[4:12] in (b"ftypavif", b"ftypavis")


def _boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """(kind, content) of the boxes in a part of a file; one that leads out of it ends them."""
    position, end = span
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1 and position + 16 <= end:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif length == 0:
            length = end - position
        if length < head or position + length > end:
            return
        yield kind, (position + head, position + length)
        position += length


def _inside(data: bytes, *path: bytes) -> Iterator[tuple[bytes, Span]]:
    """The boxes in the first of each kind along `path`, from the whole file on."""
    span = 0, len(data)
    for kind in path:
        found = next((content for each, content in _boxes(data, span) if each == kind), None)
        if found is None:
            return
        span = (found[0] + _FULL_BOX, found[1]) if kind == b"meta" else found
    yield from _boxes(data, span)


def without_exif(data: bytes) -> bytes:
    """The same file with EXIF under a name that decoders pass over: libavif refuses images for damaged EXIF."""
    out = bytearray(data)
    for kind, (start, end) in _inside(data, b"meta"):
        if kind != b"iinf":
            continue
        count_bytes = 2 if data[start : start + 1] == b"\0" else 4
        for entry, (first, last) in _boxes(data, (start + _FULL_BOX + count_bytes, end)):
            # Version 2 has item numbers of two bytes, version 3 of four; a protection index follows.
            place = first + _FULL_BOX + (2 if data[first : first + 1] == b"\2" else 4) + 2
            if entry == b"infe" and place + 4 <= last and data[place : place + 4] == b"Exif":
                out[place : place + 4] = b"skip"
    return bytes(out)


def code_points(data: bytes) -> tuple[int, int] | None:
    """H.273's numbers of primaries and curve of the pixels, if they are not sRGB's."""
    for kind, (start, end) in _inside(data, b"meta", b"iprp", b"ipco"):
        if kind == b"colr" and data[start : start + 4] == b"nclx" and end - start >= 8:
            primaries, curve = struct.unpack_from(">HH", data, start + 4)
            primaries = _SRGB[0] if primaries == _UNSPECIFIED else primaries
            curve = _SRGB[1] if curve in _SDR_CURVES else curve
            return None if (primaries, curve) == _SRGB or max(primaries, curve) > 255 else (primaries, curve)
    return None


def is_deep_avif(data: bytes) -> bool:
    """Whether an AVIF image has more than 8 bits per channel."""
    for kind, (start, end) in _inside(data, b"meta", b"iprp", b"ipco"):
        if kind == b"av1C" and end - start >= 4:
            return bool(data[start + 2] & _HIGH_BITDEPTH)
    return False
