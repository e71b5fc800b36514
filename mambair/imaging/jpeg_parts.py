"""JPEG files as the segments that they consist of: what is not pixels, found and added, and pixels without it.

Sources: ITU-T T.81 and T.871 (JFIF), Exif 3.0, CIPA DC-007 (several pictures), Adobe's XMP part 3.
"""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from mambair.imaging.ifd import Damaged, Reader

EXIF_HEAD, XMP_HEAD, ICC_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
LONG_XMP_HEAD = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP_HEAD, _MPF_HEAD, _JFIF_HEAD = b"Photoshop 3.0\0", b"MPF\0", b"JFIF\0"
APP0, APP1, APP2, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_IPTC_RESOURCE, _IPTC_RECORD = 0x0404, b"\x1c"
_MPF_NUMBER = 0xB001
_START_OF_SCAN, _END, _PADDING = 0xDA, 0xD9, b"\xff"
_WITHOUT_CONTENT = {0x00, 0x01, *range(0xD0, 0xD9)}
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_PLAIN_JFIF = _JFIF_HEAD + bytes([1, 1, 0, 0, 1, 0, 1, 0, 0])
_MOST_STRAY_BYTES = 2**16
_FRAMES = {0xC0 + number for number in range(16)} - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENT = 65533

Segment = tuple[int, bytes]
"""Marker, such as APP1, and content."""


@dataclass(frozen=True)
class JpegHeader:
    """What stands before a JPEG's compressed pixels."""

    height: int
    """Rows as they are stored."""
    width: int
    components: int
    """1 gray, 3 colour, 4 CMYK."""
    precision: int
    """Bits per channel."""
    exif: bytes = b""
    images: int = 1
    """In the file, by its index of several (gain maps, previews, other views)."""


def _parts(stream: IO[bytes]) -> Iterator[tuple[int, bytes, int]]:
    """(marker, content, where the marker begins) of the segments before the pixels, the start of which ends the walk.

    What lies between segments, and is none, is passed over, as libjpeg does.
    """
    position = stream.seek(2)
    end_of_strays = position + _MOST_STRAY_BYTES
    while position < end_of_strays:
        first, marker = stream.read(1), b""
        position += 1
        if first != _PADDING:
            if not first:
                return
            continue
        while (marker := stream.read(1)) == _PADDING:
            position += 1
        position += 1
        if not marker or marker[0] == _END:
            return
        if marker[0] in _WITHOUT_CONTENT:
            continue
        length = int.from_bytes(stream.read(2), "big")
        content = stream.read(max(length, 2) - 2)
        yield marker[0], content, position - 2
        if marker[0] == _START_OF_SCAN:
            return
        position += 2 + len(content)
        end_of_strays = position + _MOST_STRAY_BYTES


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The segments before a JPEG's compressed pixels, the start of which ends the walk."""
    yield from ((marker, content) for marker, content, _ in _parts(io.BytesIO(data)))


def read_jpeg_header(stream: IO[bytes]) -> JpegHeader | None:
    """The header of a JPEG; None where there is none. The pixels are not read, and nothing else decides."""
    frame, exif, images = b"", b"", 1
    for marker, content, _ in _parts(stream):
        if marker in _FRAMES and len(content) >= 6:
            frame = frame or content
        elif marker == APP1 and content.startswith(EXIF_HEAD):
            exif = exif or content.removeprefix(EXIF_HEAD)
        elif marker == APP2 and content.startswith(_MPF_HEAD):
            images = max(images, _images_of_index(content.removeprefix(_MPF_HEAD)))
    if not frame:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", frame)
    return JpegHeader(height, width, components, precision, exif, images)


def _images_of_index(block: bytes) -> int:
    """How many images a file holds by its multi-picture index; 1 where that is damaged."""
    try:
        reader = Reader(io.BytesIO(block))
        return reader.directory(reader.first)[0].number(_MPF_NUMBER, 1)
    except Damaged:
        return 1


def only_jpeg_pixels(data: bytes) -> bytes:
    """The same file without all that its pixels do not need: decoders stumble over damaged metadata.

    Left is what tells how the colours are coded: Adobe's segment, and that there is one of JFIF.
    """
    parts = [data[:2]]
    for marker, content, start in _parts(io.BytesIO(data)):
        if marker == _START_OF_SCAN:
            parts.append(data[start:])
        elif marker == APP0 and content.startswith(_JFIF_HEAD) and len(content) >= len(_PLAIN_JFIF):
            parts.append(_segment(APP0, _PLAIN_JFIF))
        elif not APP0 <= marker <= COMMENT or (marker == APP14 and content[:5] == b"Adobe" and len(content) >= 12):
            parts.append(_segment(marker, content))
    return b"".join(parts)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_is_complete(data: bytes) -> bool:
    """Whether a JPEG's compressed pixels are followed by the end marker (an EXIF thumbnail's own does not count)."""
    start = _start_of_pixels(data)
    return start is not None and data.find(b"\xff\xd9", start) >= 0


