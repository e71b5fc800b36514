"""Many images through one function: in parallel, with a progress bar, restartable, never overwriting silently."""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.runtime.claims import claimed
from mambair.runtime.files import TEMPORARY_PREFIX, atomic_write, remove_leftovers
from mambair.runtime.log_setup import console

RECORD = ".mambair-data.json"
LOCK = ".mambair-data.lock"
LISTED_ERRORS = 20


@dataclass(frozen=True)
class Job:
    """One input and all files made of it; `make` (picklable, without arguments) writes each of them atomically."""

    source: Path
    targets: tuple[Path, ...]
    make: Callable[[], None]

    @property
    def done(self) -> bool:
        """Whether all files are there; they are written atomically, so those there are whole."""
        return all(target.is_file() for target in self.targets)


@contextmanager
def claimed_folder(folder: Path, tool: str, settings: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Make a folder this tool's output, or go on with one that it began with the same settings.

    A hidden file in the folder records tool and settings. Within the block no other process can claim the folder.
    Raises UserError where one has, and where files of other origin, or made with other settings, would be mixed with
    or replaced by new ones, unless `overwrite`.
    """
    record = json.loads(json.dumps({"tool": tool, "settings": settings}))
    path = folder / RECORD
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{printable(folder)}: is a file, but the output goes into a folder; name another")
    with claimed(folder / LOCK, printable(folder), "wait for its end, or name another folder"):
        if _has_files(folder) and not overwrite:
            _refuse_other_record(path, record)
        remove_leftovers(folder)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
        yield


def _has_files(folder: Path) -> bool:
    """Whether there is more than the record of a run that failed before its first file, and killed runs' leftovers."""
    return folder.is_dir() and any(
        entry.name not in (RECORD, LOCK) and not entry.name.startswith(TEMPORARY_PREFIX) for entry in folder.iterdir()
    )


def _refuse_other_record(path: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError unless a folder that has files has this record."""
    folder = path.parent
    if not path.is_file():
        raise UserError(f"{printable(folder)}: has files already; name another folder or give --overwrite")
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); remove the folder or give --overwrite") from error
    if earlier != record:
        raise UserError(
            f"{printable(folder)}: was made with other settings ({_one_line(earlier)}; now {_one_line(record)}); "
            "name another folder or give --overwrite"
        )


def _one_line(record: Any) -> str:
    settings = record.get("settings", {}) if isinstance(record, dict) else {}
    words = " ".join(f"{key}={value}" for key, value in settings.items())
    return f"{record.get('tool', '?') if isinstance(record, dict) else '?'} {words}".strip()


def run_jobs(jobs: Iterable[Job], label: str, workers: int, overwrite: bool) -> int:
    """Run what is not done yet (all of it if `overwrite`) on `workers` processes; returns how many were run.

    Jobs that fail do not stop the others; all failures are listed in one UserError at the end.
    """
    jobs = list(jobs)
    _refuse_clashes(jobs)
    waiting = [job for job in jobs if overwrite or not job.done]
    errors: list[str] = []
    with progress_bar() as progress:
        bar = progress.add_task(label, total=len(jobs), completed=len(jobs) - len(waiting))
        for error in _results(waiting, workers):
            if error is not None:
                errors.append(error)
            progress.advance(bar)
    if errors:
        more = [f"... and {len(errors) - LISTED_ERRORS} more"] if len(errors) > LISTED_ERRORS else []
        lines = "\n".join(f"  {line}" for line in sorted(errors)[:LISTED_ERRORS] + more)
        raise UserError(f"{len(errors)} of {len(jobs)} images failed, the others are done:\n{lines}")
    console.print(f"{label}: {len(waiting)} images done, {len(jobs) - len(waiting)} were there before", markup=False)
    return len(waiting)


def progress_bar() -> Progress:
    """The progress bar of the data commands."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _refuse_clashes(jobs: list[Job]) -> None:
    """Two inputs that would write the same file, such as a.png and a.jpg; results that would replace inputs."""
    inputs = {job.source.resolve() for job in jobs}
    for target in (target for job in jobs for target in job.targets):
        if target.resolve() in inputs:
            raise UserError(f"{printable(target)}: would replace the image it is made from; name another folder")
    writers: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            if target in writers:
                raise UserError(
                    f"{printable(writers[target])} and {printable(job.source)} would both be written to "
                    f"{printable(target)}; rename one"
                )
            writers[target] = job.source


def _results(jobs: list[Job], workers: int) -> Iterable[str | None]:
    """Error message, or None, of each job as it ends."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_run, jobs)
        return
    # Forked children of a process with threads can hang on a lock that nobody will release.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_begin_worker) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """One thread for images, as there is a process for each core, and one that ends the process with its parent.

    A killed parent cannot end its workers, and they would wait for work for ever.
    """
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker"
    parent.join()
    os._exit(1)


def _run(job: Job) -> str | None:
    try:
        job.make()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{printable(job.source)}: {error.strerror or error} ({printable(error.filename or 'output')})"
    return None


def default_workers() -> int:
    """All cores of this machine."""
    return os.cpu_count() or 1
