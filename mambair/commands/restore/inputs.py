"""From what a user types to a list of files to restore and where each result goes."""

import codecs
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mambair.commands.restore.lists import without_earlier_results
from mambair.errors import UserError
from mambair.imaging.files import IMAGE_EXTENSIONS
from mambair.imaging.headers import printable
from mambair.imaging.photo import PHOTO_EXTENSIONS
from mambair.runtime.files import TEMPORARY_PREFIX, FileMark

STANDARD_INPUT = "-"
SHOWN_CHARACTERS = 200

READABLE_EXTENSIONS = IMAGE_EXTENSIONS | PHOTO_EXTENSIONS | {".gif"}
VIDEO_EXTENSIONS = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v"})
_WRITABLE_VIDEO_EXTENSIONS = frozenset({".mp4", ".mkv", ".mov"})

SAME_FORMAT = "same"


@dataclass(frozen=True)
class Job:
    """One file to restore."""

    source: Path
    target: Path
    replaces: FileMark | None = None
    """The file at `target` that the result may take the place of; another one, or any if None, it may not."""

    @property
    def is_video(self) -> bool:
        """Whether the source is a video."""
        return self.source.suffix.lower() in VIDEO_EXTENSIONS


@dataclass(frozen=True)
class Failure:
    """One file that was not restored, and why."""

    path: str
    reason: str


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def plan_jobs(
    paths: Sequence[str], output: Path, file_format: str, standard_input: TextIO
) -> tuple[list[Job], list[Failure]]:
    """Files behind `paths` with their targets, and the paths that lead to nothing.

    Args:
        paths: files, folders (searched recursively, in natural order), glob patterns, or "-" for a list of those
            on standard input, one per line (or separated by NUL characters).
        output: a folder, in which folders and patterns keep their structure; or, for a single file, the file to write.
        file_format: extension of the results without its dot, or "same".
        standard_input: where "-" reads.

    Raises:
        UserError: nothing to restore at all, two files with the same target, or an output of an impossible kind.
    """
    found: dict[Path, Path] = {}  # source -> its path below the output folder
    failures = []
    for text in _expand_standard_input(paths, standard_input):
        try:
            matches = dict(_expand(text, output))
        except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be looked into
            failures.append(Failure(_shortened(text), getattr(error, "strerror", None) or str(error)))
            continue
        if not matches:
            failures.append(Failure(_shortened(text), _why_nothing(text)))
        known = {source.absolute() for source in found}
        found |= {source: place for source, place in matches.items() if source.absolute() not in known}
    if not found and not failures:
        raise UserError("nothing to restore: no paths were given on standard input")
    if _names_a_file(output):
        return [_named_job(source, output, file_format) for source in _only_source(found, output)], failures
    return _with_own_targets(found, output, file_format), failures


def _names_a_file(output: Path) -> bool:
    return output.suffix.lower() in READABLE_EXTENSIONS | VIDEO_EXTENSIONS and not output.is_dir()


def _only_source(found: Iterable[Path], output: Path) -> list[Path]:
    sources = list(found)
    if len(sources) > 1:
        raise UserError(
            f"-o {printable(output)} names a file, but there are {len(sources)} files to restore; pass a folder"
        )
    return sources


def _named_job(source: Path, output: Path, file_format: str) -> Job:
    job = Job(source, output)
    kind, writable = ("videos", _WRITABLE_VIDEO_EXTENSIONS) if job.is_video else ("images", PHOTO_EXTENSIONS)
    extension = output.suffix.lower()
    if extension not in writable:
        raise UserError(
            f"-o {printable(output)}: {kind} are not written as '{extension}'; use {', '.join(sorted(writable))}"
        )
    if file_format not in (SAME_FORMAT, extension.removeprefix(".")):
        raise UserError(f"-o {printable(output)} and --format {file_format} contradict each other; leave one out")
    return job


