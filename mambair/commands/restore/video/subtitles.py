"""MP4's subtitles in a Matroska file: the same words and times as SubRip, which Matroska has a place for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    from av.stream import Stream

_LENGTH_BYTES = 2


def can_become_subrip(stream: "Stream", writer: "av.container.OutputContainer") -> bool:
    """Whether these are subtitles of MP4 on their way into Matroska."""
    codec = stream.codec_context.name if stream.codec_context is not None else None
    return codec == "mov_text" and writer.format.name == "matroska"


def add_subrip(writer: "av.container.OutputContainer", like: "Stream") -> "Stream":
    """A stream of SubRip subtitles that counts time as `like` does."""
    return writer.add_mux_stream("subrip", time_base=like.time_base)


def as_subrip(packet: "av.Packet") -> "av.Packet | None":
    """The words of a packet; None for the pauses between them, which MP4 stores, too.

    A packet of MP4 is the number of bytes (16 bits, the highest first), the words in UTF-8, and how they look, which is
    left out.
    """
    import av

    data = bytes(packet)
    words = data[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")]
    if not words:
        return None
    copy = av.Packet(len(words))  # PyAV 17 does not keep bytes that it is given for as long as they wait to be written
    copy.update(words)
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.duration = packet.duration
    return copy
