"""Lists of the results that lie among photos, so that they are not taken for photos.

Where results go into, or above, a folder of photos, a hidden list beside their folder names them:
`.restored.mambair-results` those below `restored`. A later search of the photos leaves them out, and only they may be
skipped or replaced there. Elsewhere no list is written.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from mambair.imaging.headers import printable

LIST_SUFFIX = ".mambair-results"

logger = logging.getLogger(__name__)


def list_beside(output: Path) -> Path:
    """Where the results below `output` are listed."""
    output = output.resolve()
    return output.with_name(f".{output.name}{LIST_SUFFIX}")


def read_list(path: Path) -> set[Path]:
    """The results that a list names, as absolute paths; none where there is no list."""
    folder = path.with_name(path.name.removeprefix(".").removesuffix(LIST_SUFFIX))
    try:
        names = path.read_bytes().split(b"\0")
    except OSError:
        return set()
    return {folder / os.fsdecode(name) for name in names if name}


def earlier_results(files: Iterable[Path]) -> set[Path]:
    """Those of the files that the lists beside the folders that they lie in name."""
    read = cache(lambda folder: read_list(list_beside(folder)))
    found = set()
    for file in files:
        place = file.resolve()
        if any(place in read(folder) for folder in place.parents if folder.name):
            found.add(file)
    return found


def without_earlier_results(files: Sequence[Path], folder: Path) -> list[Path]:
    """The files found in a folder that are no results of earlier runs; all, where they are nothing else."""
    results = earlier_results(files)
    photos = [file for file in files if file not in results]
    if not photos or len(photos) == len(files):
        return list(files)
    logger.info(
        "%s: %d results of earlier runs in it are left out; name their folder to restore them again",
        printable(folder),
        len(files) - len(photos),
    )
    return photos
