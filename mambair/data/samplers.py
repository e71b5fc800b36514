"""Which samples make up which training step.

Training draws are numbered from 0. A draw's number and the run's seed determine its image, patch, symmetry and noise,
and a step's number determines its draws. So a run that stops and resumes, or goes on with another number of
processes, loader workers or accumulation steps, sees the same samples in the same steps, and no state is kept.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch.utils.data import Sampler

from mambair.errors import UserError


class Draw(NamedTuple):
    """One training sample to be."""

    number: int
    """Counts from 0 over the whole run."""
    gt_size: int | None
    """Side of the ground-truth patch; None for the data set's own."""


@dataclass(frozen=True)
class BatchPlan:
    """How a step's total batch is shared out: total = processes x micro-batch x accumulation steps."""

    total_batch: int
    world_size: int
    micro_batch: int
    accumulate: int

    def __str__(self) -> str:
        processes = "1 process" if self.world_size == 1 else f"{self.world_size} processes"
        steps = "1 accumulation step" if self.accumulate == 1 else f"{self.accumulate} accumulation steps"
        return f"total batch {self.total_batch} = {processes} x {self.micro_batch} x {steps}"


def plan_batch(total_batch: int, world_size: int, largest_micro_batch: int, where: str = "datasets.train") -> BatchPlan:
    """Share a total batch out evenly, in as few accumulation steps as `largest_micro_batch` images at once allow.

    Raises UserError, naming the option section `where`, if the processes cannot have equal shares.
    """
    if total_batch % world_size:
        possible = [str(count) for count in range(1, total_batch + 1) if total_batch % count == 0]
        raise UserError(
            f"{where}: the total batch of {total_batch} cannot be shared by {world_size} processes; "
            f"start {', '.join(possible)} of them, or change num_gpu or batch_size_per_gpu"
        )
    share = total_batch // world_size
    accumulate = math.ceil(share / largest_micro_batch)
    while share % accumulate:
        accumulate += 1
    return BatchPlan(total_batch, world_size, share // accumulate, accumulate)


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one batch plan and patch size."""

    first_iter: int
    """Steps done before the stage begins."""
    plan: BatchPlan
    gt_size: int | None
    """Side of the ground-truth patch; None for the data set's own."""


class DrawSchedule:
    """The draws of every step; stages (progressive training) differ in batch and patch, the last one has no end."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        assert stages[0].first_iter == 0
        self.stages = list(stages)
        self._starts = [stage.first_iter for stage in stages]
        assert sorted(set(self._starts)) == self._starts
        self._draws_before = [0]
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            steps = following.first_iter - stage.first_iter
            self._draws_before.append(self._draws_before[-1] + steps * stage.plan.total_batch)

    def stage_at(self, iteration: int) -> Stage:
        """The stage that step `iteration` (from 0) belongs to."""
        return self.stages[bisect_right(self._starts, iteration) - 1]

    def first_draw(self, iteration: int) -> int:
        """Draws made before step `iteration`."""
        index = bisect_right(self._starts, iteration) - 1
        stage = self.stages[index]
        return self._draws_before[index] + (iteration - stage.first_iter) * stage.plan.total_batch

    def micro_batches(self, iteration: int, rank: int) -> list[list[Draw]]:
        """The draws of one process in step `iteration`, one list per accumulation step."""
        stage = self.stage_at(iteration)
        plan = stage.plan
        batches = []
        for step in range(plan.accumulate):
            first = self.first_draw(iteration) + (step * plan.world_size + rank) * plan.micro_batch
            batches.append([Draw(number, stage.gt_size) for number in range(first, first + plan.micro_batch)])
        return batches


class DrawSampler(Sampler[list[Draw]]):
    """Batch sampler for a DataLoader: the micro-batches of one process from one step to another, in order."""

    def __init__(self, schedule: DrawSchedule, rank: int, start_iter: int, total_iter: int) -> None:
        self.schedule = schedule
        self.rank = rank
        self.start_iter = start_iter
        self.total_iter = total_iter

    def __iter__(self) -> Iterator[list[Draw]]:
        for iteration in range(self.start_iter, self.total_iter):
            yield from self.schedule.micro_batches(iteration, self.rank)
