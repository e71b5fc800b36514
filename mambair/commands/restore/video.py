"""Restoring a video frame by frame, with its sound, through PyAV (the extra `video`)."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.runtime.files import atomic_write

if TYPE_CHECKING:
    import av

# Visually lossless: a restored frame should not get new compression artifacts.
X264_OPTIONS = {"crf": "14", "preset": "medium"}


def restore_video(
    source: Path,
    target: Path,
    restore: Callable[[list[np.ndarray]], list[np.ndarray]],
    batch: int,
    report: Callable[[int, int], None],
) -> int:
    """Restore every frame of `source` into `target` (H.264), copying the sound and keeping the times of the frames.

    Args:
        source, target: video files; the target appears when it is complete.
        restore: maps a list of (H, W, 3) uint8 frames to their restorations.
        batch: frames handed to `restore` at a time.
        report: called with (frames done, frames in the file, 0 if unknown) after every batch.

    Returns the number of frames. Raises UserError for a file that cannot be read, and when PyAV is missing.
    """
    if find_spec("av") is None:
        raise UserError(f"{printable(source)}: videos need PyAV; install it with: pip install 'mambair[video]'")
    import av

    try:
        with av.open(str(source)) as reader, atomic_write(target) as temporary:
            if not reader.streams.video:
                raise UserError(f"{printable(source)}: has no video stream")
            with av.open(str(temporary), "w") as writer:
                return _Transcoder(reader, writer, restore, report).run(batch)
    except av.FFmpegError as error:
        raise UserError(f"{printable(source)}: cannot be restored as a video ({error.strerror})") from error


class _Transcoder:
    """One pass from an open video to another."""

    def __init__(
        self,
        reader: "av.container.InputContainer",
        writer: "av.container.OutputContainer",
        restore: Callable[[list[np.ndarray]], list[np.ndarray]],
        report: Callable[[int, int], None],
    ) -> None:
        self.reader, self.writer, self.restore, self.report = reader, writer, restore, report
        self.source = reader.streams.video[0]
        self.sound = {stream: self._copied_stream(stream) for stream in reader.streams.audio}
        self.encoder: av.VideoStream | None = None
        # Sound that came before the first restored frame: a file's streams must all exist before its first packet.
        self.early_sound: list[av.Packet] = []
        self.done = 0

    def _copied_stream(self, stream: "av.AudioStream") -> "av.AudioStream":
        try:
            return self.writer.add_stream_from_template(stream)
        except ValueError as error:
            raise UserError(
                f"{printable(self.reader.name)}: its sound ({stream.codec_context.name}) does not fit into a file of "
                "the result's kind; write .mkv"
            ) from error

    def run(self, batch: int) -> int:
        waiting: list[av.VideoFrame] = []
        for frame in self._frames():
            waiting.append(frame)
            if len(waiting) == batch:
                self._write(waiting)
                waiting = []
        if waiting:
            self._write(waiting)
        if self.encoder is None:
            raise UserError(f"{printable(self.reader.name)}: has no frames that can be decoded")
        self.writer.mux(self.encoder.encode(None))
        return self.done

    def _frames(self) -> "Iterator[av.VideoFrame]":
        """Decoded frames in order of display; packets of sound are copied as they come by."""
        for packet in self.reader.demux([self.source, *self.sound]):
            if packet.stream in self.sound:
                self._copy_sound(packet)
            else:
                yield from packet.decode()

    def _copy_sound(self, packet: "av.Packet") -> None:
        if packet.dts is None:  # the end of the stream
            return
        packet.stream = self.sound[packet.stream]
        if self.encoder is None:
            self.early_sound.append(packet)
        else:
            self.writer.mux(packet)

    def _write(self, frames: "Sequence[av.VideoFrame]") -> None:
        import av

        images = [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames]
        for frame, image in zip(frames, self.restore(images), strict=True):
            if self.encoder is None:
                self.encoder = self._open_encoder(*image.shape[:2], frame)
                self.writer.mux(self.early_sound)
            restored = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format=self.encoder.pix_fmt, dst_colorspace=frame.colorspace, dst_color_range=frame.color_range
            )
            restored.pts, restored.time_base = frame.pts, frame.time_base
            self.writer.mux(self.encoder.encode(restored))
        self.done += len(frames)
        self.report(self.done, self.source.frames)

    def _open_encoder(self, height: int, width: int, like: "av.VideoFrame") -> "av.VideoStream":
        encoder = self.writer.add_stream("libx264", rate=self.source.average_rate, options=X264_OPTIONS)
        encoder.height, encoder.width = height, width
        # Halved chroma, which every player shows, needs even sides.
        encoder.pix_fmt = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
        encoder.time_base = self.source.time_base
        # Players guess the colours of an untagged video by its size, which changes here.
        context = encoder.codec_context
        context.colorspace, context.color_range = like.colorspace, like.color_range
        context.color_primaries, context.color_trc = like.color_primaries, like.color_trc
        return encoder
