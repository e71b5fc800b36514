"""How the colours of a video's frames are coded, and the way from frames to pixels and back.

Numbers of matrices, primaries and transfers are those of ITU-T H.273, which containers, codecs and FFmpeg share.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from math import atan2, degrees
from typing import TYPE_CHECKING, cast

import numpy as np

from mambair.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import av
    from av.sidedata.sidedata import SideData

BT709, UNTAGGED, FCC, BT601_625, BT601_525, SMPTE240M, BT2020 = 1, 2, 4, 5, 6, 7, 9
VIDEO_RANGE = 1  # black at 16 and white at 235 of 255, which every player shows
_MATRICES = frozenset({BT709, FCC, BT601_625, BT601_525, SMPTE240M, BT2020})
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 14: "ICtCp", 15: "IPT", 16: "YCgCo", 17: "YCgCo"}
_UNKNOWN_MATRICES = frozenset({0, UNTAGGED, 3})  # 0 is RGB, which luma and chroma cannot be

# Players take an untagged video for HD from this width or above this height, and for SD below (mpv, FFmpeg, browsers).
_HD_WIDTH, _SD_HEIGHT, _PAL_HEIGHTS = 1280, 576, frozenset({288, 576})

# swscale's flags. BILINEAR | ACCURATE_RND | FULL_CHR_H_INT: without the latter two, 8-bit frames came out 1.2 levels
# darker in the mean of random colours. BICUBIC | ACCURATE_RND: with others, and some builds of FFmpeg 8.0, frames of 10
# bits with halved chroma came out without one of their channels.
_SCALING_8, _SCALING_16 = 0x42002, 0x40004

# FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue and white, then the darkest and the lightest, each a
# fraction; whether the former are known, and the latter.
_MASTERING = struct.Struct("=20i2i")


@dataclass(frozen=True)
class MasteringDisplay:
    """What an HDR film was graded on: chromaticities of red, green, blue and white, luminances in cd/m^2."""

    points: tuple[tuple[Fraction, Fraction], ...]
    darkest: Fraction
    lightest: Fraction


@dataclass(frozen=True)
class Coding:
    """How the frames of a stream are coded.

    Attributes:
        matrix: between RGB and luma and chroma, never untagged: a guess by size, as players make it, where it was.
        color_range, primaries, transfer: as the source says; FFmpeg's numbers.
        depth: bits per channel.
        mastering: of an HDR film, if it says so.
        light_level: the lightest pixel and the lightest frame's mean of an HDR film in cd/m^2, if it says so.
    """

    matrix: int
    color_range: int
    primaries: int
    transfer: int
    depth: int
    mastering: MasteringDisplay | None
    light_level: tuple[int, int] | None


def coding_of(frame: "av.VideoFrame") -> Coding:
    """How a frame is coded; raises UserError for a matrix that cannot be converted."""
    return Coding(
        matrix=_matrix_of(frame),
        color_range=VIDEO_RANGE if frame.format.is_rgb else frame.color_range,
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        depth=max(component.bits for component in frame.format.components),
        mastering=_mastering_of(frame),
        light_level=_light_level_of(frame),
    )


def _matrix_of(frame: "av.VideoFrame") -> int:
    if frame.format.is_rgb:
        return BT709
    if frame.colorspace in _UNKNOWN_MATRICES:
        if frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT:
            return BT709
        return BT601_625 if frame.height in _PAL_HEIGHTS else BT601_525
    if frame.colorspace not in _MATRICES:
        name = _OTHER_MATRICES.get(frame.colorspace, f"H.273's number {frame.colorspace}")
        raise UserError(f"its colours are coded as {name}, which cannot be converted; convert it to BT.709 first")
    return frame.colorspace


def side_data_of(frame: "av.VideoFrame") -> dict[str, bytes]:
    """What comes with a frame beside its pixels, by FFmpeg's names, such as DISPLAYMATRIX."""
    return {data.type.name: bytes(data) for data in cast("Iterable[SideData]", frame.side_data)}


def _mastering_of(frame: "av.VideoFrame") -> MasteringDisplay | None:
    data = side_data_of(frame).get("MASTERING_DISPLAY_METADATA")
    if data is None or len(data) < _MASTERING.size:
        return None
    *numbers, has_points, has_luminance = _MASTERING.unpack_from(data)
    if not has_points or not has_luminance or 0 in numbers[1::2]:
        return None
    values = [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    return MasteringDisplay(tuple(zip(values[:8:2], values[1:8:2], strict=True)), *values[8:])


def _light_level_of(frame: "av.VideoFrame") -> tuple[int, int] | None:
    data = side_data_of(frame).get("CONTENT_LIGHT_LEVEL")
    return None if data is None or len(data) < 8 else struct.unpack_from("=2I", data)


def turns_of(frame: "av.VideoFrame") -> tuple[int, bool]:
    """(quarter turns counterclockwise, whether it is mirrored left to right after them) that show a frame upright."""
    data = side_data_of(frame).get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    matrix = np.frombuffer(data, np.int32, count=9).reshape(3, 3).astype(float)
    mirrored = bool(matrix[0, 0] * matrix[1, 1] < matrix[0, 1] * matrix[1, 0])
    across = -matrix[0, 0] if mirrored else matrix[0, 0]
    return round(-degrees(atan2(matrix[0, 1], across)) / 90), mirrored


def to_pixels(frame: "av.VideoFrame", coding: Coding, deep: bool) -> np.ndarray:
    """A frame as it is shown: (H, W, 3) RGB, uint16 if `deep`, else uint8."""
    frame.colorspace = coding.matrix  # not by an argument: PyAV 17 knows no BT.2020 there
    pixels = frame.to_ndarray(format="rgb48le" if deep else "rgb24", interpolation=_SCALING_16 if deep else _SCALING_8)
    turns, mirrored = turns_of(frame)
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels


def to_frame(pixels: np.ndarray, coding: Coding, pix_fmt: str, width: int, height: int) -> "av.VideoFrame":
    """(H, W, 3) RGB pixels, uint8 or uint16, as a frame of that format and size, coded as the source was."""
    import av

    deep = pixels.dtype == np.uint16
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb48le" if deep else "rgb24")
    frame.colorspace = coding.matrix
    return frame.reformat(
        width=width,
        height=height,
        format=pix_fmt,
        dst_color_range=coding.color_range,
        interpolation=_SCALING_16 if deep else _SCALING_8,
    )
