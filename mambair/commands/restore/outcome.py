"""What became of the files of a run of `mambair restore`, and how fast it went."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mambair.commands.restore.inputs import Failure, Job
from mambair.imaging.headers import printable

logger = logging.getLogger(__name__)

MILLISECONDS_BELOW = 1.0
SHOWN_NAMES = 3


@dataclass
class Pace:
    """Time from the beginning, of the first call of the network with all that it prepares, and of those after it.

    Images are photos and frames of videos.
    """

    started: float = field(default_factory=time.perf_counter)
    images: int = 0
    first_images: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0

    def count(self, images: int) -> None:
        """Note that so many images were restored together."""
        if self.images == 0:
            self.first_images, self.first_seconds = images, time.perf_counter() - self.started
        self.images += images

    def stop(self) -> None:
        """Note that all work is done, and all results are written."""
        self.seconds = time.perf_counter() - self.started

    def __str__(self) -> str:
        later = self.images - self.first_images
        if not later:
            return f"{self.seconds:.1f} s"
        each = (self.seconds - self.first_seconds) / later
        first = "the first" if self.first_images == 1 else f"the first {self.first_images}"
        return (
            f"{self.seconds:.1f} s ({first} in {self.first_seconds:.1f} s, then "
            f"{each:.{3 if each < MILLISECONDS_BELOW else 1}f} s an image)"
        )


@dataclass
class Outcome:
    """What became of the files of one run."""

    keep_others: bool = False
    """Whether results that other processes wrote meanwhile are left to them, or count as failures."""
    on_success: Callable[[Job], None] = lambda job: None
    """Called for every result that has been written."""
    restored: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Why files in folders are not restored, and which."""
    pace: Pace = field(default_factory=Pace)
    lost: int = 0
    """Files whose results other processes wrote meanwhile; counted among those skipped, or as failures."""
    noted: Counter[str] = field(default_factory=Counter)
    """How many files each line that was said of a result holds for."""

    @property
    def finished(self) -> int:
        """Files that need no more work, well or badly."""
        return self.restored + len(self.failures) + (self.lost if self.keep_others else 0)

    def succeed(self, job: Job) -> None:
        """Note that a result has been written."""
        self.restored += 1
        self.on_success(job)

    def lose(self, job: Job) -> None:
        """Note that another process wrote the result of a file first."""
        self.lost += 1
        if self.keep_others:
            self.skipped += 1
        else:
            self.fail(job, f"another process wrote {printable(job.target)} meanwhile; it stays as it is")

    def fail(self, job: Job, reason: str) -> None:
        """Note and print that a file could not be restored."""
        name = printable(job.source)
        self.failures.append(Failure(name, reason.removeprefix(f"{name}: ")))
        logger.error("%s", reason if reason.startswith(name) else f"{name}: {reason}")

    def note(self, job: Job, text: str) -> None:
        """Print what a user should know of a file's result; of what holds for many, once and with the last lines."""
        self.noted[text] += 1
        if self.noted[text] == 1:
            logger.warning("%s: %s", printable(job.source), text)

    def advise(self, job: Job, seen: str, text: str) -> None:
        """Print what would suit a photo better, and what was seen of it; for many, once and with the last lines."""
        self.noted[text] += 1
        if self.noted[text] == 1:
            logger.info("%s: %s; %s", printable(job.source), seen, text)

    def leave_out(self, why: str, path: Path) -> None:
        """Note that a file in a folder is not restored; printed at once the first time, and with the last lines."""
        if why not in self.left_out:
            logger.warning("%s: left out: %s", printable(path), why)
        self.left_out.setdefault(why, []).append(printable(path))

    def summary(self, output: Path) -> Iterator[str]:
        """The last lines of a run: how many, how fast, where, what was left out, and every file that failed."""
        parts = [f"restored {self.restored}"]
        if self.skipped:
            parts.append(f"skipped {self.skipped} that existed")
        if self.failures:
            parts.append(f"failed {len(self.failures)}")
        speed = f" in {self.pace}; results: {output}" if self.restored else ""
        yield ", ".join(parts) + speed
        for text, files in self.noted.items():
            if files > 1:
                yield f"  {files} files: {text}"
        for why, names in self.left_out.items():
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            yield f"  left out: {why}: {', '.join(names[:SHOWN_NAMES])}{more}"
        for failure in self.failures:
            yield f"  failed: {failure.path}: {failure.reason}"
