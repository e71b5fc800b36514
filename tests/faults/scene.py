"""A run that stands at iteration 4 of 6, with checkpoints 2 and 4: something is done to it, and nothing may be lost."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mambair.commands.train import main as train_main
from mambair.engine.checkpoints.files import CheckpointFolders
from mambair.engine.train.step import Stepper
from tests.engine.tiny_run import HARD, train_options, write_options
from tests.faults.processes import one_line
from tests.faults.runs import assert_same_end, differences, read_state

LAST = 6
STANDS_AT = 4


class Killed(BaseException):
    """Ends a run on the spot."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    output: str
    """What it printed, as one line."""


@dataclass(frozen=True)
class Scene:
    """The run, in a folder of its own with its own copy of the data."""

    root: Path
    reference: Path
    """The same run, which nothing happened to."""
    capture: pytest.CaptureFixture

    @property
    def folders(self) -> CheckpointFolders:
        """Its checkpoints."""
        experiment = self.root / "experiments" / "tiny"
        return CheckpointFolders(experiment / "models", experiment / "training_states")

    def write_options(self, **changes: Any) -> Path:
        """Its option file."""
        options = train_options(self.root, **{**HARD, **changes})
        return write_options(self.root, options)

    def train(self, *flags: str, options: Path | None = None, **changes: Any) -> Outcome:
        """Go on with the run in this process (--auto_resume) and see what comes of it."""
        file = options or self.write_options(**changes)
        self.capture.readouterr()
        code = train_main(["-opt", str(file), "--auto_resume", *flags])
        captured = self.capture.readouterr()
        return Outcome(code, one_line(captured.out + captured.err))

    def snapshot(self) -> dict[Path, bytes]:
        """All files of its experiments."""
        return {path: path.read_bytes() for path in (self.root / "experiments").rglob("*") if path.is_file()}

    def assert_nothing_lost(self) -> None:
        """Once all is well again, the run goes on to the end that it would have had."""
        outcome = self.train()
        assert outcome.code == 0, outcome.output
        assert_same_end(self.reference, self.root, LAST)

    def assert_checkpoint_kept(self, iteration: int = STANDS_AT) -> None:
        """The checkpoint is as it is in the reference."""
        first, second = (read_state(root, iteration) for root in (self.reference, self.root))
        assert differences({**first, "processes": 0}, {**second, "processes": 0}) == []


def make_reference(root: Path) -> None:
    """Train to the end, and a second time, in `root`/paused, until before the fifth step."""
    options = train_options(root / "whole", **HARD)
    assert train_main(["-opt", str(write_options(root / "whole", options))]) == 0
    options = train_options(root / "paused", **HARD)
    original = Stepper.step

    def step(self, loaded, stop):
        if loaded.iteration == STANDS_AT:
            raise Killed
        return original(self, loaded, stop)

    Stepper.step = step
    try:
        train_main(["-opt", str(write_options(root / "paused", options))])
    except Killed:
        pass
    finally:
        Stepper.step = original


def copy_scene(source: Path, root: Path, capture: pytest.CaptureFixture) -> Scene:
    """A copy to do things to."""
    shutil.copytree(source / "paused", root, dirs_exist_ok=True)
    return Scene(root, source / "whole", capture)


def at_step(patch: pytest.MonkeyPatch, iteration: int, action: Callable[[Stepper], None]) -> None:
    """Do something before the step that follows `iteration` completed ones."""
    original = Stepper.step

    def step(self, loaded, stop):
        if loaded.iteration == iteration:
            action(self)
        return original(self, loaded, stop)

    patch.setattr(Stepper, "step", step)
