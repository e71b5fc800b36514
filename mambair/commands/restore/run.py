"""The work of `mambair restore`: read, restore, write, and go on where a file is bad."""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mambair.commands.restore.advice import Adviser
from mambair.commands.restore.inputs import Job
from mambair.commands.restore.outcome import Outcome, Pace
from mambair.commands.restore.video import restore_video
from mambair.errors import UserError
from mambair.imaging.headers import printable, read_header
from mambair.imaging.photo import Photo, check_size, encode_photo, fitted, read_photo
from mambair.imaging.pixels import to_uint8
from mambair.runtime.files import FileMark, WrittenMeanwhileError, write_unless_changed
from mambair.runtime.freed_memory import give_back_freed_memory
from mambair.runtime.log_setup import console

if TYPE_CHECKING:
    from mambair.inference.restorer import Restorer

T = TypeVar("T")

# Encoding a PNG takes longer than a GPU needs for its pixels. One reader, since the order matters; results that wait to
# be written take memory: no more of them may than are written at once, and fewer of those that are large.
READERS, WRITERS = 1, 4
WAITING_BYTES = 2**29
HEADER_THREADS = 16


class SpeedColumn(ProgressColumn):
    """Finished items per second."""

    def render(self, task: Task) -> Text:
        speed = task.completed / task.elapsed if task.elapsed else 0
        return Text(f"{speed:.2f} {task.fields['unit']}/s" if speed else "")


def make_folder(folder: Path) -> None:
    """Make the folder of the results; raises UserError, before the work, where nothing could be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{printable(folder)}: cannot be made a folder ({reason}); pass another after -o") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{printable(folder)}: this folder cannot be written to; pass another after -o")


def check_headers(jobs: Sequence[Job], scale: int, outcome: Outcome) -> list[Job]:
    """The jobs that their files' headers promise well; the others go to `outcome`, before any image is restored."""

    def wrong(job: Job) -> str | None:
        if job.is_video:
            return None
        try:
            header = read_header(job.source)
            check_size(job.target, header.height * scale, header.width * scale, header.channels)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        reasons = list(pool.map(wrong, jobs))
    for job, reason in zip(jobs, reasons, strict=True):
        if reason is not None:
            outcome.fail(job, reason)
    return [job for job, reason in zip(jobs, reasons, strict=True) if reason is None]


def read_groups(
    jobs: Iterable[Job], batch: int, bits: str, outcome: Outcome, adviser: Adviser | None = None
) -> Iterator[list[tuple[Job, Photo]]]:
    """Read photos in order, in groups of at most `batch` of one shape and depth; bad files go to `outcome`.

    So do those whose results another process has written by now, and what `adviser` says of each photo.
    """
    group: list[tuple[Job, Photo]] = []
    for job in jobs:
        if FileMark.of(job.target) not in (job.replaces, None):
            outcome.lose(job)
            continue
        try:
            photo = read_photo(job.source)
            if adviser is not None and (advice := adviser(job.source, photo.pixels)) is not None:
                outcome.advise(job, advice.seen, advice.text)
            photo = fitted(job.target, photo.deepened() if bits == "16" else photo)  # before the work, not after it
        except UserError as error:
            outcome.fail(job, str(error))
            continue
        if group and (len(group) == batch or not _alike(photo, group[0][1])):
            yield group
            group = []
        group.append((job, photo))
    if group:
        yield group


def _alike(photo: Photo, other: Photo) -> bool:
    alone = photo.further or other.further
    return not alone and photo.pixels.shape == other.pixels.shape and photo.pixels.dtype == other.pixels.dtype