def _start_of_pixels(data: bytes) -> int | None:
    starts = (start for marker, _, start in _parts(io.BytesIO(data)) if marker == _START_OF_SCAN)
    return next(starts, None)


def behind_jpeg(data: bytes) -> bytes:
    """What follows the picture in its file: further pictures, the film of a motion photo, or nothing."""
    position = _start_of_pixels(data)
    # Byte stuffing keeps markers out of compressed data; between the scans of one picture lie segments.
    while position is not None and (found := _MARKER.search(data, position)) is not None:
        if data[found.start() + 1] == _END:
            return data[found.end() :]
        position = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2], "big"), 2)
    return b""


def jpeg_precision(data: bytes) -> int:
    """Bits per channel; 8 where the file does not say."""
    header = read_jpeg_header(io.BytesIO(data))
    return 8 if header is None else header.precision


def icc_of_jpeg(segments: Sequence[Segment]) -> bytes | None:
    """The colour profile, put together from its numbered parts; None if there is none, or a part is missing."""
    parts = {
        content[len(ICC_HEAD)]: content[len(ICC_HEAD) + 2 :]
        for marker, content in segments
        if marker == APP2 and content.startswith(ICC_HEAD) and len(content) > len(ICC_HEAD) + 2
    }
    if not parts or sorted(parts) != [*range(1, len(parts) + 1)]:
        return None
    return b"".join(parts[number] for number in sorted(parts))


def iptc_of_jpeg(segments: Sequence[Segment]) -> bytes | None:
    """The IPTC records (caption, keywords, byline) among Photoshop's resources."""
    content = b"".join(
        content.removeprefix(_PHOTOSHOP_HEAD)
        for marker, content in segments
        if marker == APP13 and content.startswith(_PHOTOSHOP_HEAD)
    )
    return iptc_of_resources(content)


def iptc_of_resources(content: bytes) -> bytes | None:
    """The IPTC records among Photoshop's resources, or these themselves, where they stand alone."""
    if content.startswith(_IPTC_RECORD):
        return content
    position = 0
    while content[position : position + 4] == b"8BIM" and position + 7 <= len(content):
        number = int.from_bytes(content[position + 4 : position + 6], "big")
        start = position + 6 + (content[position + 6] + 2) // 2 * 2
        length = int.from_bytes(content[start : start + 4], "big")
        if number == _IPTC_RESOURCE:
            return content[start + 4 : start + 4 + length] or None
        position = start + 4 + (length + 1) // 2 * 2
    return None


def jfif_resolution(segments: Sequence[Segment]) -> tuple[float, float] | None:
    """Pixels per inch, across and down, that the JFIF segment states."""
    for marker, content in segments:
        if marker == APP0 and content.startswith(_JFIF_HEAD) and len(content) >= 12:
            unit, across, down = struct.unpack_from(">BHH", content, 7)
            factor = {1: 1.0, 2: 2.54}.get(unit)
            return (across * factor, down * factor) if factor and across and down else None
    return None


def exif_segment(block: bytes) -> Segment:
    """The EXIF block as a segment."""
    return APP1, EXIF_HEAD + block


def xmp_segment(xmp: bytes) -> Segment:
    """XMP as a segment."""
    return APP1, XMP_HEAD + xmp


def iptc_segment(iptc: bytes) -> Segment:
    """IPTC records as a Photoshop segment of one resource."""
    return APP13, _PHOTOSHOP_HEAD + iptc_resource(iptc)


def iptc_resource(iptc: bytes) -> bytes:
    """IPTC records as one of Photoshop's resources."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def icc_segments(profile: bytes) -> list[Segment]:
    """A colour profile in as many segments as it needs, 255 at most."""
    room = _MAX_SEGMENT - len(ICC_HEAD) - 2
    pieces = [profile[start : start + room] for start in range(0, len(profile), room)]
    if len(pieces) > 255:
        raise ValueError("the profile is larger than JPEG can hold")
    return [(APP2, ICC_HEAD + bytes([number, len(pieces)]) + piece) for number, piece in enumerate(pieces, 1)]


def with_segments(data: bytes, segments: Sequence[Segment]) -> bytes:
    """A JPEG with more segments, behind the JFIF segment if it has one. ValueError for one that is too long."""
    added = b""
    for marker, content in segments:
        if len(content) > _MAX_SEGMENT:
            raise ValueError("more than 64 KB, which a JPEG segment cannot hold")
        added += _segment(marker, content)
    start = 2
    if data[2:4] == b"\xff\xe0":
        start += 2 + int.from_bytes(data[4:6], "big")
    return data[:start] + added + data[start:]
