"""PNG files as the chunks that they consist of: what they say besides pixels, and files with other chunks.

Decoders get the chunks that make the pixels and no others, so that nothing else in a file can make it unreadable, or
change how it is read. Source: the PNG specification, third edition.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_LENGTH = len(SIGNATURE) + 25
GRAY, COLOR, PALETTE, GRAY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {GRAY: (1, 2, 4, 8, 16), COLOR: (8, 16), PALETTE: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), COLOR_ALPHA: (8, 16)}
_CHANNELS = {GRAY: 1, COLOR: 3, PALETTE: 3, GRAY_ALPHA: 2, COLOR_ALPHA: 4}
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_ANIMATION_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")

TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_MAX_PROFILE_BYTES = 2**26
# Other programs refuse files with longer texts: this is Pillow's limit.
_MAX_TEXT_BYTES = 2**20
# ImageMagick's old way to put EXIF, XMP and IPTC into texts, in hexadecimal.
_RAW_PROFILE = b"Raw profile type "
_RAW_EXIF_HEAD = b"Exif\0\0"


class Damaged(ValueError):
    """No PNG, or one whose chunks do not follow each other."""


Chunk = tuple[bytes, bytes]
"""Its kind, such as IDAT, and its content."""


@dataclass(frozen=True)
class PngHeader:
    """The first chunk, and what the others add to it."""

    width: int
    height: int
    depth: int
    """Bits per channel."""
    color: int
    """GRAY, COLOR, PALETTE, GRAY_ALPHA or COLOR_ALPHA."""
    transparent: bool = False
    """Whether one colour, or entries of the palette, are transparent."""
    exif: bytes | None = None
    frames: int = 1
    """Of an animation."""

    @property
    def channels(self) -> int:
        """Channels with what is transparent expanded to alpha."""
        return _CHANNELS[self.color] + self.transparent


def read_png_header(stream: IO[bytes]) -> PngHeader:
    """The header of a PNG; pixels are skipped. Raises Damaged."""
    if stream.read(len(SIGNATURE)) != SIGNATURE:
        raise Damaged("no PNG signature")
    header, transparent, exif, frames, entries = None, False, None, 1, 0
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if header is None:
            header = _parse_ihdr(kind, stream.read(length + 4) if length == 13 else b"")
        elif kind == b"IEND":
            break
        elif kind == b"PLTE":
            entries = length // 3
            stream.seek(length + 4, 1)
        elif kind in (b"tRNS", b"eXIf", b"acTL", b"tEXt", b"zTXt"):
            content = stream.read(length)
            stream.seek(4, 1)
            transparent = transparent or (kind == b"tRNS" and _says_transparent(header, length, entries))
            exif = content if kind == b"eXIf" else exif or _exif_in_text(kind, content)
            frames = int.from_bytes(content[:4], "big") if kind == b"acTL" and length == 8 else frames
        else:
            stream.seek(length + 4, 1)
    if header is None:
        raise Damaged("ends before its header")
    return PngHeader(header.width, header.height, header.depth, header.color, transparent, exif, max(frames, 1))


def _says_transparent(header: PngHeader, length: int, entries: int) -> bool:
    """Whether a chunk tRNS of that length means something, to libpng and here."""
    if header.color == PALETTE:
        return 0 < length <= entries
    return header.color in (GRAY, COLOR) and length >= 2 * _CHANNELS[header.color]


def _exif_in_text(kind: bytes, content: bytes) -> bytes | None:
    if not content.startswith(_RAW_PROFILE):
        return None
    keyword, text = keyword_and_text(kind, content)
    raw = None if text is None else raw_profile(keyword, text)
    return raw[1] if raw is not None and raw[0] == "exif" else None


def _parse_ihdr(kind: bytes, body: bytes) -> PngHeader:
    if kind != b"IHDR" or len(body) != 17 or zlib.crc32(kind + body[:13]) != int.from_bytes(body[13:], "big"):
        raise Damaged("its header chunk is damaged")
    width, height, depth, color, compression, filters, interlace = struct.unpack(">2I5B", body[:13])
    if not width or not height or depth not in _DEPTHS.get(color, ()) or compression or filters or interlace > 1:
        raise Damaged("its header chunk holds impossible values")
    return PngHeader(width, height, depth, color)


def chunks_of(data: bytes) -> Iterator[Chunk]:
    """All whole chunks of a file, in order."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IEND":
            return


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk as files hold it."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def only_pixels(data: bytes, color: int, animated: bool = False) -> bytes:
    """The same file without all that its pixels do not need; checksums stay as they are.

    A palette keeps its transparency, of which it is a part; with `animated` all frames stay.
    """
    wanted = {*_PIXEL_CHUNKS, *((b"tRNS",) if color == PALETTE else ()), *(_ANIMATION_CHUNKS if animated else ())}
    parts, position = [data[: len(SIGNATURE)]], len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in wanted:
            parts.append(data[position:end])
        position = end
        if kind == b"IEND":
            break
    return b"".join(parts)