def read_ahead(groups: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """The same groups, each read in `pool` while the one before it is in use."""
    coming = pool.submit(next, groups, None)
    while (group := coming.result()) is not None:
        coming = pool.submit(next, groups, None)
        yield group


def writes_ahead(results: Sequence[tuple[Job, Photo]]) -> int:
    """How many results like these may wait while the network goes on."""
    largest = max((sum(image.nbytes for image in photo.images) for _, photo in results), default=1)
    return max(1, min(WRITERS, WAITING_BYTES // largest))


def settle(writes: deque[tuple[Job, Future]], outcome: Outcome, allowed: int) -> None:
    """Count the writes that are done, and wait until at most `allowed` are not."""
    while writes and (len(writes) > allowed or writes[0][1].done()):
        job, write = writes.popleft()
        try:
            dropped = write.result()
        except WrittenMeanwhileError:
            outcome.lose(job)
        except UserError as error:
            outcome.fail(job, str(error))
        except OSError as error:
            outcome.fail(job, f"the result cannot be written to {printable(job.target)} ({error.strerror or error})")
        else:
            outcome.succeed(job)
            for what in dropped:
                outcome.note(job, f"not in the result: {what}")


def write_result(job: Job, photo: Photo, quality: int) -> tuple[str, ...]:
    """Write a result to its place, unless another process wrote one there meanwhile (WrittenMeanwhileError).

    Returns in words what of the photo was left out.
    """
    data, dropped = encode_photo(job.target, photo, quality)
    with write_unless_changed(job.target, job.replaces) as temporary:
        temporary.write_bytes(data)
    return dropped


class RestoreRun:
    """Restores a list of files with one model.

    Args:
        restorer: the model.
        batch: photos of one size, or frames of a video, restored together.
        bits: depth of the results: "same" as each source, "8" or "16".
        quality: of JPEG and WebP results, 1 to 100.
        adviser: looks at each photo and says which task would suit it better, if any.
    """

    def __init__(
        self, restorer: "Restorer", *, batch: int, bits: str, quality: int, adviser: Adviser | None = None
    ) -> None:
        self.restorer, self.batch, self.bits, self.quality = restorer, batch, bits, quality
        self.adviser = adviser

    def run(self, jobs: Sequence[Job], outcome: Outcome) -> None:
        """Restore all jobs; counts, failures and the pace go to `outcome`."""
        outcome.pace = Pace()
        before = outcome.finished
        jobs = check_headers(jobs, self.restorer.scale, outcome)
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            SpeedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("restoring", total=len(jobs) + outcome.finished - before, unit="images")
            for is_video, group in itertools.groupby(jobs, key=lambda job: job.is_video):
                stretch = list(group)
                if is_video:
                    work = self._restore_videos(stretch, progress, outcome)
                else:
                    work = self._restore_photos(stretch, outcome)
                for _ in work:
                    progress.update(task, completed=outcome.finished - before)
            progress.update(task, completed=outcome.finished - before)
        outcome.pace.stop()

    def _restore_photos(self, jobs: Iterable[Job], outcome: Outcome) -> Iterator[None]:
        """One step per group. The next one is read, and the last results are written, while the network computes."""
        writes: deque[tuple[Job, Future]] = deque()
        groups = read_groups(jobs, self.batch, self.bits, outcome, self.adviser)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers:
            for group in read_ahead(groups, readers):
                results = self._restore_group(group, outcome)
                allowed = writes_ahead(results)
                while results:  # none is held here while the next group is restored
                    job, photo = results.pop(0)
                    writes.append((job, writers.submit(write_result, job, photo, self.quality)))
                    del photo
                settle(writes, outcome, allowed)
                yield
            settle(writes, outcome, allowed=0)
            yield

    def _restore_videos(self, jobs: Iterable[Job], progress: Progress, outcome: Outcome) -> Iterator[None]:
        for job in jobs:
            self._restore_video(job, progress, outcome)
            yield

    def _restore_images(self, images: list[np.ndarray], outcome: Outcome) -> list[np.ndarray]:
        results = self.restorer.restore(images)
        outcome.pace.count(len(images))
        return results

    def _restore_group(self, group: Sequence[tuple[Job, Photo]], outcome: Outcome) -> list[tuple[Job, Photo]]:
        """The group's results; none if it cannot be restored."""
        images = [image for _, photo in group for image in photo.images]
        results: list[np.ndarray] = []
        try:
            for start in range(0, len(images), self.batch):
                results += self._restore_images(images[start : start + self.batch], outcome)
        except UserError as error:
            for job, _ in group:
                outcome.fail(job, str(error))
            return []
        if self.restorer.device.type == "cpu":
            give_back_freed_memory()  # before its pieces become too small for the next photo's tensors
        results = [*map(to_uint8, results)] if self.bits == "8" else results
        rest = iter(results)
        return [(job, photo.with_images([*itertools.islice(rest, len(photo.images))])) for job, photo in group]

    def _restore_video(self, job: Job, progress: Progress, outcome: Outcome) -> None:
        frames = progress.add_task(job.source.name, total=None, unit="frames")
        try:
            restore_video(
                job.source,
                job.target,
                partial(self._restore_images, outcome=outcome),
                self.batch,
                lambda done, total: progress.update(frames, completed=done, total=total or None),
                bits=self.bits,
                note=partial(outcome.note, job),
                write=partial(write_unless_changed, earlier=job.replaces),
            )
        except WrittenMeanwhileError:
            outcome.lose(job)
        except (UserError, OSError) as error:
            outcome.fail(job, str(error))
        else:
            outcome.succeed(job)
        finally:
            progress.remove_task(frames)
