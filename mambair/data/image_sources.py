"""Where the images of a data set lie: folders or LMDB databases, and the lists that choose among them."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

import numpy as np

from mambair.errors import UserError
from mambair.imaging.files import IMAGE_EXTENSIONS, ColorMode, decode_image, list_images, read_bytes
from mambair.imaging.headers import ImageHeader, printable, read_header
from mambair.imaging.metadata import profile_of

# A compression level follows a size or an ending: `scan 12` is a name.
_META_LINE = re.compile(r"(?P<name>.*?)(?: \((?P<size>\d+(?:, ?\d+){1,2})\)(?: \d+)?)?")
_LEVEL = re.compile(rf"(?P<name>.*({'|'.join(map(re.escape, sorted(IMAGE_EXTENSIONS)))})) \d+", re.IGNORECASE)


class ImageSource(Protocol):
    """A root that holds images under keys: relative paths with '/', in an LMDB without the file extension."""

    @property
    def root(self) -> Path:
        """The folder, or the database."""
        ...

    def names(self) -> list[str]:
        """All images, sorted."""
        ...

    def called(self, stem: str) -> list[str]:
        """The keys of all images whose relative path without extension is `stem`, sorted."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """The encoded image."""
        ...

    def header(self, key: str) -> ImageHeader:
        """Size and channels without decoding."""
        ...


@dataclass(frozen=True)
class ImageEntry:
    """One image of a source."""

    source: ImageSource
    key: str

    @property
    def path(self) -> str:
        """What messages call the image."""
        return str(self.source.root / self.key)

    def read(self, mode: ColorMode) -> np.ndarray:
        """The decoded image, HxWxC, as `mambair.imaging.files.decode_image` gives it."""
        return decode_image(self.source.read_bytes(self.key), mode, name=self.path)

    def header(self) -> ImageHeader:
        """Size and channels without decoding."""
        return self.source.header(self.key)

    def color_profile(self) -> bytes | None:
        """The profile of its colours; None for sRGB."""
        return profile_of(self.source.read_bytes(self.key), self.path)


@dataclass
class FolderSource:
    """Image files in a folder."""

    root: Path
    _names: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False, compare=False)

    def names(self) -> list[str]:
        """Names of the images directly in the folder."""
        return [path.name for path in list_images(self.root)]

    def called(self, stem: str) -> list[str]:
        """The files called `stem` with any image extension."""
        folder, _, name = stem.rpartition("/")
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        return [f"{folder}/{file}".lstrip("/") for file in sorted(self._names[folder].get(name, []))]

    def _list(self, folder: str) -> dict[str, list[str]]:
        names = defaultdict(list)
        if (self.root / folder).is_dir():
            for path in list_images(self.root / folder):
                names[path.stem].append(path.name)
        return dict(names)

    def read_bytes(self, key: str) -> bytes:
        """The content of the file."""
        return read_bytes(self.root / key)

    def header(self, key: str) -> ImageHeader:
        """Size and channels from the file's header."""
        return read_header(self.root / key)


@dataclass(frozen=True)
class MetaLine:
    """One line of a meta-info file."""

    name: str
    """Relative path, with extension, or without where the line leaves it out."""
    size: tuple[int, ...] | None
    """(height, width, channels) or (height, width) if the line states it."""


def stem_of(key: str) -> str:
    """A relative path without its image extension; other dots stay."""
    path = PurePosixPath(key)
    return key[: -len(path.suffix)] if path.suffix.lower() in IMAGE_EXTENSIONS else key


def check_inside(name: str, where: str) -> str:
    """`name` if it is a relative path that stays below its root; UserError naming `where` otherwise."""
    parts = set(PurePosixPath(name).parts) | set(PureWindowsPath(name).parts)
    absolute = name.startswith(("/", "\\")) or PureWindowsPath(name).drive
    if not name or absolute or ".." in parts or "\0" in name:
        raise UserError(f"{where}: {name!r} leaves its root folder; use a relative path without '..'")
    return name


def read_meta_info(path: str | Path) -> list[MetaLine]:
    """The lines of a meta-info file: a relative path each, optionally followed by '(height,width,channels)' and
    a compression level, as BasicSR writes them. Names may hold spaces, and numbers behind them. Empty lines are
    skipped, and so is the mark that Windows' editors put at the beginning.

    Raises UserError for an unreadable or empty file and for entries that leave their root.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{printable(path)}: no such meta-info file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{printable(path)}: cannot be read as a meta-info file ({error})") from error
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _META_LINE.fullmatch(line.strip())
        assert match is not None, "every line matches: the name takes what the rest does not"
        size = match["size"]
        level = _LEVEL.fullmatch(match["name"])
        name = check_inside(level["name"] if level else match["name"], f"{printable(path)}:{number}")
        lines.append(MetaLine(name, tuple(map(int, size.split(","))) if size else None))
    if not lines:
        raise UserError(f"{printable(path)}: lists no images")
    return lines


def stem_in_template(template: str, name: str) -> str | None:
    """What stands in the place of '{}' in a file name without extension; None for a name of another form."""
    before, _, after = template.partition("{}")
    fits = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def format_template(template: str, stem: str) -> str:
    """A file name template such as '{}x2', filled; the template may not lead out of the folder."""
    if template.count("{}") != 1 or "/" in template or "\\" in template:
        raise UserError(f"filename_tmpl: expected a file name with one '{{}}' and no folder, got '{template}'")
    return template.replace("{}", stem)
