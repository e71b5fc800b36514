"""PBM, PGM and PPM files. What they hold goes up to the largest value that their header names, 255 or not.

Source: Netpbm's descriptions of the formats P1 to P6.
"""

import re
from dataclasses import dataclass

import numpy as np

_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([0-9]+)(?=[\s#])")
_CHANNELS = {b"1": 1, b"2": 1, b"3": 3, b"4": 1, b"5": 1, b"6": 3}
_BITMAPS, _AS_TEXT = (b"1", b"4"), (b"1", b"2", b"3")
HEADER_BYTES = 2**16
"""More than any header takes, long comments included."""


class Damaged(ValueError):
    """No file of these formats, or one that is cut or holds impossible values."""


@dataclass(frozen=True)
class PnmHeader:
    """What stands before the pixels."""

    kind: bytes
    """The digit after the P."""
    width: int
    height: int
    largest: int
    """The value of white, 1 to 65535."""
    start: int
    """Where the pixels begin."""

    @property
    def channels(self) -> int:
        """1 or 3."""
        return _CHANNELS[self.kind]


def is_pnm(data: bytes) -> bool:
    """Whether these are the first bytes of such a file."""
    return data[:1] == b"P" and data[1:2] in _CHANNELS and data[2:3] in (b" ", b"\t", b"\n", b"\r", b"#")


def read_pnm_header(data: bytes) -> PnmHeader:
    """The header of a file from its first bytes. Raises Damaged."""
    kind, position, numbers = data[1:2], 2, []
    for _ in range(2 if kind in _BITMAPS else 3):
        match = _TOKEN.match(data, position)
        if match is None or len(match[1]) > 10:
            raise Damaged("its header is damaged")
        numbers.append(int(match[1]))
        position = match.end()
    width, height, largest = (*numbers, 1)[:3]
    if not width or not height or not 1 <= largest <= 65535:
        raise Damaged("its header holds impossible values")
    return PnmHeader(kind, width, height, largest, position + 1)


def decode_pnm(data: bytes) -> np.ndarray:
    """The first image, (H, W, 1) or (H, W, 3): uint8 where its largest value fits, else uint16, white at their end."""
    header = read_pnm_header(data)
    shape = (header.height, header.width, header.channels)
    values = _text_values(data, header) if header.kind in _AS_TEXT else _binary_values(data, header)
    values = values.reshape(shape)
    if header.kind in _BITMAPS:
        return np.where(values, np.uint8(0), np.uint8(255))
    dtype, white = (np.uint8, 255) if header.largest <= 255 else (np.uint16, 65535)
    if header.largest == white:
        return values.astype(dtype)
    clipped = np.minimum(values, header.largest).astype(np.float64)
    return np.rint(clipped * (white / header.largest)).astype(dtype)


def _binary_values(data: bytes, header: PnmHeader) -> np.ndarray:
    if header.kind in _BITMAPS:
        row_bytes = (header.width + 7) // 8
        packed = _take(data, header.start, np.dtype(np.uint8), header.height * row_bytes)
        bits = np.unpackbits(packed.reshape(header.height, row_bytes), axis=1)
        return bits[:, : header.width]
    dtype = np.dtype(np.uint8) if header.largest <= 255 else np.dtype(">u2")
    return _take(data, header.start, dtype, header.height * header.width * header.channels)


def _take(data: bytes, start: int, dtype: np.dtype, count: int) -> np.ndarray:
    length = count * dtype.itemsize
    if len(data) - start < length:
        raise Damaged("truncated")
    if data[start - 1 : start + 1] == b"\r\n" and len(data) == start + 1 + length:
        start += 1  # Windows' end of a line, in a file that would be a byte too long with one of one byte
    return np.frombuffer(data, dtype, count, start)


def _text_values(data: bytes, header: PnmHeader) -> np.ndarray:
    body = re.sub(rb"#[^\n\r]*", b"", data[header.start - 1 :])
    # The digits of bitmaps may follow each other without spaces.
    words = re.findall(rb"[01]", body) if header.kind == b"1" else body.split()
    count = header.height * header.width * header.channels
    if len(words) < count or not all(word.isdigit() and len(word) <= 5 for word in words[:count]):
        raise Damaged("truncated, or its values are no numbers")
    return np.array(words[:count], dtype=np.int64)
