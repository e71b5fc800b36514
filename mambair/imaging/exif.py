"""EXIF blocks without what restoring makes untrue, and without what could tell a reader how pixels lie in a file.

What is kept stands in lists of tags that are known to be safe; their bytes are copied, not interpreted. Numbers of tags
are those of Exif 3.0 and TIFF 6.0.
"""

import io
import struct
from collections.abc import Mapping, Set

from mambair.imaging.ifd import (
    ASCII,
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    SHORT,
    Damaged,
    Directory,
    Order,
    Page,
    Reader,
    Tag,
    Tags,
    build,
    fraction_tag,
    number_tag,
)

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
INCH, CENTIMETRE = 2, 3
_UNITS = (1, INCH, CENTIMETRE)
MAKER_NOTE = 0x927C
_COLOR_SPACE = 0xA001

# Description, make, model, resolution, software, date, artist, computer, rating, copyright, Windows' title to subject.
_DESCRIPTION_TAGS = frozenset(
    {270, 271, 272, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, 305, 306, 315, 316, 18246, 18249, 33432}
) | frozenset(range(40091, 40096))
# Exposure to sensitivity, version to sub-second times and weather, colour space, what the sensor, lens and scene were.
# Not among them: the dimensions (0xA002, 0xA003), the sound file, the pointer to what Interoperability was.
_PHOTO_TAGS = frozenset(
    {0x829A, 0x829D, *range(0x8822, 0x8836), *range(0x9000, 0x9410), 0xA000, _COLOR_SPACE, *range(0xA20B, 0xA502)}
)
_DESCRIPTION = 270
# How TIFF libraries describe the shape of an image in its description: untrue of the result, and believed.
_SHAPES = (b'{"shape"', b"ImageJ=", b"<?xml", b"<OME")
_GPS_TAGS = frozenset(range(32))
_SAFE = {EXIF_DIRECTORY: _PHOTO_TAGS, GPS_DIRECTORY: _GPS_TAGS}


def orientation_of(block: bytes) -> int:
    """The orientation, 1 to 8, that an EXIF block asks for; 1 where it asks for none or is damaged."""
    try:
        reader = Reader(io.BytesIO(block))
        directory, _ = reader.directory(reader.first)
    except Damaged:
        return 1
    return orientation_in(directory)


