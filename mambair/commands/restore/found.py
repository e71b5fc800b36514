"""Files below folders: what can be restored, and by name what is left out and why."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mambair.commands.restore.lists import without_earlier_results
from mambair.imaging.files import IMAGE_EXTENSIONS
from mambair.runtime.files import TEMPORARY_PREFIX

VIDEO_EXTENSIONS = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"})
READABLE_EXTENSIONS = IMAGE_EXTENSIONS | VIDEO_EXTENSIONS

_CAMERA_RAW = {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw"}
_OTHER_IMAGES = {
    ".ai", ".dds", ".dib", ".eps", ".exr", ".hdr", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".pam", ".pcx", ".pdf",
    ".pfm", ".psb", ".psd", ".qoi", ".svg", ".tga", ".xcf",
}  # fmt: skip
_OTHER_VIDEOS = {".3gp", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".wmv"}

RAW_PHOTOS = "camera raw is not read; develop it to TIFF or PNG"
OTHER_IMAGES = "such images are not read; save them as PNG or TIFF"
OTHER_VIDEOS = "such videos are not read; copy them into .mkv, as ffmpeg -i IN -c copy OUT.mkv does"
OTHER_FILES = "no images or videos"
BROKEN_LINKS = "links to what is not there"
CIRCLES = "links to a folder that they lie in"


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


@dataclass
class Search:
    """What was found below folders so far.

    Args:
        output: the folder of the results; what lies in it is not searched, unless it is the searched folder itself.
    """

    output: Path
    left_out: list[tuple[str, Path]] = field(default_factory=list)
    """(why, path) of what is not restored."""
    unreadable: list[tuple[Path, OSError]] = field(default_factory=list)
    """Folders that cannot be listed."""

    def below(self, folder: Path) -> list[Path]:
        """Images and videos in a folder and its subfolders, linked ones too, except for results of an earlier run."""
        return self.photos([folder], folder)

    def photos(self, matches: Iterable[Path], folder: Path) -> list[Path]:
        """The files among what was found in a folder, and images and videos in the folders among it; no results."""
        results = self._results_in(folder)
        files: list[Path] = []
        for match in matches:
            if match.is_dir():
                files += sorted(self._walk(match, (), results), key=natural_key)
            elif (results is None or not match.resolve().is_relative_to(results)) and self.takes(match):
                files.append(match)
        return without_earlier_results(files, folder)

    def _results_in(self, folder: Path) -> Path | None:
        """The folder of the results, if it lies in a searched one."""
        results, searched = self.output.resolve(), folder.resolve()
        return results if results != searched and results.is_relative_to(searched) else None

    def _walk(self, folder: Path, above: tuple[Path, ...], results: Path | None) -> Iterator[Path]:
        """`above`: the folders that this one lies in, links followed."""
        place = folder.resolve()
        if results is not None and place.is_relative_to(results):
            return
        if place in above:
            self.left_out.append((CIRCLES, folder))
            return
        try:
            entries = [Path(entry.path) for entry in os.scandir(folder)]
        except OSError as error:
            self.unreadable.append((folder, error))
            return
        for entry in sorted(entries, key=natural_key):
            if entry.is_dir():
                yield from self._walk(entry, (*above, place), results)
            elif self.takes(entry) and not self._is_result(entry, results):
                yield entry

    @staticmethod
    def _is_result(file: Path, results: Path | None) -> bool:
        return results is not None and file.is_symlink() and file.resolve().is_relative_to(results)

    def takes(self, file: Path) -> bool:
        """Whether a file can be restored by its name; if not, it is noted why, unless it is hidden."""
        if file.name.startswith((".", TEMPORARY_PREFIX)):
            return False
        reason = why_not(file)
        if reason is not None:
            self.left_out.append((reason, file))
        return reason is None


def why_not(file: Path) -> str | None:
    """Why a file is not restored; None for one that is."""
    extension = file.suffix.lower()
    kinds = ((_CAMERA_RAW, RAW_PHOTOS), (_OTHER_IMAGES, OTHER_IMAGES), (_OTHER_VIDEOS, OTHER_VIDEOS))
    if extension in READABLE_EXTENSIONS:
        return None if file.is_file() else BROKEN_LINKS
    return next((reason for extensions, reason in kinds if extension in extensions), OTHER_FILES)
