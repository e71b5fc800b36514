"""Training runs put together from their logs: pace, memory and validations, the starts of a run joined to one."""

import bisect
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mambair.analysis.log_lines import Devices, Memory, Piece, Scores, Stretch, larger, read_pieces
from mambair.errors import UserError

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class LoggedRun:
    """A run, whatever number of starts it took. Iterations that were done again count once, as they were done last.

    Its times are device time: seconds times processes, each of which has a device. So they compare what runs cost even
    if these were done on different numbers of GPUs, or one of them in pieces on different numbers.
    """

    name: str
    network: str
    parameters: int
    memory: Memory | None
    """None on CPUs."""
    starts: int
    stretches: tuple[Stretch, ...]
    validations: dict[str, dict[int, Scores]]
    """Data set -> iteration -> metric -> mean."""

    @property
    def devices(self) -> tuple[Devices, ...]:
        """What it ran on, each once, in order of first use."""
        return tuple(dict.fromkeys(stretch.devices for stretch in self.stretches))

    @property
    def seconds_per_iteration(self) -> float:
        """The median pace in device seconds, without waiting for data and without the first log line of each start."""
        return statistics.median([stretch.computing for stretch in self._typical()])

    @property
    def waiting_per_iteration(self) -> float:
        """The median of the device seconds that an iteration waited for data."""
        return statistics.median([stretch.waiting for stretch in self._typical()])

    @property
    def images_per_second(self) -> float:
        """Images per device second, at the median pace; infinite where logs are too coarse to tell it."""
        images = statistics.median([stretch.images for stretch in self._typical()])
        return images / self.seconds_per_iteration if self.seconds_per_iteration else math.inf

    def _typical(self) -> list[Stretch]:
        logged = [stretch for stretch in self.stretches if stretch.pace is not None]
        return [stretch for stretch in logged if not stretch.is_warm_up] or logged

    def _usual(self, devices: Devices) -> float:
        """The median of device seconds per iteration on these devices, or on all where no line tells of these."""
        typical = self._typical()
        return statistics.median(
            [stretch.computing for stretch in typical if stretch.devices == devices]
            or [stretch.computing for stretch in typical]
        )

    def device_seconds(self, iteration: int) -> float:
        """Device seconds of computing up to an iteration, without waiting for data, validating and saving.

        The first log line of the run counts as it was, with the compiling in it. That of each later start counts with
        the median pace on its devices: compiling kernels once more is due to the interruption, not to the network. So
        do iterations that no line tells of.
        """
        first_line = next((stretch for stretch in self.stretches if stretch.is_warm_up), None)
        knots, seconds = [0], [0.0]
        for stretch in self.stretches:
            is_usual = stretch.pace is None or (stretch.is_warm_up and stretch is not first_line)
            pace = self._usual(stretch.devices) if is_usual else stretch.computing
            knots.append(stretch.last)
            seconds.append(seconds[-1] + pace * (stretch.last - stretch.first))
        return float(np.interp(iteration, knots, seconds))

    def iterations(self) -> list[int]:
        """Those with a validation on every data set, ascending."""
        sets = [set(found) for found in self.validations.values()]
        return sorted(set.intersection(*sets)) if sets else []

    def last_within(self, seconds: float) -> int | None:
        """The last validated iteration that so many device seconds of computing reach; None if there is none."""
        iterations = self.iterations()
        times = [self.device_seconds(iteration) for iteration in iterations]
        position = bisect.bisect_right(times, seconds)
        return iterations[position - 1] if position else None


def device_time(runs: Iterable[LoggedRun], unit: str) -> str:
    """What device time of these runs is called in `unit`: "GPU hours", or just "hours" of one process on a CPU."""
    devices = [each for run in runs for each in run.devices]
    if all(each.are_gpus for each in devices):
        return f"GPU {unit}"
    return unit if all(each.count == 1 for each in devices) else f"process {unit}"


def read_run(folder: Path, name: str | None = None) -> LoggedRun:
    """Read all logs in experiments/<name>. Raises UserError where there are none, or no validation in them.

    `name` is what tables and figures call it; default: the folder's.
    """
    logs = sorted(folder.glob("train_*.log"))
    if not logs:
        raise UserError(f"{folder}: holds no train_*.log; pass the folder of a run, experiments/<name>")
    pieces = [piece for log in logs for piece in read_pieces(log.read_text(encoding="utf-8").splitlines())]
    run = join_pieces(name or folder.name, pieces)
    if not run.iterations() or all(stretch.pace is None for stretch in run.stretches):
        raise UserError(f"{folder}: its logs tell of no validated iterations; they need datasets.val and val.val_freq")
    return run


def join_pieces(name: str, pieces: Iterable[Piece]) -> LoggedRun:
    """One run of its starts, in order; each undoes what earlier ones did beyond the iteration it goes on after."""
    pieces = list(pieces)
    stretches: list[Stretch] = []
    validations: dict[str, dict[int, Scores]] = {}
    memory = None
    for before, piece in zip([None, *pieces], pieces, strict=False):
        stretches = _cut(stretches, piece.start)
        for found in validations.values():
            for iteration in [iteration for iteration in found if iteration > piece.start]:
                del found[iteration]
        stretches += [*_untold(stretches, piece.start, before or piece), *piece.stretches]
        for dataset, found in piece.validations.items():
            validations.setdefault(dataset, {}).update(found)
        memory = larger(memory, piece.memory)
    validated = max((iteration for found in validations.values() for iteration in found), default=0)
    stretches += [each for piece in pieces[-1:] for each in _untold(stretches, validated, piece)]
    return LoggedRun(
        name=name,
        network=pieces[-1].network if pieces else "",
        parameters=pieces[-1].parameters if pieces else 0,
        memory=memory,
        starts=sum(bool(piece.stretches) for piece in pieces),
        stretches=tuple(stretches),
        validations=validations,
    )


def _cut(stretches: list[Stretch], end: int) -> list[Stretch]:
    """The stretches up to iteration `end`."""
    return [replace(each, last=min(each.last, end)) for each in stretches if each.first < end]


def _untold(stretches: list[Stretch], end: int, piece: Piece) -> list[Stretch]:
    """The iterations up to `end` that no log line tells of and that `piece` did."""
    last = stretches[-1].last if stretches else 0
    return [Stretch(last, end, piece.devices)] if last < end else []
