"""TIFF's directories of tags, as TIFF files and EXIF blocks have them: read without trusting them, and written.

Nothing here interprets what it copies: a tag is its type, its count and its bytes, in the byte order of its file.
Sources: TIFF 6.0, the BigTIFF design, Exif 3.0.
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Literal

# Bytes of one value of each type: BYTE ASCII SHORT LONG RATIONAL SBYTE UNDEFINED SSHORT SLONG SRATIONAL FLOAT DOUBLE
# IFD, and BigTIFF's LONG8 SLONG8 IFD8.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7

EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
SUB_DIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY)

Order = Literal["<", ">"]

_MAX_DIRECTORIES = 2**14
_BEYOND_CLASSIC = 2**32 - 2**16


class Damaged(ValueError):
    """Not a directory of tags, or one that leads out of its file."""


@dataclass(frozen=True)
class Tag:
    """One entry of a directory."""

    kind: int
    """TIFF's number of the type."""
    count: int
    """Values of that type."""
    data: bytes
    """The values, in the byte order of the file."""

    def numbers(self, order: Order) -> tuple[int, ...]:
        """The values of an unsigned integer type; none for other types."""
        letter = _UNSIGNED.get(self.kind)
        return () if letter is None else struct.unpack(f"{order}{self.count}{letter}", self.data)


@dataclass(frozen=True)
class Directory:
    """The tags of one image, or of one part of an EXIF block. Tags that are damaged are left out."""

    order: Order
    """'<' little-endian, '>' big-endian."""
    start: int
    """Where it lies in its file."""
    tags: dict[int, Tag]
    spans: dict[int, tuple[int, int]]
    """Where each tag's values begin and end in the file."""

    def numbers(self, number: int) -> tuple[int, ...]:
        """The values of an unsigned integer tag; none where there is no such tag."""
        tag = self.tags.get(number)
        return () if tag is None else tag.numbers(self.order)

    def number(self, number: int, default: int) -> int:
        """The first value of an unsigned integer tag."""
        return next(iter(self.numbers(number)), default)

    def rational(self, number: int) -> float | None:
        """The value of an unsigned fraction; None where there is none, or none that is a number."""
        tag = self.tags.get(number)
        if tag is None or tag.kind != RATIONAL or tag.count < 1:
            return None
        above, below = struct.unpack_from(f"{self.order}2I", tag.data)
        return above / below if below else None


