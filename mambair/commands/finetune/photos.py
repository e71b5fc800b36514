"""The photos of a fine-tuning run: which can be used, and which are held out."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mambair.data.likeness import Fingerprint, find_alike, fingerprint
from mambair.errors import UserError
from mambair.imaging.files import IMAGE_EXTENSIONS, read_image
from mambair.imaging.headers import printable, read_header
from mambair.imaging.pixels import to_uint8

FEWEST = 5
JUDGED_PART, MOST_JUDGED = 0.15, 40
WATCHED_PART, MOST_WATCHED = 0.10, 20


@dataclass(frozen=True)
class Photo:
    """A photo that can be used."""

    name: str
    """Its path below the folder, with '/'."""
    width: int
    height: int
    print: Fingerprint


@dataclass(frozen=True)
class Split:
    """Photos by what they are for. Those that show the same are on one side."""

    trained: list[Photo]
    watched: list[Photo]
    """Looked at while training, to find the best weights and the end."""
    judged: list[Photo]
    """Looked at once, at the end: before and after."""


def find_photos(folder: Path, smallest: int, is_gray: bool) -> tuple[list[Photo], list[str]]:
    """The photos in a folder and those below it, and a line for each that is left out.

    `smallest` is the shortest side in pixels that is of use; a network for colour cannot use gray files. Raises
    UserError for a folder that is missing or holds too few.
    """
    if not folder.is_dir():
        raise UserError(f"{printable(folder)}: no such folder; name a folder of clean photos")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file() and not _is_hidden(file.relative_to(folder))
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = list(pool.map(lambda file: _look_at(folder, file, smallest, is_gray), files))
    photos = [each for each in looked if isinstance(each, Photo)]
    left_out = [each for each in looked if isinstance(each, str)]
    if len(photos) < FEWEST:
        reasons = "".join(f"\n  {line}" for line in left_out[:FEWEST])
        raise UserError(
            f"{printable(folder)}: holds {len(photos)} photos that can be used; at least {FEWEST} are needed, some to "
            f"train on and some to see whether that helps{reasons}"
        )
    return photos, left_out


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _look_at(folder: Path, file: Path, smallest: int, is_gray: bool) -> Photo | str:
    """The photo, or why it cannot be used."""
    try:
        header = read_header(file)
        if min(header.height, header.width) < smallest:
            return f"{printable(file)}: smaller than {smallest} pixels"
        if not is_gray and header.channels < 3:
            return f"{printable(file)}: gray, and the network is for colour"
        gray = to_uint8(read_image(file, "gray"))[:, :, 0]
    except UserError as error:
        return str(error)
    name = file.relative_to(folder).as_posix()
    return Photo(name, header.width, header.height, fingerprint(np.ascontiguousarray(gray)))


def split_photos(photos: Sequence[Photo], seed: int) -> Split:
    """Draw the held-out photos. Raises UserError where too many show the same to hold any out."""
    groups = same_photos(photos)
    if len(groups) < FEWEST:
        raise UserError(
            f"the {len(photos)} photos show {len(groups)} different things, and at least {FEWEST} are needed: "
            "a network cannot be judged by what it was trained on"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    drawn = iter([groups[index] for index in order])
    judged = _draw(drawn, min(MOST_JUDGED, max(1, round(JUDGED_PART * len(photos)))))
    watched = _draw(drawn, min(MOST_WATCHED, max(1, round(WATCHED_PART * len(photos)))))
    held_out = {photo.name for photo in (*judged, *watched)}
    return Split([photo for photo in photos if photo.name not in held_out], watched, judged)


def _draw(groups: Iterator[list[Photo]], count: int) -> list[Photo]:
    """Whole groups until there are `count` photos, in the order of their names."""
    chosen: list[Photo] = []
    while len(chosen) < count:
        chosen += next(groups)
    return sorted(chosen, key=lambda photo: photo.name)


def same_photos(photos: Sequence[Photo]) -> list[list[Photo]]:
    """The photos in groups: those that show the same, wholly or in part, are in one."""
    owner = list(range(len(photos)))

    def root(index: int) -> int:
        while owner[index] != index:
            index = owner[index]
        return index

    for pair in find_alike([photo.print for photo in photos], threads=os.cpu_count() or 1):
        owner[root(pair.second)] = root(pair.first)
    groups: dict[int, list[Photo]] = {}
    for index, photo in enumerate(photos):
        groups.setdefault(root(index), []).append(photo)
    return list(groups.values())
