"""Learning-rate schedules, each a pure function of the iteration: `schedule(iteration, base_lr) -> lr`.

`iteration` counts completed optimiser steps, from 0. Because nothing is carried from step to step, a resumed run, or
one that is resumed with other milestones, has the learning rate its option file says and no rounding left over.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence

from mambair.errors import UserError
from mambair.registry import Registry

Schedule = Callable[[int, float], float]

SCHEDULES: Registry[Schedule] = Registry("scheduler")


def constant(iteration: int, base_lr: float) -> float:
    """The schedule of an option file without one."""
    return base_lr


@SCHEDULES.register("MultiStepRestartLR")
@SCHEDULES.register("MultiStepLR")
class MultiStepLR:
    """base_lr * gamma^(milestones reached); every recipe of the paper but one uses it with gamma 0.5."""

    def __init__(self, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(int(milestone) for milestone in milestones)
        self.gamma = gamma

    def __call__(self, iteration: int, base_lr: float) -> float:
        return base_lr * self.gamma ** bisect.bisect_right(self.milestones, iteration)


@SCHEDULES.register()
class CosineAnnealingRestartCyclicLR:
    """Cosine cycles of given lengths, each from base_lr * weight down to its own minimum.

    Cycle i spans periods[i] iterations. Real denoising uses periods [92000, 208000] and eta_mins [3e-4, 1e-6] with
    base_lr 3e-4: a cycle whose minimum equals its start is a constant. After the last cycle its minimum stays.
    """

    def __init__(self, periods: Sequence[int], restart_weights: Sequence[float], eta_mins: Sequence[float]) -> None:
        if not len(periods) == len(restart_weights) == len(eta_mins) or not periods:
            raise UserError(
                "scheduler: periods, restart_weights and the minima need one value per cycle, "
                f"not {len(periods)}, {len(restart_weights)} and {len(eta_mins)}"
            )
        if min(periods) <= 0:
            raise UserError(f"scheduler: periods {list(periods)} must be above 0")
        self.ends = list(itertools.accumulate(int(period) for period in periods))
        self.periods = [int(period) for period in periods]
        self.restart_weights = list(restart_weights)
        self.eta_mins = list(eta_mins)

    def __call__(self, iteration: int, base_lr: float) -> float:
        # The iteration at a cycle's very end still belongs to it: that is where the minimum is reached.
        cycle = min(bisect.bisect_left(self.ends, iteration), len(self.ends) - 1)
        period, eta_min = self.periods[cycle], self.eta_mins[cycle]
        progress = min((iteration - (self.ends[cycle] - period)) / period, 1.0)
        return eta_min + self.restart_weights[cycle] * (base_lr - eta_min) * (1 + math.cos(math.pi * progress)) / 2


@SCHEDULES.register()
class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """Cosine cycles that share one minimum."""

    def __init__(self, periods: Sequence[int], restart_weights: Sequence[float] = (1,), eta_min: float = 0.0) -> None:
        super().__init__(periods, restart_weights, [eta_min] * len(periods))


@SCHEDULES.register("TrueCosineAnnealingLR")
@SCHEDULES.register("CosineAnnealingLR")
class CosineAnnealingLR(CosineAnnealingRestartCyclicLR):
    """One cosine from base_lr to eta_min over T_max iterations."""

    def __init__(self, T_max: int, eta_min: float = 0.0) -> None:
        super().__init__([T_max], [1.0], [eta_min])


def with_warmup(schedule: Schedule, warmup_iter: int) -> Schedule:
    """`schedule` behind a linear rise over the first `warmup_iter` iterations (none for 0 or less).

    Iteration n has base_lr * (n + 1) / warmup_iter, so that the first step is not lost at a rate of zero.
    """

    def warmed(iteration: int, base_lr: float) -> float:
        if iteration + 1 < warmup_iter:
            return base_lr * (iteration + 1) / warmup_iter
        return schedule(iteration, base_lr)

    return warmed
