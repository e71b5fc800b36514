"""Small videos, made and read back, for the tests of restoring them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore.video import restore_video

av = pytest.importorskip("av", reason="the extra [video] is not installed")

X265_QUIET = {"x265-params": "log-level=none", "crf": "4"}


@dataclass
class Made:
    """How a clip is made: what it differs in from 8-bit H.264 at 10 frames per second without tags."""

    size: tuple[int, int] = (64, 48)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    tags: tuple[int, int, int, int] = (2, 0, 2, 2)
    """Matrix, range, primaries, transfer."""
    options: dict[str, str] = field(default_factory=lambda: {"crf": "4"})
    prepare: Callable = lambda stream: None
    """Called with the stream before its first frame."""

    def write(self, path: Path, images: Sequence[np.ndarray], times: Sequence[int] = (), unit: int = 10) -> Path:
        """Write RGB images, shown at `times` in 1 / `unit` seconds."""
        with av.open(str(path), "w") as writer:
            stream = writer.add_stream(self.codec, rate=10, options=self.options)
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pix_fmt
            context = stream.codec_context
            context.time_base = Fraction(1, unit)
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.tags
            self.prepare(stream)
            packets = []
            for image, time in zip(images, times or range(len(images)), strict=True):
                frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if image.dtype == np.uint16 else "rgb24")
                frame.colorspace = self.tags[0]
                frame = frame.reformat(format=self.pix_fmt, dst_color_range=self.tags[1], interpolation=4)
                frame.pts, frame.time_base = time, Fraction(1, unit)
                packets += stream.encode(frame)
            for packet in packets + stream.encode(None):
                if len(images) <= 2:  # for which x265 makes up times of decoding
                    packet.dts = packet.pts
                writer.mux(packet)
        return path


def grays(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Frames of one gray each, which grows."""
    return [np.full((size[1], size[0], 3), 20 + index * 3 % 220, np.uint8) for index in range(count)]


def colours(size: tuple[int, int] = (64, 48), dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture of many colours."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    picture = np.stack([0.1 + 0.8 * columns, 0.2 + 0.7 * rows, 0.8 - 0.3 * (rows + columns)], axis=2)
    return np.round(picture * np.iinfo(dtype).max).astype(dtype)


def enlarge(images: list[np.ndarray]) -> list[np.ndarray]:
    return [image.repeat(2, axis=0).repeat(2, axis=1) for image in images]


def restored(source: Path, target: Path, restore: Callable = enlarge, **options) -> list[str]:
    """Restore four frames at a time; returns the lines that are said."""
    notes: list[str] = []
    restore_video(source, target, restore, 4, lambda *_: None, note=notes.append, **options)
    return notes


def times_of(path: Path) -> list[float]:
    """Seconds at which frames are shown."""
    with av.open(str(path)) as reader:
        return [float(frame.pts * frame.time_base) for frame in reader.decode(video=0)]


def sounds_of(path: Path) -> list[float]:
    """Seconds at which packets of sound are heard."""
    with av.open(str(path)) as reader:
        return [float(packet.pts * packet.time_base) for packet in reader.demux(audio=0) if packet.dts is not None]


def first_frame(path: Path):
    with av.open(str(path)) as reader:
        return next(reader.decode(video=0))


def tags_of(path: Path) -> tuple[int, int, int, int]:
    """Matrix, range, primaries and transfer of the first frame."""
    frame = first_frame(path)
    return frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc


def shown(path: Path) -> np.ndarray:
    """The first frame as a player shows it, which takes untagged video for what its size says."""
    frame = first_frame(path)
    if frame.colorspace == 2 and not frame.format.is_rgb:
        frame.colorspace = 1 if frame.width >= 1280 or frame.height > 576 else 6
    return frame.to_ndarray(format="rgb24", interpolation=0x42002)
