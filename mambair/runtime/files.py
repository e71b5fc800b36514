"""Files that are either the old one or the whole new one, never a part, and their checksums."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
_READ_BYTES = 2**20


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file so that `path` changes in one step, after the data have reached the disk.

    Yields a temporary path in the same folder, with the same suffix, to be written (and closed) in the block. If the
    block raises, or the disk is full, or the process is killed, the file at `path` stays as it was; in the first two
    cases the temporary file is removed, and `remove_leftovers` finds those of killed processes. Missing parent
    folders are made.

        with atomic_write("models/net_g_5000.pth") as temporary:
            torch.save(state, temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        _flush_to_disk(temporary, os.O_RDWR)
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # not the temporary file's, which nobody knows, or none at all
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # Windows cannot open folders
        _flush_to_disk(path.parent, os.O_RDONLY)


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
