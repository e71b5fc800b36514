"""The stream that restored frames are encoded into."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from mambair.commands.restore.video.colours import Coding, MasteringDisplay
from mambair.errors import UserError

if TYPE_CHECKING:
    import av

# Visually lossless: a restored frame should not get new compression artifacts.
QUALITY = "14"

# HEVC is what players and televisions show HDR with, and H.264 in 10 bits what few of them know.
ENCODERS = ("libx264",)
DEEP_ENCODERS = ("libx265", "libsvtav1", "libx264")


@dataclass(frozen=True)
class Plan:
    """What a video stream is to be.

    Attributes:
        width, height: of the restored frames, in pixels.
        coding: of the source.
        deep: 10 bits per channel in place of 8.
        rate: frames per second, which says how many bits they are worth; times are counted in `tick`s, seconds.
        aspect: width of a pixel by its height.
    """

    width: int
    height: int
    coding: Coding
    deep: bool
    rate: Fraction | None
    tick: Fraction
    aspect: Fraction | None

    @property
    def pix_fmt(self) -> str:
        """FFmpeg's pixel format. Halved chroma, which every player shows, needs even sides."""
        chroma = "yuv420p" if self.height % 2 == 0 and self.width % 2 == 0 else "yuv444p"
        return chroma + ("10le" if self.deep else "")


def open_encoder(writer: "av.container.OutputContainer", plan: Plan) -> "av.VideoStream":
    """Add the first encoder that this build of FFmpeg has and that can do what is planned; UserError if none can."""
    # SVT-AV1 fills the terminal otherwise.
    os.environ.setdefault("SVT_LOG", "1")
    for name in DEEP_ENCODERS if plan.deep else ENCODERS:
        if name == "libsvtav1" and writer.format.name == "matroska" and plan.aspect not in (None, 1):
            continue  # neither AV1 nor PyAV's Matroska says the shape of pixels
        if _works(writer.format.name, name, plan):
            return _add(writer, name, plan)
    if plan.deep:
        raise UserError(
            "has more than 8 bits per channel, and this PyAV has no encoder for 10 bits (HEVC or AV1) that takes "
            f"{plan.width}x{plan.height} pixels; --bits 8 accepts the loss"
        )
    raise UserError(
        f"this PyAV has no H.264 encoder that takes {plan.width}x{plan.height} pixels; install PyAV's wheel"
    )


def _works(container: str, name: str, plan: Plan) -> bool:
    """Whether the encoder is there, takes the size, and fits into the container: the header of such a file is made."""
    import av

    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            _add(trial, name, plan)
            trial.start_encoding()
        except (ValueError, av.FFmpegError):
            return False
        return True


def _add(writer: "av.container.OutputContainer", name: str, plan: Plan) -> "av.VideoStream":
    import av

    stream = writer.add_stream(name, rate=plan.rate, options=dict(_options(name, plan)))
    assert isinstance(stream, av.VideoStream)
    formats = stream.codec.video_formats or []
    if plan.pix_fmt not in {pixels.name for pixels in formats}:
        raise ValueError(f"{name} does not encode {plan.pix_fmt}")
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = plan.width, plan.height, plan.pix_fmt
    context.time_base = plan.tick
    if plan.aspect:
        context.sample_aspect_ratio = plan.aspect
    coding = plan.coding
    # Players guess the colours of an untagged video by its size, which changes here.
    context.colorspace, context.color_range = coding.matrix, coding.color_range
    context.color_primaries, context.color_trc = coding.primaries, coding.transfer
    if name == "libx265" and writer.format.name in {"mp4", "mov"}:
        context.codec_tag = "hvc1"  # Apple's players do not know FFmpeg's own choice, hev1
    return stream


def _options(name: str, plan: Plan) -> Mapping[str, str]:
    if name == "libx264":
        return {"crf": QUALITY, "preset": "medium"}
    mastering, light = plan.coding.mastering, plan.coding.light_level
    if name == "libx265":
        parts = ["log-level=none"]
        parts += [f"master-display={_for_x265(mastering)}"] if mastering else []
        parts += [f"max-cll={light[0]},{light[1]}"] if light else []
        return {"crf": QUALITY, "preset": "medium", "x265-params": ":".join(parts)}
    parts = [f"mastering-display={_for_svt_av1(mastering)}"] if mastering else []
    parts += [f"content-light={light[0]},{light[1]}"] if light else []
    return {"crf": QUALITY, "preset": "6", "svtav1-params": ":".join(parts)}


def _for_x265(mastering: MasteringDisplay) -> str:
    """In units of 0.00002 and 0.0001 cd/m^2."""
    points = [f"({round(x * 50000)},{round(y * 50000)})" for x, y in mastering.points]
    luminances = f"({round(mastering.lightest * 10000)},{round(mastering.darkest * 10000)})"
    return _joined(points, luminances)


def _for_svt_av1(mastering: MasteringDisplay) -> str:
    points = [f"({float(x):.5f},{float(y):.5f})" for x, y in mastering.points]
    return _joined(points, f"({float(mastering.lightest):.4f},{float(mastering.darkest):.4f})")


def _joined(points: list[str], luminances: str) -> str:
    red, green, blue, white = points
    return f"G{green}B{blue}R{red}WP{white}L{luminances}"
