"""The parts of JPEG and WebP files that are not pixels, found and added.

Sources: ITU-T T.81 and T.871 (JFIF), Exif 3.0, Adobe's XMP part 3, the WebP container specification.
"""

import struct
from collections.abc import Iterator, Sequence

EXIF_HEAD, XMP_HEAD, ICC_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_PHOTOSHOP_HEAD = b"Photoshop 3.0\0"
APP0, APP1, APP2, APP13, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_IPTC_RESOURCE = 0x0404
_START_OF_SCAN, _PADDING = 0xDA, 0xFF
_FRAMES = {0xC0 + number for number in range(16)} - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENT = 65533

Segment = tuple[int, bytes]
"""Marker, such as APP1, and content."""


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The segments before a JPEG's compressed pixels, the start of which ends the walk."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _PADDING:
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        if marker == _START_OF_SCAN:
            return
        position += 2 + max(length, 2)


def jpeg_is_complete(data: bytes) -> bool:
    """Whether a JPEG's compressed pixels are followed by the end marker (an EXIF thumbnail's own does not count)."""
    position = 2
    for marker, content in jpeg_segments(data):
        if marker == _START_OF_SCAN:  # byte stuffing keeps 0xFFD9 out of the compressed data that follows
            return data.find(b"\xff\xd9", position) >= 0
        position += 4 + len(content)
    return False


def jpeg_precision(data: bytes) -> int:
    """Bits per channel; 8 where the file does not say."""
    return next((content[0] for marker, content in jpeg_segments(data) if marker in _FRAMES and content), 8)


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
        if marker == APP0 and content.startswith(b"JFIF\0") and len(content) >= 12:
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
    resource = struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return APP13, _PHOTOSHOP_HEAD + resource


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
        added += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    start = 2
    if data[2:4] == b"\xff\xe0":
        start += 2 + int.from_bytes(data[4:6], "big")
    return data[:start] + added + data[start:]


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole chunks of a WebP file: (kind, content)."""
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > len(data):
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
