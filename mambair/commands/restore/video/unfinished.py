"""Results of videos whose restoration ended midway."""

from pathlib import Path

from mambair.commands.restore.video.tracks import films
from mambair.imaging.headers import printable


def keep_unfinished(temporary: Path, target: Path) -> str | None:
    """Give a part of a result a name of its own beside the target; says where it is, None if it cannot be played."""
    import av

    try:
        frames = _frames_in(temporary)  # fewer than were restored where the disk is full
        if not frames:
            return None
        kept = _free_name(target)
        temporary.replace(kept)
    except (av.FFmpegError, OSError):
        return None
    return f"the first {frames} frames are in {printable(kept)}"


def _frames_in(path: Path) -> int:
    import av

    with av.open(str(path)) as reader:
        return sum(packet.size > 0 for packet in reader.demux(films(reader)[0]))


def _free_name(target: Path) -> Path:
    """Claim the name of an incomplete result that is not taken."""
    number = 1
    while True:
        kept = target.with_name(f"{target.stem}.incomplete{'' if number == 1 else f'-{number}'}{target.suffix}")
        try:
            kept.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return kept
