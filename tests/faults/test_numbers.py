"""Losses, gradients and weights that are no numbers any more."""

import os
import signal
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from mambair.engine.train.step import Stepper
from mambair.losses.pixel import L1Loss
from tests.faults.runs import assert_same_end, read_state
from tests.faults.scene import Scene, at_step

Patch = pytest.MonkeyPatch
FILES = r"files of the batch: "


def spoil_loss(value: float, *steps: int) -> Callable[[Patch], None]:
    """Multiply the loss by something in the steps that follow the given numbers of completed ones."""

    def inject(patch: Patch) -> None:
        now = [0]
        original_step, original = Stepper.step, L1Loss.penalty

        def step(self, loaded, stop):
            now[0] = loaded.iteration
            return original_step(self, loaded, stop)

        patch.setattr(Stepper, "step", step)
        patch.setattr(L1Loss, "penalty", lambda self, x: original(self, x) * (value if now[0] in steps else 1))

    return inject


def spoil_gradient(patch: Patch) -> None:
    original = L1Loss.penalty

    def penalty(self, difference):
        if difference.requires_grad:
            difference.register_hook(lambda gradient: gradient * float("inf"))
        return original(self, difference)

    at_step(patch, 5, lambda stepper: patch.setattr(L1Loss, "penalty", penalty))


def spoil_weight(stepper: Stepper) -> None:
    with torch.no_grad():
        next(iter(stepper.model.networks["net_g"].parameters())).view(-1)[0] = float("nan")


def spoil_weight_after_last_step(patch: Patch) -> None:
    original = Stepper.step

    def step(self, loaded, stop):
        result = original(self, loaded, stop)
        if loaded.iteration == 5:
            spoil_weight(self)
        return result

    patch.setattr(Stepper, "step", step)


class Fault(NamedTuple):
    """Numbers that go bad."""

    name: str
    inject: Callable[[Patch], None]
    message: str
    skip: int = 0


NAN, INF = float("nan"), float("inf")
FAULTS = [
    Fault("loss NaN", spoil_loss(NAN, 4), f"iteration 5: the loss is not finite (l_pix); {FILES}"),
    Fault("loss infinite", spoil_loss(INF, 5), f"iteration 6: the loss is not finite (l_pix); {FILES}"),
    Fault("gradient infinite", spoil_gradient, f"iteration 6: the gradient norm is not finite; {FILES}"),
    Fault(
        "weight NaN",
        lambda patch: at_step(patch, 4, spoil_weight),
        f"iteration 5: the loss is not finite (l_pix); {FILES}",
    ),
    Fault(
        "weight NaN when it is saved", spoil_weight_after_last_step, "iteration 6: the weights of net_g are not finite"
    ),
    Fault(
        "more in a row than may be skipped",
        spoil_loss(NAN, 4, 5),
        f"iteration 6: the loss is not finite (l_pix); {FILES}",
        1,
    ),
]


def go_on_without_waiting(patch: Patch) -> None:
    """Let steps end before their numbers are known, as they do on a GPU."""
    original = Stepper.__init__

    def build(self, *args, skip_nonfinite=0, **options):
        original(self, *args, skip_nonfinite=skip_nonfinite, **options)
        self._waits = skip_nonfinite > 0

    patch.setattr(Stepper, "__init__", build)


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "as on a GPU"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_bad_numbers_stop_the_run_with_a_way_back(scene: Scene, monkeypatch: Patch, fault: Fault, waits: bool) -> None:
    with monkeypatch.context() as patch:
        if not waits:
            go_on_without_waiting(patch)
        fault.inject(patch)
        outcome = scene.train(train__skip_nonfinite=fault.skip)
    assert outcome.code == 2
    assert f"error: {fault.message}" in outcome.output
    if FILES in fault.message:
        assert any(f"{name}x2.png" in outcome.output for name in ("astronaut", "coffee", "chelsea"))
    assert "; the last good checkpoint is" in outcome.output
    assert "training_states/4.state (--auto_resume goes on from it)" in outcome.output
    assert "Traceback" not in outcome.output
    log = max((scene.root / "experiments/tiny").glob("train_*.log"), key=lambda path: path.stat().st_mtime_ns)
    assert fault.message in log.read_text()  # the log file tells why a run ended, too
    scene.assert_checkpoint_kept()
    assert not scene.folders.state(6).exists()
    scene.assert_nothing_lost()


@pytest.mark.parametrize("bad", [7, 8], ids=["known when it stops", "not yet known"])
def test_a_request_to_stop_saves_nothing_bad(scene: Scene, monkeypatch: Patch, bad: int) -> None:
    seldom = {"logger__print_freq": 100, "logger__save_checkpoint_freq": 100, "val__val_freq": 100}
    with monkeypatch.context() as patch:
        go_on_without_waiting(patch)
        spoil_loss(INF, bad - 1)(patch)
        at_step(patch, 6, lambda stepper: os.kill(os.getpid(), signal.SIGTERM))
        outcome = scene.train(train__total_iter=20, **seldom)
    assert outcome.code == 2
    assert f"error: iteration {bad}: the loss is not finite (l_pix); {FILES}" in outcome.output
    scene.assert_checkpoint_kept()
    assert not any(scene.folders.state(iteration).exists() for iteration in range(5, 10))


def test_single_bad_steps_are_skipped(scene: Scene, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        spoil_loss(NAN, 4)(patch)
        outcome = scene.train(train__skip_nonfinite=1)
    assert outcome.code == 0, outcome.output
    assert "iteration 5: the loss is not finite" in outcome.output
    assert "the step is skipped (1 in a row)" in outcome.output
    scene.assert_checkpoint_kept()
    assert read_state(scene.root, 6)["skipped_in_a_row"] == 0


def test_resuming_does_not_forget_the_skipped_steps(scene: Scene, monkeypatch: Patch) -> None:
    spoil_loss(NAN, 4, 5, 6)(monkeypatch)
    assert scene.train(train__skip_nonfinite=2).code == 0
    assert read_state(scene.root, 6)["skipped_in_a_row"] == 2
    outcome = scene.train(train__skip_nonfinite=2, train__total_iter=8)
    assert outcome.code == 2
    assert "error: iteration 7: the loss is not finite" in outcome.output


def test_loss_that_jumps_is_logged_and_nothing_else(scene: Scene, monkeypatch: Patch) -> None:
    monkeypatch.setattr("mambair.engine.train.usual_loss.WARMUP", 1)
    spoil_loss(1e3, 5)(monkeypatch)
    outcome = scene.train()
    assert outcome.code == 0
    assert f"WARNING iteration 6: the loss jumped; {FILES}" in outcome.output


def test_restoring_after_the_numbers_went_bad_needs_no_option(scene: Scene) -> None:
    """The same run without the fault, as a check of these tests themselves."""
    assert scene.train().code == 0
    assert_same_end(scene.reference, scene.root, 6)
