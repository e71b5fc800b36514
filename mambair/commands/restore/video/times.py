"""When each frame of a video is shown."""

from contextlib import suppress
from fractions import Fraction
from math import ceil, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

# In seconds. Two frames that claim one time are told apart by one tick, so it may not be long; and times of MP4 have 32
# bits, so it may not be short.
LONGEST_TICK, SHORTEST_TICK = Fraction(1, 1000), Fraction(1, 1_000_000)


class Clock:
    """Gives each frame the time and duration that it had, in ticks of the result.

    The ticks are those of the source, or whole fractions of them, so that no time is rounded (but to microseconds); not
    those of the average rate, to which frames of a phone, or around a dropped one, do not keep. Times grow always: a
    frame at the time of the one before, which encoders and MP4 refuse, comes one tick later.
    """

    def __init__(self, source: "av.VideoStream") -> None:
        base = source.time_base or LONGEST_TICK
        self.tick: Fraction = max(base / ceil(base / LONGEST_TICK), SHORTEST_TICK)
        self._usual = round(1 / (source.average_rate or 25) / self.tick)
        self._first: int | None = None
        self._last = self._stamped = 0
        # How often a time was not later than the one before it. AVI has none but those of decoding.
        self._wrong_shown, self._wrong_decoded = int(source.container.format.name == "avi"), 0
        self._durations: dict[int, int] = {}
        self._shown: float = -inf
        self._decoded: float = -inf

    def stamp(self, restored: "av.VideoFrame", original: "av.VideoFrame") -> None:
        """Set the time and duration of a restored frame."""
        ticks = (original.time_base or self.tick) / self.tick
        time = self._time_of(original)
        if self._first is None:
            self._first = self._last = round((time or 0) * ticks)
        elif time is None:
            self._last += self._usual
        else:
            self._last = max(round(time * ticks), self._last + 1)
        self._stamped += 1
        restored.pts, restored.time_base = self._last, self.tick
        restored.duration = self._durations[self._last] = round((original.duration or 0) * ticks)

    def complete(self, packet: "av.Packet") -> None:
        """Give an encoded frame what x265 leaves out: its duration, and the time to decode it in a video of one or two.

        Those two are decoded in the order in which they are shown.
        """
        duration = self._durations.pop(packet.pts or 0, 0)
        packet.duration = packet.duration or duration
        if self._stamped <= 2:
            packet.dts = packet.pts

    def _time_of(self, frame: "av.VideoFrame") -> int | None:
        """The time to show it, or that of decoding where that was right more often."""
        shown = frame.dts if frame.pts is None else frame.pts
        decoded = frame.pts if frame.dts is None else frame.dts
        if shown is None or decoded is None:
            return None
        self._wrong_shown += shown <= self._shown
        self._wrong_decoded += decoded <= self._decoded
        self._shown, self._decoded = shown, decoded
        return shown if self._wrong_shown <= self._wrong_decoded else frame.dts

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last one."""
        return float((self._last + self._usual - (self._first or 0)) * self.tick)


def promised_seconds(stream: "av.VideoStream") -> float:
    """How long a stream is by its header; that of the whole file if it does not say, 0 if neither does."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    written = stream.metadata.get("DURATION", "")  # Matroska's: hours:minutes:seconds
    if written.count(":") == 2:
        hours, minutes, seconds = written.split(":")
        with suppress(ValueError):
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return (getattr(stream.container, "duration", None) or 0) / 1e6