def is_complete(data: bytes) -> bool:
    """Whether the file has its last chunk."""
    return data.rfind(b"IEND\xaeB`\x82") >= 0


def transparent_color(data: bytes, header: PngHeader) -> tuple[int, ...] | None:
    """The gray value or the R, G, B that a file declares transparent, on the scale of its decoded pixels."""
    if header.color not in (GRAY, COLOR):
        return None
    content = next((content for kind, content in chunks_of(data) if kind == b"tRNS"), None)
    size = 2 * _CHANNELS[header.color]
    if content is None or len(content) < size:
        return None
    values = struct.unpack(f">{size // 2}H", content[:size])
    # Depths below 8 are decoded to 8 bits.
    scale = 1 if header.depth >= 8 else 255 // (2**header.depth - 1)
    return tuple((value & (2**header.depth - 1)) * scale for value in values)


def inflate(data: bytes, limit: int = _MAX_PROFILE_BYTES) -> bytes | None:
    """zlib's data decompressed; None where they are damaged, cut or beyond the limit."""
    engine = zlib.decompressobj()
    try:
        text = engine.decompress(data, limit)
    except zlib.error:
        return None
    return text if engine.eof else None


def keyword_and_text(kind: bytes, content: bytes) -> tuple[bytes, bytes | None]:
    """A text chunk's keyword, and its text as bytes: None where it is damaged or too long for other programs."""
    keyword, _, rest = content.partition(b"\0")
    compressed = False
    if kind == b"zTXt":
        compressed, rest = True, rest[1:]
    elif kind == b"iTXt":
        compressed, parts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        rest = parts[2] if len(parts) == 3 else b""
    text = inflate(rest, _MAX_TEXT_BYTES + 1) if compressed else rest
    return keyword, text if text is None or len(text) <= _MAX_TEXT_BYTES else None


def raw_profile(keyword: bytes, text: bytes) -> tuple[str, bytes | None] | None:
    """("exif", block), ("xmp", packet), ("iptc", resources) or ("other", None) of ImageMagick's text; None for others.

    A line names it again, one has its length, and the digits follow.
    """
    if not keyword.startswith(_RAW_PROFILE):
        return None
    name, lines = keyword.removeprefix(_RAW_PROFILE), text.strip().split(b"\n", 2)
    try:
        content = bytes.fromhex(lines[2].decode("ascii")) if len(lines) == 3 else b""
    except ValueError:
        content = b""
    if name in (b"exif", b"APP1") and content.startswith(_RAW_EXIF_HEAD):
        return "exif", content.removeprefix(_RAW_EXIF_HEAD)
    if name in (b"iptc", b"8bim") and content:
        return "iptc", content
    return ("xmp", content) if name == b"xmp" and content else ("other", None)


def raw_iptc(resources: bytes) -> Chunk:
    """Photoshop's resources as the text that ImageMagick and others read."""
    digits = resources.hex().encode()
    lines = b"\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return b"zTXt", _RAW_PROFILE + b"iptc\0\0" + zlib.compress(b"\niptc\n%8d\n%s\n" % (len(resources), lines))


def with_chunks(data: bytes, before: Sequence[Chunk], after: Sequence[Chunk] = ()) -> bytes:
    """A PNG with more chunks: `before` right behind its header, `after` right before its end."""
    head, tail = data[:_HEADER_LENGTH], data[_HEADER_LENGTH:]
    end = tail.rfind(b"IEND") - 4
    added = [b"".join(chunk(kind, content) for kind, content in chunks) for chunks in (before, after)]
    return head + added[0] + tail[:end] + added[1] + tail[end:]
