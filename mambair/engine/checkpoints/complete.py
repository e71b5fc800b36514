"""Which checkpoints are whole: found out before one is used."""

import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from mambair.engine.checkpoints.files import CheckpointFolders, read_state
from mambair.errors import UserError
from mambair.runtime.files import sha256_of
from mambair.weights.state_files import read_weights_file

logger = logging.getLogger(__name__)


def newest_complete(folders: CheckpointFolders, networks: Iterable[str]) -> Path | None:
    """The state file of the newest checkpoint of which no part is missing or damaged; None if there is none.

    Every newer one that is passed over is logged with what is wrong with it.
    """
    for iteration in folders.iterations():
        problem = find_damage(folders, iteration, networks)
        if problem is None:
            return folders.state(iteration)
        logger.warning("checkpoint %d is not complete and passed over: %s", iteration, problem)
    return None


def find_damage(folders: CheckpointFolders, iteration: int, networks: Iterable[str]) -> str | None:
    """What is wrong with a checkpoint, None if nothing is.

    Without a list of checksums (BasicSR writes none) all files must be readable, and their own checksums right.
    """
    checksums = folders.checksums(iteration)
    try:
        if checksums.is_file():
            return find_mismatch(checksums)
        for name in networks:
            read_weights_file(folders.weights(name, iteration))
        read_state(folders.state(iteration))
        for path in (folders.state(iteration), *(folders.weights(name, iteration) for name in networks)):
            if has_damaged_member(path):
                return f"{path} is damaged (a checksum in it differs)"
    except UserError as error:
        return str(error)
    except OSError as error:  # a failing disk
        return f"{error.filename or 'one of its files'} cannot be read ({error.strerror or error})"
    return None


def has_damaged_member(path: Path) -> bool:
    """Whether torch's archive, a zip file, holds something that is not as it was written; torch does not look."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error, struct.error):
        return True


def find_mismatch(checksums: Path) -> str | None:
    """The first file of a list of checksums that is missing or differs, None if all are as they were written.

    Raises OSError where a file is there and cannot be read.
    """
    lines = checksums.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        expected, _, name = line.partition("  ")
        path = Path(os.path.normpath(checksums.parent / name))
        if not name:
            return f"{checksums} is damaged"
        if not path.is_file():
            return f"{path} is missing"
        if sha256_of(path) != expected:
            return f"{path} is damaged (its checksum differs)"
    return None if lines else f"{checksums} is empty"
