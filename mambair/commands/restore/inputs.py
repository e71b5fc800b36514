"""From what a user types to a list of files to restore and where each result goes."""

import codecs
import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mambair.commands.restore.found import READABLE_EXTENSIONS, VIDEO_EXTENSIONS, Search, natural_key
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.imaging.optional_formats import HEIC_EXTENSIONS, HEIC_REMEDY, reads_heic
from mambair.imaging.photo import PHOTO_EXTENSIONS
from mambair.runtime.files import FileMark

STANDARD_INPUT = "-"
SHOWN_CHARACTERS = 200

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


@dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    jobs: list[Job]
    failures: list[Failure]
    """Paths that lead to nothing, and photos that nothing here can read."""
    left_out: list[tuple[str, Path]]
    """(why, path) of files in folders that are not restored."""


def plan_jobs(paths: Sequence[str], output: Path, file_format: str, standard_input: TextIO) -> Plan:
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
    search = Search(output)
    for text in _expand_standard_input(paths, standard_input):
        try:
            matches = dict(_expand(text, search))
        except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be looked into
            failures.append(Failure(_shortened(text), getattr(error, "strerror", None) or str(error)))
            continue
        if not matches:
            failures.append(Failure(_shortened(text), _why_nothing(text)))
        known = {source.absolute() for source in found}
        found |= {source: place for source, place in matches.items() if source.absolute() not in known}
    if not found and not failures:
        raise UserError("nothing to restore: no paths were given on standard input")
    for folder, why in search.unreadable:
        failures.append(Failure(printable(folder), f"this folder cannot be listed ({why.strerror or why})"))
    failures += _take_out_heic(found)
    if _names_a_file(output):
        jobs = [_named_job(source, output, file_format) for source in _only_source(found, output)]
    else:
        jobs = _with_own_targets(found, output, file_format)
    return Plan(jobs, failures, search.left_out)


def _take_out_heic(found: dict[Path, Path]) -> list[Failure]:
    """HEIC photos where they cannot be read, as one failure; they are taken out of `found`."""
    if reads_heic():
        return []
    photos = [source for source in found if source.suffix.lower() in HEIC_EXTENSIONS and _is_heif(source)]
    for source in photos:
        del found[source]
    more = f" and {len(photos) - 1} more" if len(photos) > 1 else ""
    return [Failure(f"{printable(photos[0])}{more}", HEIC_REMEDY)] if photos else []


def _is_heif(source: Path) -> bool:
    """Whether a file is what its name says; JPEG files are called so too."""
    try:
        with source.open("rb") as stream:
            return stream.read(12)[4:8] == b"ftyp"
    except OSError:
        return False  # said when it is its turn


def _names_a_file(output: Path) -> bool:
    return output.suffix.lower() in READABLE_EXTENSIONS and not output.is_dir()


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


def _expand(text: str, search: Search) -> Iterator[tuple[Path, Path]]:
    """(file, its path below the output folder) for one path, folder or pattern."""
    path = Path(text)
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for file in search.below(path):
            yield file, file.relative_to(path)
    elif glob.has_magic(text):
        yield from _expand_pattern(text, search)


def _expand_pattern(text: str, search: Search) -> Iterator[tuple[Path, Path]]:
    """Files that match, with their path below the pattern's fixed part; folders that match are searched too."""
    parts = Path(text).parts
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    matches = glob.glob(text, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
    found = sorted(map(Path, matches), key=natural_key)
    recursive = "**" in parts  # which finds what is in folders itself
    for file in search.photos((match for match in found if not (recursive and match.is_dir())), fixed):
        yield file, file.relative_to(fixed)


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
