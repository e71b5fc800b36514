"""TIFF files: what their tags say of pixels, and pixels of more than 8 bits per channel.

8 bits and fewer are Pillow's, where it knows the compression; for more it has no colours. Both follow the same rules:
white is the largest value whatever the photometric tag calls zero, colours are divided by an associated alpha, CIE
L*a*b* becomes sRGB, values of 9 to 15 bits are spread over 16.
"""

import io
import lzma
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import cv2
import numpy as np
import tifffile

from mambair.errors import UserError
from mambair.imaging.exif import ORIENTATION, orientation_in
from mambair.imaging.ifd import Damaged, Directory, Reader
from mambair.imaging.names import printable
from mambair.imaging.pixels import to_uint8, unassociated
from mambair.imaging.profiles import lab_to_rgb

_DAMAGES = (
    ValueError, OSError, RuntimeError, LookupError, ImportError, TypeError, OverflowError,
    zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 278, 284, 317, 338, 339
STRIP_OFFSETS, STRIP_LENGTHS = 273, 279
ICC_PROFILE = 34675
_REDUCED, _MASK = 1, 4
_SEPARATE = 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 3, CMYK: 3, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
_INKS = {CMYK: 4, PALETTE: 1}
_NO_COMPRESSION, _DEFLATES = 1, (8, 32946)
_NAMES = {CMYK: "CMYK", YCBCR: "YCbCr", PALETTE: "a palette"}

Alpha = Literal["none", "straight", "premultiplied"]


@dataclass(frozen=True)
class TiffPage:
    """One image of a TIFF file, by its tags."""

    reader: Reader
    directory: Directory
    number: int
    """Its place among all directories of the file."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns as they are stored."""
        return self.directory.number(HEIGHT, 0), self.directory.number(WIDTH, 0)

    @property
    def bits(self) -> int:
        """Of the deepest channel."""
        return max(self.directory.numbers(BITS) or (1,))

    @property
    def photometric(self) -> int:
        """TIFF's number for the meaning of the samples."""
        return self.directory.number(PHOTOMETRIC, BLACK_IS_ZERO)

    @property
    def inks(self) -> int:
        """Samples that make the colour."""
        return _INKS.get(self.photometric, _COLORS.get(self.photometric, 1))

    @property
    def alpha(self) -> Alpha:
        """What the samples after the colour hold of it; one that no tag explains is taken for alpha."""
        return self._alpha[1]

    @property
    def alpha_sample(self) -> int:
        """Which of all samples it is."""
        return self.inks + self._alpha[0]

    @property
    def _alpha(self) -> tuple[int, Alpha]:
        more = self.directory.number(SAMPLES, 1) - self.inks
        extra = self.directory.numbers(EXTRA_SAMPLES)
        if more <= 0:
            return 0, "none"
        if not extra:
            return 0, "straight"
        kinds: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}
        return next(((place, kinds[kind]) for place, kind in enumerate(extra[:more]) if kind in kinds), (0, "none"))

    @property
    def is_signed_or_float(self) -> bool:
        """Whether its samples are no unsigned integers."""
        return not set(self.directory.numbers(SAMPLE_FORMAT)) <= {1, 4}

    @property
    def channels(self) -> int:
        """Of the decoded image, 1 to 4."""
        return _COLORS.get(self.photometric, 3) + (self.alpha != "none")

    @property
    def orientation(self) -> int:
        """1 to 8."""
        return orientation_in(self.directory)


def read_pages(stream: IO[bytes]) -> list[TiffPage]:
    """The images of a file but for masks and reduced copies; at least the first. Raises Damaged."""
    reader = Reader(stream)
    pages = [TiffPage(reader, directory, number) for number, directory in enumerate(reader.chain())]
    if not pages:
        raise Damaged("holds no image")
    left_out = _REDUCED | _MASK
    return [pages[0], *(page for page in pages[1:] if not page.directory.number(NEW_SUBFILE_TYPE, 0) & left_out)]


def first_page(stream: IO[bytes]) -> TiffPage:
    """The first image of a file. Raises Damaged."""
    reader = Reader(stream)
    return TiffPage(reader, reader.directory(reader.first)[0], 0)


def decode_tiff_samples(data: bytes, page: TiffPage, name: str | Path) -> np.ndarray:
    """Pixels of 8 to 16 bits: (H, W, C) uint8 or uint16 in RGB order, C from 1 to 4, not turned.

    CMYK comes as uint8 inks, and alpha if there is one: C is 4 or 5.

    Raises UserError, naming the file, for one that cannot be decoded, and for floats, signed and 32-bit numbers.
    """
    if page.is_signed_or_float or page.bits > 16:
        what = {2: f"int{page.bits} pixels", 3: f"floats of {page.bits} bits"}
        found = what.get(max(page.directory.numbers(SAMPLE_FORMAT), default=1), f"uint{page.bits} pixels")
        raise UserError(f"{printable(name)}: has {found}; convert it to 8 or 16 bits per channel")
    try:
        samples = _samples(data, page)
        return _inks(samples, page) if page.photometric == CMYK else _as_pixels(samples, page)
    except (*_DAMAGES, tifffile.TiffFileError) as error:
        raise UserError(
            f"{printable(name)}: damaged, or a kind of TIFF that cannot be decoded here ({printable(str(error))}); "
            "save it again without compression, as gray or RGB of 8 or 16 bits"
        ) from error


