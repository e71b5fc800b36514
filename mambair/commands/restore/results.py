"""Results that are there already, and photos in their places, which are none."""

import glob
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mambair.commands.restore.inputs import Job
from mambair.commands.restore.lists import list_beside, read_list
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.runtime.files import FileMark

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What may be done with results that exist, and the list of those that are made.

    Attributes:
        listed: those below `output` that earlier runs made.
        list_path: where to add new ones; None where results lie apart from photos.
    """

    output: Path
    listed: frozenset[Path] = frozenset()
    list_path: Path | None = None

    @classmethod
    def of_run(cls, paths: Iterable[str], output: Path, jobs: Sequence[Job]) -> "Results":
        """Those of a run with these arguments.

        Raises UserError where a result would take the place of a photo that is to be restored.
        """
        refuse_own_sources(jobs)
        if len(jobs) == 1 and jobs[0].target == output:
            beside = output.resolve().parent == jobs[0].source.resolve().parent
            return cls(output.parent, list_path=list_beside(output.parent) if beside else None)
        where = output.resolve()
        searched = [folder.resolve() for folder in searched_folders(paths)]
        parents = {job.source.resolve().parent for job in jobs}
        inside = any(where == folder or folder in where.parents for folder in {*searched, *parents})
        above = any(where in folder.parents for folder in searched)
        if (not inside and not above) or not where.name:  # beside the root of a disk is no place for a list
            return cls(output)
        apart = not above and where not in parents and not any(where.is_relative_to(folder) for folder in searched)
        results = cls(output, frozenset(read_list(list_beside(output))), list_beside(output))
        if not apart:
            results.refuse_photos(jobs)
        return results

    def refuse_photos(self, jobs: Sequence[Job]) -> None:
        """Raise UserError for a file in a result's place that no run is known to have made."""
        for job in jobs:
            if os.path.lexists(job.target) and job.target.resolve() not in self.listed:
                raise UserError(
                    f"{printable(job.target)}: lies among the photos and is not known as a result: it may be a photo; "
                    "pass another folder after -o, or move it away"
                )

    def split_finished(self, jobs: Sequence[Job], *, skip_existing: bool, overwrite: bool) -> tuple[list[Job], int]:
        """The jobs to do, and the number of those left out because their results exist.

        Raises UserError if results exist and the user has not said what to do with them.
        """
        existing = [job for job in jobs if os.path.lexists(job.target)]
        if not existing:
            return list(jobs), 0
        if overwrite:
            return [replace(job, replaces=FileMark.of(job.target)) for job in jobs], 0
        if not skip_existing:
            more, them = " exists", "it"
            if len(existing) > 1:
                more, them = f" and {len(existing) - 1} more results exist", "them"
            raise UserError(
                f"{printable(existing[0].target)}{more}; pass --skip-existing to keep {them}, --overwrite to replace "
                f"{them}, or something else after -o"
            )
        skipped = {job.target for job in existing}
        return [job for job in jobs if job.target not in skipped], len(existing)

    def add(self, target: Path) -> None:
        """Note a result that has been written. A list that cannot be written is done without."""
        if self.list_path is None or target.resolve() in self.listed:
            return
        name = os.path.relpath(target.resolve(), self.output.resolve())
        try:
            with self.list_path.open("ab") as file:
                file.write(os.fsencode(name) + b"\0")
        except OSError as error:
            logger.debug("%s: cannot be written (%s)", self.list_path, error.strerror)


def refuse_own_sources(jobs: Sequence[Job]) -> None:
    """Raise UserError where a result would take the place of a photo of the same run."""
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise UserError(
                f"{printable(job.target)}: the result would take the place of this photo; pass another folder after -o"
            )


def searched_folders(paths: Iterable[str]) -> list[Path]:
    """The folders among what the user typed, and the fixed parts of patterns."""
    folders = []
    for text in paths:
        path = Path(text)
        if os.path.isdir(text):  # noqa: PTH112 (which raises nothing for names that are too long)
            folders.append(path)
        elif glob.has_magic(text):
            parts = path.parts
            fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
            folders.append(Path(*parts[:fixed]))
    return folders
