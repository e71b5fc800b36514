"""What can happen to a process of a run before one of its steps. `{"rank": 1, "step": 3, "what": "kill"}`."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from mambair.data.loaders import LoadedStep
from mambair.engine.train.step import Stepper, StepResult
from mambair.errors import UserError


def fail() -> None:
    """An error that only this process meets."""
    raise UserError("the disk of this machine is gone")


def interrupt_twice() -> None:
    """Ctrl-C, and again, while the step that the first one waits for takes its time."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)


ACTIONS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "interrupt twice": interrupt_twice,
    "terminate the launcher": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "hang": lambda: time.sleep(600),
    "fail": fail,
}


def let_happen(fault: Mapping[str, Any], rank: int) -> None:
    """Let it happen in this process, if its rank is the one."""
    original = Stepper.step

    def step(self: Stepper, loaded: LoadedStep, stop: bool) -> StepResult:
        if rank == fault["rank"] and loaded.iteration == fault["step"]:
            ACTIONS[fault["what"]]()
        return original(self, loaded, stop)

    Stepper.step = step
