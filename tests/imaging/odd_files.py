"""Files that libraries do not write by themselves: PNG from its chunks, TIFF from its tags."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from mambair.imaging.ifd import LONG, SHORT, Page, Tag, build, number_tag

GRAY, COLOR, PALETTE, GRAY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6


def picture(channels: int, depth: int = 8, height: int = 11, width: int = 13) -> np.ndarray:
    """(H, W, C) of values from 0 to 2**depth - 1, smooth, the same in every run; alpha reaches 0 and its largest."""
    white = 2**depth - 1
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [(rows * (2 + c) + columns * (3 - c)) / (height * 2 + width * 3 + c) for c in range(4)]
    alpha = columns / (width - 1)
    chosen = [*planes[: channels - 1], alpha] if channels in (2, 4) else planes[:channels]
    return np.rint(np.stack(chosen, axis=2) * white).astype(np.uint8 if depth <= 8 else np.uint16)


def png(values: np.ndarray, depth: int, color: int, before: Sequence = (), after: Sequence = ()) -> bytes:
    """A PNG of stored values (H, W, C), with other chunks before and after its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + packed(row.ravel(), depth) for row in values)
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, color, 0, 0, 0))
    others = [b"".join(chunk(*each) for each in chunks) for chunks in (before, after)]
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + others[0] + body + others[1] + chunk(b"IEND", b"")


def packed(values: np.ndarray, bits: int) -> bytes:
    """Values of any number of bits one after the other, the highest bit first."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits(((values.astype(np.uint32)[:, None] >> places) & 1).astype(np.uint8)).tobytes()


def exif(orientation: int, more: dict[int, Tag] | None = None) -> bytes:
    """An EXIF block."""
    return build([Page({274: number_tag(SHORT, [orientation], "<"), **(more or {})}, {})])


def tiff(
    values: np.ndarray,
    bits: int,
    photometric: int,
    more: dict[int, Sequence[int]] | None = None,
    others: dict[int, Tag] | None = None,
) -> bytes:
    """A TIFF of stored values (H, W, S) in one strip, little-endian, with more SHORT tags, and others."""
    height, width, samples = values.shape
    if bits in (8, 16):
        strip = values.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    else:
        strip = b"".join(packed(row.ravel(), bits) for row in values)
    tags = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric], 277: [samples]}
    tags |= {278: [height], 284: [1]} | dict(more or {})
    page = {number: number_tag(LONG if number in (256, 257) else SHORT, each, "<") for number, each in tags.items()}
    return build([Page({**page, **(others or {})}, {}, [strip])])
