"""What WebP, GIF and BMP files say besides pixels, found.

Sources: the WebP container specification, Adobe's XMP part 3, Windows' BITMAPV5HEADER.
"""

import struct
from collections.abc import Iterator

_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"


def xmp_of_gif(data: bytes) -> bytes | None:
    """The XMP packet in an application extension of a GIF, where it ends with Adobe's magic trailer."""
    start = data.find(_GIF_XMP)
    end = data.find(b"\x01\xff\xfe\xfd", start)
    return data[start + len(_GIF_XMP) : end] if 0 <= start < end else None


def profile_of_bmp(data: bytes) -> bytes | None:
    """The colour profile in a BMP file of Windows' fifth header."""
    if len(data) < 14 + 124 or data[14:18] != struct.pack("<I", 124) or data[70:74] != b"DEBM":
        return None
    start, length = struct.unpack_from("<2I", data, 126)
    return data[14 + start : 14 + start + length] or None


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The whole chunks of a WebP file: (kind, content)."""
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > len(data):
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
