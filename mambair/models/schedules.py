"""Learning-rate schedules, each a pure function of the iteration: `schedule(iteration, base_lr) -> lr`.

`iteration` counts completed optimiser steps, from 0. Because nothing is carried from step to step, a resumed run, or
one that is resumed with other milestones, has the learning rate its option file says and no rounding left over.
Schedulers of torch.optim.lr_scheduler are such functions too, by stepping one from the beginning.
"""

import bisect
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from mambair.contracts import Schedule
from mambair.errors import UserError
from mambair.registry import SCHEDULERS

UNSUITABLE = {
    "ReduceLROnPlateau": "it follows a metric, not the iteration",
    "LambdaLR": "it needs a Python function; register a schedule in a plug-in",
    "MultiplicativeLR": "it needs a Python function; register a schedule in a plug-in",
    "SequentialLR": "it needs other schedulers; register a schedule in a plug-in",
    "ChainedScheduler": "it needs other schedulers; register a schedule in a plug-in",
}
"""Of torch's schedulers, and why an option file cannot name them."""


def constant(iteration: int, base_lr: float) -> float:
    """The schedule of an option file without one."""
    return base_lr


@SCHEDULERS.register("MultiStepRestartLR")
@SCHEDULERS.register("MultiStepLR")
class MultiStepLR:
    """base_lr * gamma^(milestones reached); every recipe of the paper but one uses it with gamma 0.5."""

    def __init__(self, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(int(milestone) for milestone in milestones)
        self.gamma = gamma

    def __call__(self, iteration: int, base_lr: float) -> float:
        return base_lr * self.gamma ** bisect.bisect_right(self.milestones, iteration)


@SCHEDULERS.register()
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


@SCHEDULERS.register()
class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """Cosine cycles that share one minimum."""

    def __init__(self, periods: Sequence[int], restart_weights: Sequence[float] = (1,), eta_min: float = 0.0) -> None:
        super().__init__(periods, restart_weights, [eta_min] * len(periods))


@SCHEDULERS.register("TrueCosineAnnealingLR")
@SCHEDULERS.register("CosineAnnealingLR")
class CosineAnnealingLR(CosineAnnealingRestartCyclicLR):
    """One cosine from base_lr to eta_min over T_max iterations."""

    def __init__(self, T_max: int, eta_min: float = 0.0) -> None:
        super().__init__([T_max], [1.0], [eta_min])


class SteppedSchedule:
    """The rates of one of torch's schedulers, found by stepping it from the start, once.

    It steps an optimiser of its own, so that nothing but the learning rate is ever scheduled.
    """

    def __init__(self, kind: type[lr_scheduler.LRScheduler], keywords: Mapping[str, Any], where: str) -> None:
        self.kind = kind
        self.keywords = dict(keywords)
        self.where = where
        self._base_lr = math.nan
        self._rates: list[float] = []
        if "cycle_momentum" in inspect.signature(kind).parameters and self.keywords.get("cycle_momentum") is not False:
            raise UserError(f"{where}: {kind.__name__} would change momentum too; write cycle_momentum: false")
        self(0, 1e-4)  # refuses wrong keywords now

    def __call__(self, iteration: int, base_lr: float) -> float:
        try:
            if base_lr != self._base_lr:
                self._begin(base_lr)
            while len(self._rates) <= iteration:
                self._scheduler.step()
                self._rates.append(self._optimizer.param_groups[0]["lr"])
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            raise UserError(f"{self.where}: {self.kind.__name__} gives no rate at {iteration} ({error})") from error
        return float(self._rates[iteration])

    def _begin(self, base_lr: float) -> None:
        self._base_lr = base_lr
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
        self._scheduler = self.kind(self._optimizer, **self.keywords)
        self._rates = [self._optimizer.param_groups[0]["lr"]]
        self._optimizer.step()  # torch warns of a scheduler that is stepped before its optimiser


SCHEDULERS.add_library(
    {
        name: found
        for name, found in vars(lr_scheduler).items()
        if inspect.isclass(found)
        and issubclass(found, lr_scheduler.LRScheduler)
        and name not in ("LRScheduler", "_LRScheduler", *UNSUITABLE)
    }
)


def build_schedule(options: Mapping[str, Any] | None, where: str = "train: scheduler") -> Schedule:
    """The schedule that `{'type': name, **keywords}` describes; constant for None."""
    if options is None:
        return constant
    name = str(options.get("type"))
    if name in UNSUITABLE and name not in SCHEDULERS:
        raise UserError(f"{where}: {name} cannot be used: {UNSUITABLE[name]}")
    entry: Any = SCHEDULERS.get(name, where)
    if inspect.isclass(entry) and issubclass(entry, lr_scheduler.LRScheduler):
        return SteppedSchedule(entry, SCHEDULERS.keywords(options, where, given=("optimizer",)), where)
    schedule = SCHEDULERS.build(options, where=where)
    if not callable(schedule) or not isinstance(schedule(0, 1e-4), (int, float)):
        raise UserError(f"{where}: {name} must be called as schedule(iteration, base_lr) and give a number")
    return schedule


def with_warmup(schedule: Schedule, warmup_iter: int) -> Schedule:
    """`schedule` behind a linear rise over the first `warmup_iter` iterations (none for 0 or less).

    Iteration n has base_lr * (n + 1) / warmup_iter, so that the first step is not lost at a rate of zero.
    """

    def warmed(iteration: int, base_lr: float) -> float:
        if iteration + 1 < warmup_iter:
            return base_lr * (iteration + 1) / warmup_iter
        return schedule(iteration, base_lr)

    return warmed