def orientation_in(directory: Directory) -> int:
    """The orientation, 1 to 8, that a directory of tags asks for; 1 where it asks for none."""
    found = directory.number(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def resolution_in(directory: Directory) -> tuple[float, float] | None:
    """Pixels per inch, across and down; None where they are not stated."""
    across, down = directory.rational(X_RESOLUTION), directory.rational(Y_RESOLUTION)
    unit = directory.number(RESOLUTION_UNIT, INCH)
    if not across or not down or unit not in (INCH, CENTIMETRE):
        return None
    factor = 2.54 if unit == CENTIMETRE else 1.0
    return across * factor, down * factor


def resolution_of(block: bytes) -> tuple[float, float] | None:
    """Pixels per inch that an EXIF block states; None where it states none or is damaged."""
    try:
        reader = Reader(io.BytesIO(block))
        return resolution_in(reader.directory(reader.first)[0])
    except Damaged:
        return None


def upright_block(block: bytes, converted: bool = False) -> bytes | None:
    """An EXIF block with the safe tags only; None if none are left, or the block is damaged.

    Entries are taken out of their tables and the rest stays where it is, since makers' notes hold offsets into the
    block. The thumbnail, which shows the image as it was, is cut off. `converted`: the colours are sRGB now.
    """
    try:
        reader = Reader(io.BytesIO(block))
        main, _ = reader.directory(reader.first)
        out, end, pointers = bytearray(block), 8, set()
        for number, safe in _SAFE.items():
            start = main.number(number, 0)
            left = safe - {_COLOR_SPACE} if converted else safe
            try:
                part = reader.directory(start)[0] if start else None
                if part is not None and not left.isdisjoint(part.tags):
                    pointers.add(number)
                    end = max(end, _rewrite(out, reader, part, left))
            except Damaged:
                pointers.discard(number)
        kept = _safe_descriptions(main) | pointers
        end = max(end, _rewrite(out, reader, main, kept))
    except Damaged:
        return None
    return bytes(out[:end]) if kept else None


def is_damaged(block: bytes) -> bool:
    """Whether a block has no table of tags that can be read."""
    try:
        reader = Reader(io.BytesIO(block))
        reader.directory(reader.first)
    except Damaged:
        return True
    return False


def _rewrite(out: bytearray, reader: Reader, directory: Directory, left: Set[int]) -> int:
    """Leave only the tags `left` in a table, and no next one; returns where it and what it refers to end."""
    if reader.wide:
        raise Damaged("EXIF blocks are not BigTIFF")
    first, size, count = reader.table(directory.start)
    entries: dict[int, bytes] = {}
    for position in range(first, first + size * count, size):
        entry = bytes(out[position : position + size])
        number = struct.unpack_from(f"{reader.order}H", entry)[0]
        if number in left and number in directory.tags:
            entries.setdefault(number, entry)
    body = b"".join(entries.values()) + bytes(4)
    struct.pack_into(f"{reader.order}H", out, directory.start, len(entries))
    out[first : first + len(body)] = body
    return max(first + len(body), *(directory.spans[number][1] for number in entries), 0)


def _safe_descriptions(directory: Directory) -> set[int]:
    """The safe tags among those of an image."""
    safe = directory.tags.keys() & _DESCRIPTION_TAGS
    if _DESCRIPTION in safe and directory.tags[_DESCRIPTION].data.startswith(_SHAPES):
        safe.remove(_DESCRIPTION)
    return safe


def page_tags(block: bytes | None) -> tuple[Order, Tags, Mapping[int, Tags]]:
    """(byte order, tags, sub-directories) of a safe EXIF block, for a TIFF file: makers' notes would not survive."""
    if block is None:
        return "<", {}, {}
    reader = Reader(io.BytesIO(block))
    main, _ = reader.directory(reader.first)
    tags = {number: tag for number, tag in main.tags.items() if number in _DESCRIPTION_TAGS}
    if main.number(RESOLUTION_UNIT, INCH) not in _UNITS:  # libtiff complains of it each time the file is opened
        del tags[RESOLUTION_UNIT]
    parts = {}
    for number in _SAFE:
        start = main.number(number, 0)
        if start:
            part = reader.directory(start)[0].tags
            parts[number] = {tag: value for tag, value in part.items() if tag != MAKER_NOTE}
    return reader.order, tags, parts


def has_maker_note(block: bytes) -> bool:
    """Whether a safe block holds a maker's note."""
    reader = Reader(io.BytesIO(block))
    start = reader.directory(reader.first)[0].number(EXIF_DIRECTORY, 0)
    return bool(start) and MAKER_NOTE in reader.directory(start)[0].tags


def block_of_tiff(reader: Reader, directory: Directory) -> bytes | None:
    """The safe tags of one image of a TIFF file, and those of its EXIF and GPS directories, as an EXIF block."""
    tags = {number: directory.tags[number] for number in _safe_descriptions(directory)}
    parts = {}
    for number, safe in _SAFE.items():
        start = directory.number(number, 0)
        try:
            part = reader.directory(start)[0].tags if start else {}
        except Damaged:
            continue
        part = {tag: value for tag, value in part.items() if tag in safe}
        if part:
            parts[number] = part
    says_more = parts or not tags.keys() <= {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
    return build([Page(tags, parts)], directory.order) if says_more else None


def resolution_tags(resolution: tuple[float, float], order: Order) -> dict[int, Tag]:
    """The three tags for pixels per inch, across and down."""
    return {
        X_RESOLUTION: fraction_tag(resolution[0], order),
        Y_RESOLUTION: fraction_tag(resolution[1], order),
        RESOLUTION_UNIT: number_tag(SHORT, [INCH], order),
    }


def text_tag(text: str) -> Tag:
    """A tag that holds text, as UTF-8."""
    data = text.encode("utf-8", "replace") + b"\0"
    return Tag(ASCII, len(data), data)


def block_of_resolution(resolution: tuple[float, float]) -> bytes:
    """A block that states pixels per inch and nothing else, for file types that state them nowhere else."""
    return build([Page(resolution_tags(resolution, "<"), {})])
