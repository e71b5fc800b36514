"""One pass over a video: frames are decoded, restored and encoded, the rest is copied."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mambair.commands.restore.video.colours import Coding, coding_of, to_frame, to_pixels, turns_of
from mambair.commands.restore.video.encoders import Plan, open_encoder
from mambair.commands.restore.video.losses import losses_of
from mambair.commands.restore.video.times import Clock, promised_seconds
from mambair.commands.restore.video.tracks import Tracks, films, muxer_options
from mambair.commands.restore.video.unfinished import keep_unfinished
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.runtime.files import atomic_write

if TYPE_CHECKING:
    import av

# The first whose frames tell primaries and transfer.
OLDEST_PYAV = 17

# Of the length that a header promises, frames may lack so much, and a second: sound is often longer.
SHORT = 0.9

Restore = Callable[[list[np.ndarray]], list[np.ndarray]]


def restore_video(
    source: Path,
    target: Path,
    restore: Restore,
    batch: int,
    report: Callable[[int, int], None],
    *,
    bits: str = "same",
    note: Callable[[str], None] = lambda text: None,
    write: Callable[[Path], AbstractContextManager[Path]] = atomic_write,
) -> int:
    """Restore every frame of `source` into `target`, keeping times, colours, sound and what else is in the file.

    Frames of 8 bits go through the network in 8 bits and become H.264; deeper ones go through it in 16 bits and become
    HEVC of 10 bits (AV1, or H.264, where FFmpeg's build lacks HEVC). If reading, restoring or writing ends midway, the
    frames that are done are kept beside the target, under its name with `.incomplete` before the ending.

    Args:
        source, target: video files; the target appears when it is complete.
        restore: maps a list of (H, W, 3) uint8 or uint16 frames to their restorations.
        batch: frames handed to `restore` at a time.
        report: called with (frames done, frames in the file, 0 if unknown) after every batch.
        bits: "same" as the source, "8" (which accepts the loss of deeper ones) or "16" (for 10 in the result).
        note: called with every line that is to be said of the result, such as what it lacks.
        write: gives the path to write to, and makes it the target in the end.

    Returns the number of frames. Raises UserError for a file that cannot be read, and when PyAV is missing.
    """
    name = printable(source)
    _check_pyav(name)
    import av

    with write(target) as temporary, _naming(name), av.open(str(source), metadata_errors="replace") as reader:
        with av.open(str(temporary), "w", container_options=muxer_options(reader, target.suffix)) as writer:
            transcoder = _Transcoder(reader, writer, restore, report, bits, note)
            try:
                transcoder.run(batch)
                transcoder.check(temporary)
            except (UserError, MemoryError, OSError, av.FFmpegError) as error:
                kept = transcoder.keep(temporary, target)
                if kept is None:
                    raise
                raise UserError(f"{_reason(error)}; {kept}") from error
            except BaseException:  # the user's Ctrl-C, or a defect: neither may cost the hours before it
                kept = transcoder.keep(temporary, target)
                if kept is not None:
                    note(kept)
                raise
        return transcoder.done


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors of the block become messages that begin with the name of the video."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"{name}: cannot be restored as a video ({_reason(error)})") from error
    except UserError as error:
        raise UserError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error


def _check_pyav(name: str) -> None:
    remedy = "install it with: pip install 'mambair[video]'"
    if find_spec("av") is None:
        raise UserError(f"{name}: videos need PyAV; {remedy}")
    import av

    if int(av.__version__.split(".")[0]) < OLDEST_PYAV:
        raise UserError(f"{name}: videos need PyAV {OLDEST_PYAV} or later, and {av.__version__} is here; {remedy}")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Transcoder:
    """One pass from an open video to another."""

    def __init__(
        self,
        reader: "av.container.InputContainer",
        writer: "av.container.OutputContainer",
        restore: Restore,
        report: Callable[[int, int], None],
        bits: str,
        note: Callable[[str], None],
    ) -> None:
        self.reader, self.writer, self.restore, self.report = reader, writer, restore, report
        self.bits, self.note = bits, note
        videos = films(reader)
        if not videos:
            raise UserError("has no video stream")
        self.source = videos[0]
        if self.source.codec_context is None:
            raise UserError("is coded in a way that this PyAV cannot decode")
        if len(videos) > 1:
            note("its first video track is restored; the others are copied as they are")
        self.tracks = Tracks(reader, writer, self.source)
        self.clock = Clock(self.source)
        self.coding: Coding | None = None
        self.plan: Plan | None = None
        self.encoder: av.VideoStream | None = None
        self.noted: set[str] = set()
        self.damaged = 0
        self.done = 0

    def run(self, batch: int) -> None:
        """Restore all frames, and complete the file."""
        waiting: list[av.VideoFrame] = []
        for frame in self._frames():
            waiting.append(frame)
            if len(waiting) == batch:
                self._write(waiting)
                waiting = []
        if waiting:
            self._write(waiting)
        if self.encoder is None:
            raise UserError("has no frames that can be decoded")
        self._mux(self.encoder, None)
        self.writer.close()

    def _frames(self) -> "Iterator[av.VideoFrame]":
        """Decoded frames in order of display; packets of other streams are copied as they come by."""
        import av

        for packet in self.reader.demux([self.source, *self.tracks.kept]):
            if packet.stream.index != self.source.index:
                self.tracks.copy(packet)
                continue
            try:
                yield from self.source.decode(packet)
            except av.error.InvalidDataError:
                self.damaged += 1

    def _write(self, frames: "Sequence[av.VideoFrame]") -> None:
        if self.coding is None:
            self.coding = coding_of(frames[0])
        deep = self.bits == "16" or (self.bits == "same" and self.coding.depth > 8)
        for frame in frames:
            self._note_once(losses_of(frame, self.source.metadata, deep))
        images = self.restore([to_pixels(frame, self.coding, deep) for frame in frames])
        if self.plan is None or self.encoder is None:
            self.plan = self._planned(images[0], frames[0], self.coding)
            self.encoder = self.tracks.open(partial(open_encoder, self.writer, self.plan))
        width, height = self.plan.width, self.plan.height
        for frame, image in zip(frames, images, strict=True):
            if image.shape[:2] != (height, width):
                self._note_once([f"its frames change size; all were brought to {width}x{height}"])
            restored = to_frame(image, self.coding, self.plan.pix_fmt, width, height)
            self.clock.stamp(restored, frame)
            self._mux(self.encoder, restored)
            self.done += 1
        self.report(self.done, self.source.frames)

    def _mux(self, encoder: "av.VideoStream", frame: "av.VideoFrame | None") -> None:
        """Encode a frame, or with None what the encoder holds back, and write the packets that come of it."""
        for packet in encoder.encode(frame):
            self.clock.complete(packet)
            self.writer.mux(packet)

    def _planned(self, image: np.ndarray, frame: "av.VideoFrame", coding: Coding) -> Plan:
        aspect = self.source.sample_aspect_ratio
        if aspect and turns_of(frame)[0] % 2:
            aspect = 1 / aspect
        return Plan(
            width=image.shape[1],
            height=image.shape[0],
            coding=coding,
            deep=image.dtype == np.uint16,
            rate=self.source.average_rate,
            tick=self.clock.tick,
            aspect=aspect or None,
        )

    def _note_once(self, lines: "Iterator[str] | Sequence[str]") -> None:
        for line in lines:
            if line not in self.noted:
                self.noted.add(line)
                self.note(line)

    def check(self, result: Path) -> None:
        """Read the result's header back, and say what is not in it."""
        if self.damaged:
            self.note(f"{self.damaged} damaged {'packets were' if self.damaged > 1 else 'packet was'} left out")
        seconds, promised = self.clock.seconds, promised_seconds(self.source)
        if seconds < SHORT * promised - 1:
            self.note(f"its frames end after {seconds:.1f} s of {promised:.1f} s: it was cut short, or is damaged")
        missing = list(self.tracks.missing_in(result))
        if missing:
            self.note(f"left out, since {result.suffix} files cannot hold it: {', '.join(missing)}")

    def keep(self, temporary: Path, target: Path) -> str | None:
        """Complete the file as far as it goes, under a name of its own; says where it is, None if there is none."""
        import av

        if self.encoder is None or not self.done:
            return None
        with suppress(av.FFmpegError, OSError):
            self._mux(self.encoder, None)
        with suppress(av.FFmpegError, OSError):
            self.writer.close()
        return keep_unfinished(temporary, target)