def _with_own_targets(found: Mapping[Path, Path], output: Path, file_format: str) -> list[Job]:
    """A job per file.

    Where photo.jpg and photo.gif would both become photo.png, the latter is photo.gif.png; files of the same name from
    several folders keep the part of their folders that tells them apart.
    """
    targets = {source: output / _target_name(relative, file_format) for source, relative in found.items()}
    for source in _clashing(targets):
        if source.suffix.lower() != targets[source].suffix.lower():
            targets[source] = targets[source].with_name(found[source].name + targets[source].suffix)
    clashing = _clashing(targets)
    if clashing:
        common = Path(os.path.commonpath([source.absolute().parent for source in clashing]))
        for source in clashing:
            below = source.absolute().parent.relative_to(common)
            targets[source] = output / below / targets[source].relative_to(output)
    jobs = [Job(source, target) for source, target in targets.items()]
    _check_targets(jobs)
    return jobs


def _clashing(targets: Mapping[Path, Path]) -> list[Path]:
    taken = Counter(targets.values())
    return [source for source, target in targets.items() if taken[target] > 1]


def _expand_standard_input(paths: Sequence[str], standard_input: TextIO) -> Iterator[str]:
    for text in paths:
        if text != STANDARD_INPUT:
            yield text
            continue
        listed = _read_list(standard_input)
        separated = listed.split("\0") if "\0" in listed else listed.splitlines()
        yield from (line for line in separated if line.strip())


def _read_list(stream: TextIO) -> str:
    """All of a stream; names in any encoding, and a byte order mark that an editor left."""
    buffer = getattr(stream, "buffer", None)
    listed = stream.read() if buffer is None else os.fsdecode(buffer.read())
    return listed.removeprefix(codecs.BOM_UTF8.decode())


def _shortened(text: str) -> str:
    """A path as a message has room for."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def _expand(text: str, output: Path) -> Iterator[tuple[Path, Path]]:
    """(file, its path below the output folder) for one path, folder or pattern."""
    path = Path(text)
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for file in _files_below(path, output):
            yield file, file.relative_to(path)
    elif glob.has_magic(text):
        yield from _expand_pattern(text, output)


def _expand_pattern(text: str, output: Path) -> Iterator[tuple[Path, Path]]:
    """Files that match, with their path below the pattern's fixed part; folders that match are searched too."""
    parts = Path(text).parts
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    matches = glob.glob(text, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
    for match in sorted(map(Path, matches), key=natural_key):
        if match.is_file() and _is_restorable(match):
            yield match, match.relative_to(fixed)
        elif match.is_dir() and "**" not in parts:
            for file in _files_below(match, output):
                yield file, file.relative_to(fixed)


def _files_below(folder: Path, output: Path) -> list[Path]:
    """Images and videos in a folder and its subfolders, except for results of an earlier run."""
    inside = output.resolve() != folder.resolve() and output.resolve().is_relative_to(folder.resolve())
    files: Iterable[Path] = (file for file in folder.rglob("*") if _is_restorable(file) and file.is_file())
    if inside:
        files = (file for file in files if not file.resolve().is_relative_to(output.resolve()))
    return sorted(without_earlier_results(list(files), folder), key=natural_key)


def _is_restorable(path: Path) -> bool:
    known = path.suffix.lower() in READABLE_EXTENSIONS | VIDEO_EXTENSIONS
    return known and not path.name.startswith((".", TEMPORARY_PREFIX))


def _why_nothing(text: str) -> str:
    if Path(text).is_dir():
        return "no images or videos in this folder"
    return "no file matches this pattern" if glob.has_magic(text) else "no such file or folder"


def _target_name(relative: Path, file_format: str) -> Path:
    extension = relative.suffix.lower()
    if extension in VIDEO_EXTENSIONS:
        # Matroska holds every kind of sound; MP4 does not.
        return relative if extension in _WRITABLE_VIDEO_EXTENSIONS else relative.with_suffix(".mkv")
    if file_format != SAME_FORMAT:
        return relative.with_suffix(f".{file_format}")
    return relative if extension in PHOTO_EXTENSIONS else relative.with_suffix(".png")


def _check_targets(jobs: Sequence[Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        other = sources.setdefault(job.target, job.source)
        if other != job.source:
            raise UserError(
                f"{printable(other)} and {printable(job.source)} would both be written to {printable(job.target)}; "
                "restore them in two runs with different folders after -o"
            )
