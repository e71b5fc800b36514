"""What `mambair data check` warns of: photos that sets share, copies within a set, JPEG sources, enlarged images."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mambair.data.image_sources import ImageEntry
from mambair.data.likeness import Alike, Fingerprint, find_alike, fingerprint
from mambair.data.origins import JpegSource, has_jpeg_grid, jpeg_source, looks_enlarged
from mambair.errors import UserError
from mambair.imaging.files import decode_image
from mambair.imaging.headers import printable
from mambair.imaging.pixels import to_uint8

TRAINING = "datasets.train"
SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """Something that is no mistake and may spoil results."""

    headline: str
    lines: list[str]

    def text(self, shown: int = SHOWN) -> str:
        """Headline and lines, the first `shown` of them."""
        rest = [f"  ... and {len(self.lines) - shown} more"] if len(self.lines) > shown else []
        return "\n".join([f"warning: {self.headline}", *(f"  {line}" for line in self.lines[:shown]), *rest])


@dataclass
class Seen:
    """An image that was looked at, and all sets that it is in."""

    path: str
    print: Fingerprint
    jpeg: JpegSource | None
    has_grid: bool
    is_enlarged: bool
    sets: list[str] = field(default_factory=list)


def find_all(
    sets: Mapping[str, Sequence[ImageEntry]], threads: int, on_progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Everything worth a warning in the sets of images, by name; the training set's name is TRAINING.

    Images that cannot be read are passed over. `on_progress` is called with 1 for each image that was looked at.
    """
    seen = look_at_all(sets, threads, on_progress)
    alike = find_alike([each.print for each in seen], lambda i, j: _is_wanted(seen[i], seen[j]), threads)
    return [
        *_shared(seen, alike),
        *_copies(sets, seen, alike),
        *_jpeg_sources(sets, seen),
        *_with_grid(sets, seen),
        *_enlarged(sets, seen),
    ]


def look_at_all(
    sets: Mapping[str, Sequence[ImageEntry]], threads: int, on_progress: Callable[[int], None] | None
) -> list[Seen]:
    """Each image once, however many sets it is in."""
    entries: dict[str, ImageEntry] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for name, members in sets.items():
        for entry in members:
            entries.setdefault(entry.path, entry)
            if name not in names[entry.path]:
                names[entry.path].append(name)
    seen = []
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(_look_at, entries.values()):
            if on_progress is not None:
                on_progress(1)
            if found is not None:
                found.sets = names[found.path]
                seen.append(found)
    return seen


def _look_at(entry: ImageEntry) -> Seen | None:
    try:
        data = entry.source.read_bytes(entry.key)
        gray = to_uint8(decode_image(data, "gray", name=entry.path))[:, :, 0]
    except UserError:  # listed among the problems
        return None
    gray = np.ascontiguousarray(gray)
    jpeg = jpeg_source(data)
    return Seen(entry.path, fingerprint(gray), jpeg, jpeg is None and has_jpeg_grid(gray), looks_enlarged(gray))


def _is_wanted(one: Seen, other: Seen) -> bool:
    """Whether two images would be a finding: in one set both, or one of them in the training set."""
    return any(name in other.sets for name in one.sets) or TRAINING in one.sets or TRAINING in other.sets


def _shared(seen: Sequence[Seen], alike: Sequence[Alike]) -> list[Finding]:
    """Photos of the training set that other sets hold."""
    lines = {}
    for each in seen:
        others = [name for name in each.sets if name != TRAINING]
        if TRAINING in each.sets and others:
            lines[each.path] = f"{printable(each.path)}: the same file is in {', '.join(others)}"
    for pair in alike:
        one, other = seen[pair.first], seen[pair.second]
        for trained, judged in ((one, other), (other, one)):
            if TRAINING in trained.sets and set(judged.sets) - {TRAINING}:
                names = ", ".join(name for name in judged.sets if name != TRAINING)
                lines[f"{trained.path}\n{judged.path}"] = f"{_relation(pair, seen, trained, judged)} ({names})"
    if not lines:
        return []
    return [Finding(f"{_count(lines, 'photo')} of the training set in a validation or test set too", [*lines.values()])]


def _relation(pair: Alike, seen: Sequence[Seen], one: Seen, other: Seen) -> str:
    """What one of two images shows of the other."""
    names = printable(one.path), printable(other.path)
    if pair.are_equal:
        return "{}: equal to {}".format(*names)
    scale, share = pair.scale, pair.share
    if seen[pair.first] is not one:
        area = [each.print.width * each.print.height for each in (seen[pair.first], seen[pair.second])]
        scale, share = 1 / scale, min(1.0, share * area[1] / (scale**2 * area[0]))
    return f"{names[0]}: shows {share:.0%} of {names[1]}, where it is {scale:.2f} times as large"


def _copies(sets: Mapping[str, Sequence[ImageEntry]], seen: Sequence[Seen], alike: Sequence[Alike]) -> list[Finding]:
    """Exact and near duplicates within a set."""
    findings = []
    for name in sets:
        inside = [pair for pair in alike if name in seen[pair.first].sets and name in seen[pair.second].sets]
        for are_equal, what in ((True, "of equal images"), (False, "of images that show the same photo")):
            lines = [
                _relation(pair, seen, seen[pair.first], seen[pair.second])
                for pair in inside
                if pair.are_equal == are_equal
            ]
            if lines:
                findings.append(Finding(f"{name}: {_count(lines, 'pair')} {what}", lines))
    return findings


def _jpeg_sources(sets: Mapping[str, Sequence[ImageEntry]], seen: Sequence[Seen]) -> list[Finding]:
    findings = []
    for name in sets:
        members = [each for each in seen if name in each.sets]
        found = [(each.path, each.jpeg) for each in members if each.jpeg is not None]
        if not found:
            continue
        qualities = [jpeg.quality for _, jpeg in found]
        lowest, highest = min(qualities), max(qualities)
        quality = f"quality {lowest}" if lowest == highest else f"quality {lowest} to {highest}"
        chroma = ", ".join(f"{count} with {kind}" for kind, count in Counter(jpeg.chroma for _, jpeg in found).items())
        lines = [
            f"{printable(path)}: quality {jpeg.quality}, {jpeg.chroma}"
            for path, jpeg in sorted(found, key=lambda item: item[1].quality)
        ]
        headline = f"{name}: {len(found)} of {len(members)} images are JPEG files ({quality}; {chroma})"
        findings.append(Finding(headline, lines))
    return findings


def _with_grid(sets: Mapping[str, Sequence[ImageEntry]], seen: Sequence[Seen]) -> list[Finding]:
    lines = {name: [printable(each.path) for each in seen if name in each.sets and each.has_grid] for name in sets}
    return [
        Finding(f"{name}: {_count(found, 'image')} with the block borders of an earlier JPEG compression", found)
        for name, found in lines.items()
        if found
    ]


def _enlarged(sets: Mapping[str, Sequence[ImageEntry]], seen: Sequence[Seen]) -> list[Finding]:
    lines = {name: [printable(each.path) for each in seen if name in each.sets and each.is_enlarged] for name in sets}
    return [
        Finding(f"{name}: {_count(found, 'image')} without fine detail: enlarged, or blurred as if they were", found)
        for name, found in lines.items()
        if found
    ]


def _count(found: Mapping | Sequence, noun: str) -> str:
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'}"
