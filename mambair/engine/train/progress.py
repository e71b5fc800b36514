"""What a training run shows while it runs: a bar on a terminal, and a log line every so often."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mambair.runtime.distributed import is_main_process
from mambair.runtime.log_setup import console

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How fast iterations went since the last log line."""

    seconds: float
    """Per iteration."""
    data_seconds: float
    """Of these, waiting for data."""
    images_per_second: float
    """Over all processes."""


class TrainingProgress:
    """Counts iterations and shows how far a run is.

    Args:
        total_iter, start_iter: iterations in all, and those done before.
        device: whose memory is shown.
        enabled: draw the bar (which happens on a terminal only).
    """

    def __init__(self, total_iter: int, start_iter: int, device: torch.device, enabled: bool = True) -> None:
        self.total_iter = total_iter
        self.iteration = start_iter
        self.device = device
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            disable=not (enabled and is_main_process() and console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=total_iter, completed=start_iter, pace="")
        self._begin()

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        self._begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def _begin(self) -> None:
        self._since = time.perf_counter()
        self._paused = self._data_seconds = 0.0
        self._images = self._iterations = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time in this block as waiting for data."""
        start = time.perf_counter()
        yield
        self._data_seconds += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Takes the bar away and leaves this block (validation, saving) out of the pace."""
        start = time.perf_counter()
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()
            self._paused += time.perf_counter() - start

    def advance(self, images: int) -> None:
        """An iteration of that many images, over all processes, is done."""
        self.iteration += 1
        self._images += images
        self._iterations += 1
        self._bar.update(self._task, completed=self.iteration, pace=self._describe_pace())

    def pace(self) -> Pace:
        """The pace since the last log line."""
        elapsed = max(time.perf_counter() - self._since - self._paused, 1e-9)
        count = max(self._iterations, 1)
        return Pace(elapsed / count, self._data_seconds / count, self._images / elapsed)

    def _describe_pace(self) -> str:
        pace = self.pace()
        return f"{pace.images_per_second:.1f} images/s, {self._remaining(pace)} left"

    def _remaining(self, pace: Pace) -> str:
        return str(timedelta(seconds=round(pace.seconds * (self.total_iter - self.iteration))))

    def log(self, losses: Mapping[str, float], rates: Mapping[str, float], norms: Mapping[str, float]) -> Pace:
        """Write a log line and begin to measure anew; returns the pace it tells."""
        pace = self.pace()
        parts = [
            f"iter {self.iteration:,}/{self.total_iter:,}",
            *(f"{name} {value:.4e}" for name, value in losses.items()),
            *(f"lr {value:.3e}" for value in dict.fromkeys(rates.values())),
            *(f"grad {value:.3g}" for value in norms.values()),
            f"{pace.seconds:.3f} s/iter (data {pace.data_seconds:.3f})",
            f"{pace.images_per_second:.1f} images/s",
            f"eta {self._remaining(pace)}",
        ]
        if self.device.type == "cuda":
            parts.append(f"memory {torch.cuda.max_memory_allocated(self.device) / 2**30:.1f} GiB")
        logger.info(" | ".join(parts))
        self._begin()
        return pace
