"""The lines of training logs: what each start of a run computed on, its pace, memory and validations."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mambair.engine.train.progress import Pace

Scores = dict[str, float]

# The lines that mambair.data.loaders, mambair.engine.train.run_log, progress and run_validation write.
_BATCH = re.compile(
    r"INFO: (?:from iteration (?P<first>[\d,]+), patches of .+: )?"
    r"total batch \d+ = (?P<processes>\d+) process(?:es)? x (?P<micro_batch>\d+) x \d+ accumulation steps?$"
)
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
class Devices:
    """What a start of a run computed on: one device for each process."""

    name: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.count} x {self.name}"

    @property
    def are_gpus(self) -> bool:
        """Whether they are GPUs."""
        return not self.name.startswith("CPU, ")


@dataclass(frozen=True)
class Stretch:
    """Iterations of one start that one log line tells of, or none: those after `first`, up to `last`."""

    first: int
    last: int
    devices: Devices
    pace: Pace | None = None
    """As logged; None for iterations that no log line tells of."""
    is_warm_up: bool = False
    """Whether a start of the run lies in it: kernels are compiled and chosen there."""

    @property
    def computing(self) -> float:
        """Device seconds per iteration, without waiting for data. The stretch must have a pace."""
        assert self.pace is not None
        return max(self.pace.seconds - self.pace.data_seconds, 0.0) * self.devices.count

    @property
    def waiting(self) -> float:
        """Device seconds per iteration of waiting for data. The stretch must have a pace."""
        assert self.pace is not None
        return self.pace.data_seconds * self.devices.count

    @property
    def images(self) -> float:
        """Images per iteration. The stretch must have a pace."""
        assert self.pace is not None
        return self.pace.images_per_second * self.pace.seconds


@dataclass(frozen=True)
class Memory:
    """The most that a GPU held."""

    gibibytes: float
    micro_batch: int | None
    """Images that it computed at once then; None where the log does not tell."""


@dataclass
class Piece:
    """One start of a run."""

    devices: Devices
    micro_batches: dict[int, int] = field(default_factory=dict)
    """Images that a device computes at once, by the iteration after which they are so many."""
    start: int = 0
    network: str = ""
    parameters: int = 0
    memory: Memory | None = None
    stretches: list[Stretch] = field(default_factory=list)
    validations: dict[str, dict[int, Scores]] = field(default_factory=dict)

    def micro_batch(self, iteration: int) -> int | None:
        """That of an iteration, counted from 1."""
        stages = [first for first in self.micro_batches if first < iteration]
        return self.micro_batches[max(stages)] if stages else None


def read_pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """The starts that a log tells of, in order. How the batch is shared out stands before a start's other lines."""
    piece = None
    processes, micro_batches = 1, {}
    for line in lines:
        if match := _BATCH.search(line):
            processes = int(match["processes"])
            micro_batches[_whole(match["first"] or "0")] = int(match["micro_batch"])
        elif match := _BEGINNING.search(line):
            if piece is not None:
                yield piece
            piece = Piece(Devices(match["hardware"], processes), micro_batches)
            processes, micro_batches = 1, {}
        elif piece is not None:
            _read_line(piece, line)
    if piece is not None:
        yield piece


def _read_line(piece: Piece, line: str) -> None:
    if match := _ITERATION.search(line):
        first = piece.stretches[-1].last if piece.stretches else piece.start
        last = _whole(match["iteration"])
        pace = Pace(*(float(match[key]) for key in ("seconds", "data", "images")))
        piece.stretches.append(Stretch(first, last, piece.devices, pace, not piece.stretches))
        if found := _MEMORY.search(line):
            memory = Memory(float(found["gibibytes"]), piece.micro_batch(last))
            piece.memory = larger(piece.memory, memory)
    elif match := _VALIDATION.search(line):
        scores = {name: float(value) for name, value in _SCORE.findall(match["scores"])}
        piece.validations.setdefault(match["dataset"], {})[_whole(match["iteration"])] = scores
    elif match := _NETWORK.search(line):
        piece.network, piece.parameters = match["network"], _whole(match["parameters"])
    elif match := _GOING_ON.search(line):
        piece.start = _whole(match["iteration"])


def larger(one: Memory | None, other: Memory | None) -> Memory | None:
    """The one of more GiB; the first one of two that are equal."""
    found = [memory for memory in (one, other) if memory is not None]
    return max(found, key=lambda memory: memory.gibibytes, default=None)


def _whole(text: str) -> int:
    return int(text.replace(",", ""))