def _samples(data: bytes, page: TiffPage) -> np.ndarray:
    """(H, W, S) uint8 or uint16 as they are stored."""
    if 8 < page.bits < 16:
        return _unpacked(data, page)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as archive:
            stored = archive.pages[page.number]
            image = stored.asarray()
            planar = page.directory.number(PLANAR, 1) == _SEPARATE and image.ndim == 3
    except (*_DAMAGES, tifffile.TiffFileError):
        image, planar = _through_opencv(data, page), False
    image = np.moveaxis(image, 0, 2) if planar else image
    image = image[:, :, None] if image.ndim == 2 else image
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"its pixels are {image.dtype}")
    return image


def not_turned(data: bytes, page: TiffPage) -> bytes:
    """The same file with an orientation of 1 for this page: OpenCV and some versions of Pillow turn what they read."""
    if page.orientation == 1:
        return data
    start, _ = page.directory.spans[ORIENTATION]
    return data[:start] + struct.pack(f"{page.directory.order}H", 1) + data[start + 2 :]


def _through_opencv(data: bytes, page: TiffPage) -> np.ndarray:
    """Compressions that tifffile alone lacks, such as LZW; gray, RGB and RGBA of 16 bits, contiguous."""
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or page.directory.number(PLANAR, 1) != 1:
        raise ValueError("its compression is not known for such colours")
    read, images = cv2.imdecodemulti(np.frombuffer(not_turned(data, page), np.uint8), cv2.IMREAD_UNCHANGED)
    if not read or page.number >= len(images):
        raise ValueError("OpenCV cannot decode it either")
    image = np.asarray(images[page.number])
    if image.ndim == 3 and image.shape[2] >= 3:
        image = image[:, :, [2, 1, 0, *range(3, image.shape[2])]]
    return image


def _unpacked(data: bytes, page: TiffPage) -> np.ndarray:
    """Samples of 9 to 15 bits, packed without gaps in each row, the highest bit first."""
    height, width = page.size
    directory = page.directory
    samples, compression = directory.number(SAMPLES, 1), directory.number(COMPRESSION, _NO_COMPRESSION)
    starts, lengths = directory.numbers(STRIP_OFFSETS), directory.numbers(STRIP_LENGTHS)
    if set(directory.numbers(BITS)) != {page.bits} or len(starts) != len(lengths) or not starts:
        raise ValueError("its channels differ in depth, or are in tiles")
    if directory.number(PREDICTOR, 1) != 1 or directory.number(PLANAR, 1) != 1:
        raise ValueError(f"its {page.bits} bits are predicted, or in separate planes")
    if compression not in (_NO_COMPRESSION, *_DEFLATES):
        raise ValueError(f"its {page.bits} bits are compressed otherwise than by zlib")
    strips = [data[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    body = b"".join(zlib.decompress(strip) if compression in _DEFLATES else strip for strip in strips)
    row_bytes = (width * samples * page.bits + 7) // 8
    packed = np.frombuffer(body, np.uint8, height * row_bytes).reshape(height, row_bytes)
    out = np.empty((height, width * samples), np.uint16)
    places = 1 << np.arange(page.bits - 1, -1, -1, dtype=np.uint32)
    for row in range(height):
        bits = np.unpackbits(packed[row])[: width * samples * page.bits].reshape(-1, page.bits)
        out[row] = bits @ places
    return out.reshape(height, width, samples)


def _as_pixels(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """Stored samples as gray or RGB, with alpha if there is one."""
    is_lab = page.photometric in (CIELAB, ICCLAB)
    if not (is_lab and page.bits > 8) and page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise ValueError(f"its colours are {_NAMES.get(page.photometric, page.photometric)} of {page.bits} bits")
    if samples.shape[:2] != page.size or samples.shape[2] < page.inks:
        raise ValueError(f"its pixels are {samples.shape}")
    if 8 < page.bits < 16:
        samples = np.rint(samples.astype(np.float64) * (65535 / (2**page.bits - 1))).astype(np.uint16)
    color = samples[:, :, : page.inks]
    if page.photometric == WHITE_IS_ZERO:
        color = np.iinfo(color.dtype).max - color
    elif is_lab:
        color = _rgb_of_lab(color, page.photometric == ICCLAB)
    if page.alpha == "none":
        return np.ascontiguousarray(color)
    alpha = samples[:, :, page.alpha_sample : page.alpha_sample + 1]
    if page.alpha == "premultiplied":
        color = unassociated(color, alpha)
    return np.concatenate([color, alpha], axis=2)


def _inks(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """(H, W, 4) inks as uint8, which is what colours are converted from, and alpha if there is one."""
    if page.bits not in (8, 16) or samples.shape[:2] != page.size or samples.shape[2] < page.inks:
        raise ValueError("its colours are CMYK of an odd kind")
    samples = to_uint8(samples)
    inks = samples[:, :, : page.inks]
    if page.alpha == "none":
        return inks
    alpha = samples[:, :, page.alpha_sample : page.alpha_sample + 1]
    if page.alpha == "premultiplied":
        inks = unassociated(inks, alpha)
    return np.concatenate([inks, alpha], axis=2)


def _rgb_of_lab(stored: np.ndarray, is_icc: bool) -> np.ndarray:
    """16-bit L*a*b* as TIFF stores it: a and b signed, or around the middle, where white is 0xFF00, for ICC's."""
    values = stored.astype(np.float64)
    if is_icc:
        lab = np.stack([values[..., 0] * (100 / 0xFF00), *((values[..., i] - 0x8000) / 256 for i in (1, 2))], axis=-1)
    else:
        signed = stored.view(np.int16) if stored.flags.c_contiguous else np.ascontiguousarray(stored).view(np.int16)
        lab = np.stack([values[..., 0] * (100 / 65535), *(signed[..., i] / 256.0 for i in (1, 2))], axis=-1)
    return np.rint(lab_to_rgb(lab) * 65535).astype(np.uint16)
