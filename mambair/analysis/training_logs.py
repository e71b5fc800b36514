"""What training runs did, read from their logs: pace, memory and validations, the starts of a run joined to one."""

import bisect
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mambair.errors import UserError

Scores = dict[str, float]

# The lines that mambair.engine.run_log, progress and run_validation write.
_BEGINNING = re.compile(r"INFO: .+ in .+ on (?P<hardware>.+) \(mambair [^()]+\)$")
_NETWORK = re.compile(r"INFO: net_g: (?P<network>.+), (?P<parameters>[\d,]+) parameters$")
_GOING_ON = re.compile(r"INFO: going on after iteration (?P<iteration>[\d,]+) from ")
_ITERATION = re.compile(
    r"INFO: iter (?P<iteration>[\d,]+)/[\d,]+ \| .*?(?P<seconds>[\d.]+) s/iter \(data (?P<data>[\d.]+)\)"
    r" \| (?P<images>[\d.]+) images/s"
)
_MEMORY = re.compile(r" \| memory (?P<gibibytes>[\d.]+) GiB$")
_VALIDATION = re.compile(r"INFO: validation at (?P<iteration>[\d,]+) on (?P<dataset>.+?): (?P<scores>.+ \(best .+)$")
_SCORE = re.compile(r"(\w+) (\S+) \(best ")


@dataclass(frozen=True)
class Stretch:
    """Iterations that one log line tells of: those after `first`, up to `last`."""

    first: int
    last: int
    seconds: float
    """Per iteration, waiting for data included."""
    data_seconds: float
    """Of these, waiting for data."""
    images_per_second: float
    is_warm_up: bool = False
    """Whether a start of the run lies in it: kernels are compiled and chosen there."""

    @property
    def computing(self) -> float:
        """Seconds per iteration without waiting for data."""
        return max(self.seconds - self.data_seconds, 0.0)