class Reader:
    """The directories of a TIFF file or an EXIF block (without its 'Exif' and two zeros).

    Raises Damaged if it does not begin as TIFF does.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.length = stream.seek(0, io.SEEK_END)
        head = self._read(0, min(16, self.length))
        orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
        if head[:2] not in orders or len(head) < 8:
            raise Damaged("no TIFF header")
        self.order = orders[head[:2]]
        magic = struct.unpack(f"{self.order}H", head[2:4])[0]
        if magic == 42:
            self.wide, self.first = False, struct.unpack(f"{self.order}I", head[4:8])[0]
        elif magic == 43 and len(head) == 16:
            self.wide, self.first = True, struct.unpack(f"{self.order}Q", head[8:16])[0]
        else:
            raise Damaged("no TIFF header")

    def _read(self, start: int, length: int) -> bytes:
        if start < 0 or length < 0 or start + length > self.length:
            raise Damaged("leads out of the file")
        self.stream.seek(start)
        return self.stream.read(length)

    def table(self, start: int) -> tuple[int, int, int]:
        """(start of the first entry, bytes of an entry, number of entries) of the directory at `start`."""
        if self.wide:
            return start + 8, 20, struct.unpack(f"{self.order}Q", self._read(start, 8))[0]
        return start + 2, 12, struct.unpack(f"{self.order}H", self._read(start, 2))[0]

    def directory(self, start: int) -> tuple[Directory, int]:
        """The directory at `start`, and where the next one lies (0: nowhere)."""
        first, size, count = self.table(start)
        entries = self._read(first, size * count)
        tags: dict[int, Tag] = {}
        spans: dict[int, tuple[int, int]] = {}
        for position in range(0, len(entries), size):
            found = self._entry(entries[position : position + size], first + position)
            if found is not None:
                number, tag, span = found
                tags.setdefault(number, tag)
                spans.setdefault(number, span)
        try:
            following = self._offset(self._read(first + size * count, 8 if self.wide else 4))
        except Damaged:  # blocks that end with their last entry
            following = 0
        return Directory(self.order, start, tags, spans), following

    def _offset(self, data: bytes) -> int:
        return int(struct.unpack(f"{self.order}{'Q' if self.wide else 'I'}", data)[0])

    def _entry(self, entry: bytes, place: int) -> tuple[int, Tag, tuple[int, int]] | None:
        """(number, tag, span) of one entry; None for one of an unknown type or with values outside of the file."""
        number, kind, count = struct.unpack_from(f"{self.order}HH{'Q' if self.wide else 'I'}", entry)
        field = 12 if self.wide else 8
        if kind not in _SIZES:
            return None
        length = _SIZES[kind] * count
        start = place + field if length <= len(entry) - field else self._offset(entry[field:])
        try:
            data = self._read(start, length)
        except Damaged:
            return None
        return number, Tag(kind, count, data), (start, start + length)

    def chain(self) -> Iterator[Directory]:
        """The directories of the images of a TIFF file, in order; circles end the chain."""
        start = self.first
        seen: set[int] = set()
        while start and start not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(start)
            directory, start = self.directory(start)
            yield directory


Tags = Mapping[int, Tag]


@dataclass(frozen=True)
class Page:
    """One image of a TIFF file to be written: its tags, those of its sub-directories, and its pixels."""

    tags: Tags
    parts: Mapping[int, Tags]
    """Those of EXIF_DIRECTORY and GPS_DIRECTORY, where there are any."""
    strips: Sequence[bytes] = ()


_STRIP_OFFSETS, _STRIP_LENGTHS = 273, 279


def build(pages: Sequence[Page], order: Order = "<") -> bytes:
    """A TIFF file, or an EXIF block if there is one page without strips. BigTIFF where 4 GiB do not suffice."""
    wide = sum(len(strip) for page in pages for strip in page.strips) > _BEYOND_CLASSIC
    magic = b"II" if order == "<" else b"MM"
    if wide:
        out = bytearray(magic + struct.pack(f"{order}HHHQ", 43, 8, 0, 16))
    else:
        out = bytearray(magic + struct.pack(f"{order}HI", 42, 8))
    link = 8 if wide else 4
    for page in pages:
        tags = dict(page.tags)
        if page.strips:
            tags |= _strip_tags(page.strips, out, order, wide)
        for number, part in page.parts.items():
            tags[number] = number_tag(16 if wide else LONG, [_append(out, part, order, wide)[0]], order)
        start, following = _append(out, tags, order, wide)
        struct.pack_into(f"{order}{'Q' if wide else 'I'}", out, link, start)
        link = following
    return bytes(out)


def number_tag(kind: int, values: Sequence[int], order: Order) -> Tag:
    """A tag of SHORTs (3), LONGs (4), BYTEs (1) or LONG8s (16)."""
    return Tag(kind, len(values), struct.pack(f"{order}{len(values)}{_UNSIGNED[kind]}", *values))


def fraction_tag(value: float, order: Order) -> Tag:
    """A RATIONAL with four digits behind the point."""
    below = 1 if value == int(value) else 10_000
    return Tag(RATIONAL, 1, struct.pack(f"{order}2I", round(value * below), below))


def _strip_tags(strips: Sequence[bytes], out: bytearray, order: Order, wide: bool) -> dict[int, Tag]:
    """Append the pixels; returns the tags that say where they are."""
    starts = []
    for strip in strips:
        starts.append(len(out))
        out += strip
    kind = 16 if wide else LONG
    return {
        _STRIP_OFFSETS: number_tag(kind, starts, order),
        _STRIP_LENGTHS: number_tag(kind, [len(strip) for strip in strips], order),
    }


def _append(out: bytearray, tags: Tags, order: Order, wide: bool) -> tuple[int, int]:
    """Append a directory and the values that its entries have no room for; returns its place and that of its link."""
    count, offset = ("Q", "Q") if wide else ("H", "I")
    room = 8 if wide else 4
    entries = []
    for number, tag in sorted(tags.items()):
        if len(tag.data) <= room:
            field = tag.data.ljust(room, b"\0")
        else:
            out += b"\0" * (len(out) % 2)
            field = struct.pack(f"{order}{offset}", len(out))
            out += tag.data
        entries.append(struct.pack(f"{order}HH{offset}", number, tag.kind, tag.count) + field)
    out += b"\0" * (len(out) % 2)
    start = len(out)
    out += struct.pack(f"{order}{count}", len(entries)) + b"".join(entries)
    link = len(out)
    out += bytes(room)
    return start, link
