"""What else is in a video's file: sound, subtitles, pictures, attachments, chapters and tags, copied."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.restore.video.subtitles import add_subrip, as_subrip, can_become_subrip
from mambair.errors import UserError

if TYPE_CHECKING:
    import av
    from av.stream import Stream

# What a muxer writes of itself, or of the bits of the stream that it holds; in lower case.
_OF_THE_FILE = frozenset(
    {
        "encoder",
        "major_brand",
        "minor_version",
        "compatible_brands",
        "duration",
        "handler_name",
        "vendor_id",
        "alpha_mode",
        "software",
    }
)
_OF_THE_BITS = ("bps", "number_of_", "_statistics_")
# Read from the same atom twice: with and without its language.
_TWICE = frozenset({"location-eng"})
_UNKNOWN_LANGUAGE = "und"

_NAMES = {"audio": "sound", "subtitle": "subtitles", "video": "a video track", "attachment": "an attachment"}


def is_picture(stream: "Stream") -> bool:
    """Whether a stream is a cover or a thumbnail, which is one picture and no video."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def films(reader: "av.container.InputContainer") -> "list[av.VideoStream]":
    """The video streams that are not pictures."""
    return [stream for stream in reader.streams.video if not is_picture(stream)]


def tags_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags that say something of the film, and not of its file."""
    tags = {}
    for key, value in metadata.items():
        lower = key.lower()
        if lower not in _OF_THE_FILE | _TWICE and not lower.startswith(_OF_THE_BITS):
            tags[key] = value
    if "name" in tags:  # as MP4 calls what FFmpeg writes for a title
        tags.setdefault("title", tags.pop("name"))
    return tags


def muxer_options(reader: "av.container.InputContainer", suffix: str) -> dict[str, str]:
    """Phones write tags of names such as com.apple.quicktime.make, for which MP4 has another place than for titles."""
    foreign = suffix.lower() in {".mp4", ".mov"} and any(key.startswith("com.") for key in reader.metadata)
    return {"movflags": "use_metadata_tags"} if foreign else {}


class Tracks:
    """Copies the streams of one video, except for the one that is restored, to another.

    Streams that the other file cannot hold are known before anything is restored: a header with each is tried. The
    packets that come before `open` wait, since a file's streams must all exist before its first packet.
    """

    def __init__(
        self, reader: "av.container.InputContainer", writer: "av.container.OutputContainer", restored: "av.VideoStream"
    ) -> None:
        self.reader, self.writer, self.restored = reader, writer, restored
        self.left_out: list[str] = []
        self.kept = [stream for stream in reader.streams if self._can_be_kept(stream)]
        self._copies: dict[int, Stream] = {}
        self._last: dict[int, int] = {}
        self._waiting: list[av.Packet] = []
        self._opened = False

    def _can_be_kept(self, stream: "Stream") -> bool:
        if stream is self.restored or self._is_chapter_track(stream):
            return False
        if (is_picture(stream) and self._holds_attachments) or self._fits(stream):
            return True
        if stream.type == "audio" and stream.codec_context is not None:
            raise UserError(
                f"its sound ({stream.codec_context.name}) does not fit into a file of the result's kind; write .mkv"
            )
        self.left_out.append(_described(stream))
        return False

    @property
    def _holds_attachments(self) -> bool:
        return self.writer.format.name == "matroska"

    def _is_chapter_track(self, stream: "Stream") -> bool:
        """MP4 stores the titles of chapters as a track, too, which the writer makes anew."""
        return stream.type == "data" and getattr(stream, "name", None) == "bin_data" and bool(self.reader.chapters())

    def _fits(self, stream: "Stream") -> bool:
        import av

        with av.open(io.BytesIO(), "w", format=self.writer.format.name) as trial:
            try:
                _copied(trial, stream)
                trial.start_encoding()
            except (ValueError, av.FFmpegError):
                return False
            return True

    def open(self, open_encoder: Callable[[], "av.VideoStream"]) -> "av.VideoStream":
        """Add all streams in the order that they had, chapters and tags; returns the encoder's stream."""
        encoder: av.VideoStream | None = None
        self.writer.metadata.update(tags_of(self.reader.metadata))
        self.writer.set_chapters(self.reader.chapters())
        for stream in self.reader.streams:
            if stream is self.restored:
                encoder = open_encoder()
                encoder.metadata.update(tags_of(stream.metadata))
                _set_disposition(encoder, stream)
            elif stream in self.kept and not (is_picture(stream) and self._holds_attachments):
                self._copies[stream.index] = _copied(self.writer, stream)
        assert encoder is not None
        if self._holds_attachments:
            self._attach_pictures()
        self._opened = True
        for packet in self._waiting:
            self.copy(packet)
        self._waiting = []
        return encoder

    def _attach_pictures(self) -> None:
        """Matroska has covers beside the streams, with names."""
        pictures = {packet.stream.index: packet for packet in self._waiting if is_picture(packet.stream)}
        for stream in filter(is_picture, self.kept):
            packet = pictures.get(stream.index)
            if packet is None:
                self.left_out.append(_described(stream))
                continue
            kind = {"mjpeg": "jpeg"}.get(stream.codec_context.name, stream.codec_context.name)
            name = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
            self.writer.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), bytes(packet))

    def copy(self, packet: "av.Packet") -> None:
        """Write a packet of any of the streams that are kept."""
        if not packet.size:  # the end of the stream
            return
        if not self._opened:
            self._waiting.append(packet)
            return
        copy = self._copies.get(packet.stream.index)
        if copy is None:
            return
        if packet.dts is not None:
            self._put_in_order(packet)
        written = as_subrip(packet) if can_become_subrip(packet.stream, self.writer) else packet
        if written is not None:
            written.stream = copy
            self.writer.mux(written)

    def _put_in_order(self, packet: "av.Packet") -> None:
        """Packets that go back in time end a file; those of damaged recordings do."""
        assert packet.dts is not None
        last = self._last.get(packet.stream.index)
        if last is not None and packet.dts <= last and packet.stream.type != "subtitle":
            packet.dts = last + 1
            packet.pts = max(packet.pts if packet.pts is not None else packet.dts, packet.dts)
        self._last[packet.stream.index] = packet.dts

    def missing_in(self, result: Path) -> Iterator[str]:
        """What the result lacks, in words, read back from it."""
        import av

        yield from self.left_out
        with av.open(str(result)) as written:
            if len(written.chapters()) < len(self.reader.chapters()):
                yield "chapters"
            pictures = sum(map(is_picture, written.streams))
            yield from map(_described, list(filter(is_picture, self.kept))[pictures:])
            yield from (f"the tag {key}" for key in _lacking(self.reader.metadata, written.metadata))
            for index, copy in self._copies.items():
                stream = self.reader.streams[index]
                if is_picture(stream):
                    continue
                if copy.index >= len(written.streams) or written.streams[copy.index].type != stream.type:
                    yield _described(stream)
                    continue
                lacking = _lacking(stream.metadata, written.streams[copy.index].metadata)
                for key in filter(lambda key: key != "creation_time", lacking):  # the file has one, too
                    yield f"the tag {key} of track {index}"


def _copied(writer: "av.container.OutputContainer", stream: "Stream") -> "Stream":
    if can_become_subrip(stream, writer):
        copy = add_subrip(writer, stream)
    else:
        copy = writer.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(tags_of(stream.metadata))
    _set_disposition(copy, stream)
    return copy


def _set_disposition(copy: "Stream", stream: "Stream") -> None:
    setattr(copy, "disposition", stream.disposition.value)  # noqa: B010  (PyAV 17 takes the number, its stubs the flag)


def _lacking(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    there = {key.lower() for key in tags_of(found)}
    for key, value in tags_of(wanted).items():
        if key.lower() not in there and (key, value) != ("language", _UNKNOWN_LANGUAGE):
            yield key


def _described(stream: "Stream") -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else getattr(stream, "name", None)
    details = [detail for detail in (codec, stream.language) if detail and detail != _UNKNOWN_LANGUAGE]
    name = "a cover" if is_picture(stream) else _NAMES.get(stream.type, stream.type)
    return f"{name} ({', '.join(details)})" if details else name