@dataclass
class Piece:
    """One start of a run."""

    hardware: str
    start: int = 0
    network: str = ""
    parameters: int = 0
    memory: float | None = None
    stretches: list[Stretch] = field(default_factory=list)
    validations: dict[str, dict[int, Scores]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoggedRun:
    """A run, whatever number of starts it took. Iterations that were done again count once, as they were done last."""

    name: str
    network: str
    parameters: int
    hardware: tuple[str, ...]
    """What it ran on, in order of first use."""
    memory: float | None
    """The most that a GPU held, GiB; None on CPUs."""
    starts: int
    stretches: tuple[Stretch, ...]
    validations: dict[str, dict[int, Scores]]
    """Data set -> iteration -> metric -> mean."""

    @property
    def seconds_per_iteration(self) -> float:
        """The median pace, without waiting for data and without the first log line of each start."""
        return statistics.median([stretch.computing for stretch in self._typical()])

    @property
    def waiting_per_iteration(self) -> float:
        """The median of the seconds that an iteration waited for data."""
        return statistics.median([stretch.data_seconds for stretch in self._typical()])

    @property
    def images_per_second(self) -> float:
        """At the median pace."""
        images = statistics.median([stretch.images_per_second * stretch.seconds for stretch in self._typical()])
        return images / self.seconds_per_iteration

    def _typical(self) -> list[Stretch]:
        warm = [stretch for stretch in self.stretches if not stretch.is_warm_up]
        return warm or list(self.stretches)

    def computing_seconds(self, iteration: int) -> float:
        """Seconds of computing up to an iteration, without waiting for data, validating and saving.

        The first log line of a start that goes on counts with the median pace: compiling kernels once more is due to
        the interruption, not to the network. That of the first start counts as it was.
        """
        usual = self.seconds_per_iteration
        knots, seconds = [0], [0.0]
        for stretch in self.stretches:
            again = stretch.is_warm_up and stretch.first > 0
            pace = usual if again else stretch.computing
            knots.append(stretch.last)
            seconds.append(seconds[-1] + pace * (stretch.last - stretch.first))
        return float(np.interp(iteration, knots, seconds))

    def iterations(self) -> list[int]:
        """Those with a validation on every data set, ascending."""
        sets = [set(found) for found in self.validations.values()]
        return sorted(set.intersection(*sets)) if sets else []

    def last_within(self, seconds: float) -> int | None:
        """The last validated iteration that so many seconds of computing reach; None if there is none."""
        iterations = self.iterations()
        times = [self.computing_seconds(iteration) for iteration in iterations]
        position = bisect.bisect_right(times, seconds)
        return iterations[position - 1] if position else None


def read_run(folder: Path) -> LoggedRun:
    """Read all logs in experiments/<name>. Raises UserError where there are none, or no validation in them."""
    logs = sorted(folder.glob("train_*.log"))
    if not logs:
        raise UserError(f"{folder}: holds no train_*.log; pass the folder of a run, experiments/<name>")
    pieces = [piece for log in logs for piece in read_pieces(log.read_text(encoding="utf-8").splitlines())]
    run = join_pieces(folder.name, pieces)
    if not run.stretches or not run.iterations():
        raise UserError(f"{folder}: its logs tell of no validated iterations; train further")
    return run


def read_pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """The starts that a log tells of, in order."""
    piece = None
    for line in lines:
        if match := _BEGINNING.search(line):
            if piece is not None:
                yield piece
            piece = Piece(match["hardware"])
        elif piece is not None:
            _read_line(piece, line)
    if piece is not None:
        yield piece


def _read_line(piece: Piece, line: str) -> None:
    if match := _ITERATION.search(line):
        first = piece.stretches[-1].last if piece.stretches else piece.start
        figures = (float(match[key]) for key in ("seconds", "data", "images"))
        piece.stretches.append(Stretch(first, _whole(match["iteration"]), *figures, not piece.stretches))
        if memory := _MEMORY.search(line):
            piece.memory = max(piece.memory or 0.0, float(memory["gibibytes"]))
    elif match := _VALIDATION.search(line):
        scores = {name: float(value) for name, value in _SCORE.findall(match["scores"])}
        piece.validations.setdefault(match["dataset"], {})[_whole(match["iteration"])] = scores
    elif match := _NETWORK.search(line):
        piece.network, piece.parameters = match["network"], _whole(match["parameters"])
    elif match := _GOING_ON.search(line):
        piece.start = _whole(match["iteration"])


def join_pieces(name: str, pieces: Iterable[Piece]) -> LoggedRun:
    """One run of its starts, in order; each undoes what earlier ones did beyond the iteration it goes on after."""
    pieces = list(pieces)
    stretches: list[Stretch] = []
    validations: dict[str, dict[int, Scores]] = {}
    for piece in pieces:
        stretches = _cut(stretches, piece.start)
        for found in validations.values():
            for iteration in [iteration for iteration in found if iteration > piece.start]:
                del found[iteration]
        if piece.stretches:
            stretches += [*_between(stretches, piece), *piece.stretches]
        for dataset, found in piece.validations.items():
            validations.setdefault(dataset, {}).update(found)
    memories = [piece.memory for piece in pieces if piece.memory is not None]
    return LoggedRun(
        name=name,
        network=pieces[-1].network if pieces else "",
        parameters=pieces[-1].parameters if pieces else 0,
        hardware=tuple(dict.fromkeys(piece.hardware for piece in pieces if piece.stretches)),
        memory=max(memories, default=None),
        starts=sum(bool(piece.stretches) for piece in pieces),
        stretches=tuple(stretches),
        validations=validations,
    )


def _cut(stretches: list[Stretch], end: int) -> list[Stretch]:
    """The stretches up to iteration `end`."""
    return [replace(each, last=min(each.last, end)) for each in stretches if each.first < end]


def _between(stretches: list[Stretch], piece: Piece) -> list[Stretch]:
    """Iterations before a stop that no log line tells of: at the pace of the line before, or else of the next."""
    last = stretches[-1].last if stretches else 0
    if last == piece.start:
        return []
    return [replace((stretches or piece.stretches)[-1], first=last, last=piece.start)]


def _whole(text: str) -> int:
    return int(text.replace(",", ""))
