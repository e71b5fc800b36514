"""Files that are either the old one or the whole new one, never a part, and their checksums."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mambair.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
_NO_LINKS = {
    getattr(errno, name)
    for name in ("EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EMLINK")
    if hasattr(errno, name)
}
_READ_BYTES = 2**20


Put = Callable[[Path, Path], object]
"""Gives a finished temporary file (first) its name (second)."""


class WrittenMeanwhileError(UserError):
    """Another process has written the file since it was looked for."""


@dataclass(frozen=True)
class FileMark:
    """Tells a file from another one that took its place."""

    inode: int
    size: int
    changed: int
    """Nanoseconds."""

    @classmethod
    def of(cls, path: Path) -> "FileMark | None":
        """Of the file at `path`; None where there is none."""
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@contextmanager
def atomic_write(path: str | Path, put: Put | None = None) -> Iterator[Path]:
    """Write a file so that `path` changes in one step, after the data have reached the disk.

    Yields a temporary path in the same folder, with the same suffix, to be written (and closed) in the block. If the
    block raises, or the disk is full, or the process is killed, the file at `path` stays as it was; in the first two
    cases the temporary file is removed, and `remove_leftovers` finds those of killed processes. Missing parent
    folders are made. `put` gives the temporary file its name where that is not to replace any other.

        with atomic_write("models/net_g_5000.pth") as temporary:
            torch.save(state, temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        _flush_to_disk(temporary, os.O_RDWR)
        if put is None:
            temporary.replace(path)
        else:
            put(temporary, path)
    except OSError as error:
        error.filename = str(path)  # not the temporary file's, which nobody knows, or none at all
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # Windows cannot open folders
        _flush_to_disk(path.parent, os.O_RDONLY)


def write_unless_changed(path: str | Path, earlier: FileMark | None = None) -> AbstractContextManager[Path]:
    """As `atomic_write`, but never over what another process wrote meanwhile: of two that write, the first one wins.

    `earlier` marks the file that may be replaced; None: there was none, and there must be none. Raises
    WrittenMeanwhileError otherwise, at the end of the block.
    """
    return atomic_write(path, partial(_put_over, earlier))


def _put_over(earlier: FileMark | None, temporary: Path, path: Path) -> None:
    if earlier is not None and FileMark.of(path) == earlier:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        # An answer of a network file system may be lost and the link be asked for twice.
        if not path.exists() or not temporary.samefile(path):
            raise _written_meanwhile(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _put_without_links(temporary, path)


def _put_without_links(temporary: Path, path: Path) -> None:
    """Take the name with an empty file, which no second process can, then put the whole one in its place."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise _written_meanwhile(path) from None
    temporary.replace(path)


def _written_meanwhile(path: Path) -> WrittenMeanwhileError:
    return WrittenMeanwhileError(f"{path}: another process wrote this result meanwhile; it stays as it is")


def _flush_to_disk(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete the temporary files that killed processes left in `folder` and below it; returns their paths."""
    leftovers = sorted(path for path in folder.rglob(f"{TEMPORARY_PREFIX}*") if path.is_file())
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
