"""Where the pixels of an image come from, as far as they tell: JPEG compression, and enlargement."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, JpegImagePlugin

from mambair.imaging.jpeg_parts import only_jpeg_pixels

CHROMA = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
"""Pillow's numbers of chroma samplings."""

WINDOW = 512
"""Spectra are taken of the middle of an image, at most this large."""
GRID = 8
GRID_SIGNIFICANCE = 3.0
"""Of 60 photos reduced and enlarged at nine ratios by three interpolations none reaches 2.8; of 120 compressed at
quality 50 nineteen in twenty go beyond 4, at 75 three quarters beyond 3, at 90 few."""
LOST_DETAIL = -24.0
STEEP_FALL = 11.5
SHARP_CUT = 14.5
"""Decibels; of 173 photos (BSD400, Set5, McMaster) none is flagged by these, nor any of them after JPEG at quality 50;
of those enlarged twice by bicubic or Lanczos interpolation all are, and few of those enlarged by less than 1.5."""


@dataclass(frozen=True)
class JpegSource:
    """How a JPEG file was compressed."""

    quality: int
    """As libjpeg's scale has it, 1 to 100; an estimate where the tables are not libjpeg's."""
    chroma: str
    """4:4:4, 4:2:2, 4:2:0; 'gray' or 'other'."""


def jpeg_source(data: bytes) -> JpegSource | None:
    """How the file was compressed; None if it is no JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    with Image.open(io.BytesIO(only_jpeg_pixels(data)), formats=("JPEG",)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        tables = image.quantization
        chroma = "gray" if image.mode == "L" else CHROMA.get(JpegImagePlugin.get_sampling(image), "other")
    return JpegSource(_quality(tables[min(tables)]), chroma)


@functools.cache
def _known_tables() -> np.ndarray:
    """The luminance tables of libjpeg's qualities 1 to 100, by its rule from that of 50: int (100, 64)."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG", quality=50)
    with Image.open(stream) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        base = np.array(image.quantization[0], np.int64)
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((percent[:, None] * base + 50) // 100, 1, 255)


def _quality(table: Sequence[int]) -> int:
    """libjpeg's quality with this luminance table; of other programs' tables, that which quantises as coarsely."""
    known = _known_tables()
    equal = np.nonzero((known == np.array(table)).all(axis=1))[0]
    nearest = equal[0] if len(equal) else np.abs(known.sum(axis=1) - sum(table)).argmin()
    return int(nearest) + 1


def has_jpeg_grid(gray: np.ndarray) -> bool:
    """Whether a uint8 image (H, W) shows the borders of JPEG's blocks of 8x8 pixels, both ways, wherever they begin."""
    return min(_grid_significance(gray), _grid_significance(gray.T)) > GRID_SIGNIFICANCE


def _grid_significance(gray: np.ndarray) -> float:
    """Standard errors by which the steps between columns eight apart exceed those of every other eighth of them.

    Not their mean: resampling at simple ratios, as 4 to 5, makes patterns of shorter periods, whose peaks are several.
    """
    steps = np.minimum(np.abs(np.diff(gray.astype(np.int16), axis=1)), 20)
    excess = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).mean(axis=0)
    usable = len(excess) // GRID * GRID
    if usable < 8 * GRID:
        return 0.0
    groups = excess[:usable].reshape(-1, GRID)
    spread = float(groups.std()) / len(groups) ** 0.5
    second, highest = np.sort(groups.mean(axis=0))[-2:]
    return float((highest - second) / spread) if spread > 0 else 0.0


def looks_enlarged(gray: np.ndarray) -> bool:
    """Whether a uint8 image (H, W) has so little fine detail, or loses it so abruptly, that it was enlarged or blurred.

    Too small images (under 64 pixels) and flat ones are not judged.
    """
    height, width = gray.shape
    if min(height, width) < 64:
        return False
    top, left = max(0, (height - WINDOW) // 2), max(0, (width - WINDOW) // 2)
    middle = gray[top : top + WINDOW, left : left + WINDOW].astype(np.float32)
    if middle.std() < 2:
        return False
    frequencies = np.linspace(0.02, 0.5, 97)
    power = (_power(middle, frequencies) + _power(middle.T, frequencies)) / 2
    decibels = 10 * np.log10(power + 1e-3)

    def mean(low: float, high: float) -> float:
        return float(decibels[(frequencies >= low) & (frequencies <= high)].mean())

    def level(low: float, high: float) -> float:
        return 10 * float(np.log10(power[(frequencies >= low) & (frequencies <= high)].mean() + 1e-3))

    detail = level(0.33, 0.5) - level(0.06, 0.12)
    cuts = np.arange(0.12, 0.44, 0.02)
    fall = max(mean(cut - 0.06, cut - 0.01) - mean(cut + 0.03, min(0.5, cut + 0.12)) for cut in cuts)
    return (detail < LOST_DETAIL and fall > STEEP_FALL) or fall > SHARP_CUT


def _power(image: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Power along the rows, averaged over them, at frequencies in cycles per pixel."""
    window = np.hanning(image.shape[1]).astype(np.float32)
    rows = (image - image.mean(axis=1, keepdims=True)) * window
    power = (np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(axis=0) / float((window**2).sum())
    return np.interp(frequencies, np.arange(len(power)) / image.shape[1], power)
