"""A run that stops, however it stops, and goes on ends as if it had never stopped."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mambair.engine.train.step import Stepper
from mambair.models.restoration_model import RestorationModel
from tests.engine.tiny_run import HARD, read_weights, same_weights, train


class Killed(BaseException):
    """Ends a run on the spot, with nothing cleaned up on the way that a kill would not clean up."""


def kill() -> None:
    raise Killed


def before_step(monkeypatch: pytest.MonkeyPatch, iteration: int, action: Callable[[], None]) -> None:
    """Do something once, before the step that follows `iteration` completed ones."""
    original = Stepper.step

    def step(self, loaded, stop):
        if loaded.iteration == iteration:
            monkeypatch.setattr(Stepper, "step", original)
            action()
        return original(self, loaded, stop)

    monkeypatch.setattr(Stepper, "step", step)


def state_of(root: Path, iteration: int) -> dict:
    path = root / "experiments/tiny/training_states" / f"{iteration}.state"
    return torch.load(path, weights_only=True)


def assert_same_end(root: Path, other: Path) -> None:
    """Weights, averages, validation results: equal to the last bit."""
    assert same_weights(read_weights(root, 6), read_weights(other, 6))
    assert same_weights(read_weights(root, "best"), read_weights(other, "best"))
    assert state_of(root, 6)["best"] == state_of(other, 6)["best"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert train(root, **HARD) == 0
    return root


@pytest.mark.parametrize("iteration", [1, 3, 4, 5])
def test_killed_run_ends_bit_identical(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    before_step(monkeypatch, iteration, kill)
    with pytest.raises(Killed):
        train(tmp_path, **HARD)
    torch.manual_seed(999)  # whatever state the next process starts in
    assert train(tmp_path, "--auto_resume", **HARD) == 0
    assert_same_end(tmp_path, uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_ends_with_its_own_code(
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    number: signal.Signals,
    code: int,
) -> None:
    handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    after_signal = []
    before_step(monkeypatch, 2, lambda: (os.kill(os.getpid(), number), after_signal.append(signal.getsignal(number))))
    assert train(tmp_path, **HARD) == code
    # A second Ctrl-C is not ours to handle any more: the system ends the process.
    assert (after_signal[0] is signal.SIG_DFL) == (number is signal.SIGINT)
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == handlers
    # It came during the third step, before a validation that was then not begun.
    assert state_of(tmp_path, 3)["validation_pending"]
    assert f"stopped by {number.name} after iteration 3 of 6" in capfd.readouterr().out
    assert train(tmp_path, "--auto_resume", **HARD) == 0
    assert_same_end(tmp_path, uninterrupted)


def test_signal_during_validation(uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = RestorationModel.restore
    calls = []

    def restore(self, lq):
        calls.append(lq)
        if len(calls) == 2:  # of the three images of the validation after iteration 3
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, lq)

    monkeypatch.setattr(RestorationModel, "restore", restore)
    assert train(tmp_path, **HARD) == 143
    assert state_of(tmp_path, 3)["validation_pending"]
    assert state_of(tmp_path, 3)["best"] == {}
    assert train(tmp_path, "--auto_resume", **HARD) == 0
    assert len(calls) == 2 + 3 + 3
    assert_same_end(tmp_path, uninterrupted)


def test_damaged_checkpoint_is_passed_over(uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    assert train(tmp_path, **HARD) == 0
    damaged = tmp_path / "experiments/tiny/models/net_g_6.pth"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert train(tmp_path, "--auto_resume", **HARD) == 0
    output = " ".join(capfd.readouterr().out.split())
    assert "checkpoint 6 is not complete and passed over" in output
    assert "going on after iteration 4" in output
    assert_same_end(tmp_path, uninterrupted)


def test_going_on_from_an_earlier_state_sets_the_later_ones_aside(uninterrupted: Path, tmp_path: Path) -> None:
    assert train(tmp_path, **HARD) == 0
    states = tmp_path / "experiments/tiny/training_states"
    assert train(tmp_path, path__resume_state=str(states / "2.state"), logger__keep_checkpoints=1, **HARD) == 0
    names = {path.name for path in states.iterdir()}
    assert names == {"6.state", "6.sha256", "4.state.superseded", "6.state.superseded"}
    assert not list((tmp_path / "experiments").glob("*archived*"))
    assert same_weights(read_weights(tmp_path, 6), read_weights(uninterrupted, 6))


def test_finished_run_has_nothing_left_to_do(uninterrupted: Path) -> None:
    before = read_weights(uninterrupted, 6)
    assert train(uninterrupted, "--auto_resume", **HARD) == 0
    assert same_weights(read_weights(uninterrupted, 6), before)


def test_auto_resume_without_a_checkpoint_begins_anew(uninterrupted: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "--auto_resume", **HARD) == 0
    assert_same_end(tmp_path, uninterrupted)
