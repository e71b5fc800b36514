"""Optimisers and schedules of torch and of other libraries, by name: they do what the library does by itself."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mambair.errors import UserError
from mambair.models.optimizers import ScheduledOptimizer
from mambair.models.schedules import build_schedule
from mambair.registry import OPTIMIZERS, SCHEDULERS

TORCHS = sorted(name for name in OPTIMIZERS.names() if OPTIMIZERS.get(name).__module__.startswith("torch.optim"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def step(module: nn.Module, optimizer: Any, seed: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    (module(x) - x.sum(dim=1, keepdim=True)).square().mean().backward()
    optimizer.step()


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_there_are_many() -> None:
    assert {"SGD", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adafactor"} <= set(TORCHS)
    assert "LBFGS" not in OPTIMIZERS


@pytest.mark.parametrize("name", [name for name in TORCHS if name != "Muon"])
def test_every_optimizer_of_torch(name: str) -> None:
    ours, theirs = network(), network()
    scheduled = ScheduledOptimizer(ours, {"type": name, "lr": 0.01}, None)
    plain = getattr(torch.optim, name)(theirs.parameters(), lr=0.01)
    for seed in range(3):
        scheduled.set_iteration(seed)
        step(ours, scheduled.optimizer, seed)
        step(theirs, plain, seed)
    assert same(ours, theirs)


def test_keywords_are_checked_against_the_class() -> None:
    with pytest.raises(UserError, match="unknown key 'momentun' for SGD; did you mean 'momentum'"):
        ScheduledOptimizer(network(), {"type": "SGD", "lr": 0.1, "momentun": 0.9}, None)
    with pytest.raises(UserError, match="key 'nesterov' is 'maybe'"):
        ScheduledOptimizer(network(), {"type": "SGD", "lr": 0.1, "nesterov": "maybe"}, None)
    with pytest.raises(UserError, match="unknown key 'params'"):
        ScheduledOptimizer(network(), {"type": "SGD", "lr": 0.1, "params": []}, None)
    betas = ScheduledOptimizer(network(), {"type": "NAdam", "lr": 0.1, "betas": [0.8, 0.9]}, None)
    assert betas.optimizer.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("LBFGS", "takes steps that a training run here does not"), ("Adem", "unknown optimizer 'Adem'; did you mean")],
)
def test_what_is_refused(name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ScheduledOptimizer(network(), {"type": name, "lr": 0.1}, None)


def test_libraries_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.models.optimizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pytorch_optimizer may have it: pip install 'mambair\[optimi"):
        ScheduledOptimizer(network(), {"type": "NoSuchScheduleFree", "lr": 0.1}, None)


def saved(optimizer: ScheduledOptimizer) -> dict[str, Any]:
    """The state as a checkpoint gives it back."""
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


SCHEDULE_FREE = {"type": "AdamWScheduleFree", "lr": 0.02, "warmup_steps": 2}


def test_schedule_free_is_the_library() -> None:
    schedulefree = pytest.importorskip("schedulefree")
    ours, theirs = network(), network()
    scheduled = ScheduledOptimizer(ours, SCHEDULE_FREE, None)
    plain = schedulefree.AdamWScheduleFree(theirs.parameters(), lr=0.02, warmup_steps=2)
    plain.train()
    for seed in range(4):
        scheduled.set_iteration(seed)
        step(ours, scheduled.optimizer, seed)
        step(theirs, plain, seed)
    assert same(ours, theirs)
    plain.eval()
    trained = copy.deepcopy(ours)
    with scheduled.judging():
        assert same(ours, theirs)
        with scheduled.judging():  # a validation within it changes nothing
            assert same(ours, theirs)
        assert same(ours, theirs)
    assert not same(ours, theirs)
    assert all(torch.allclose(a, b) for a, b in zip(ours.parameters(), trained.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "library"),
    [
        (SCHEDULE_FREE, "schedulefree"),
        ({"type": "SGDScheduleFree", "lr": 0.1}, "schedulefree"),
        ({"type": "Prodigy", "lr": 1.0}, "pytorch_optimizer"),
        ({"type": "Lion", "lr": 0.01}, "pytorch_optimizer"),
        ({"type": "NAdam", "lr": 0.01}, "torch"),
        ({"type": "SGD", "lr": 0.01, "momentum": 0.9}, "torch"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_going_on_from_a_checkpoint_is_exact(options: dict[str, Any], library: str) -> None:
    """Counters that some optimisers keep in their groups are restored, and settings are those of the option file."""
    pytest.importorskip(library)
    through, first = network(), network()
    optimizer = ScheduledOptimizer(through, options, None)
    beginning = ScheduledOptimizer(first, options, None)
    for seed in range(3):
        step(through, optimizer.optimizer, seed)
        step(first, beginning.optimizer, seed)
    with optimizer.judging():
        pass  # the run that goes through writes a checkpoint too
    second = network()
    with beginning.judging():
        second.load_state_dict(first.state_dict())
        state = saved(beginning)
    going_on = ScheduledOptimizer(second, options | {"weight_decay": 0.125}, None)
    going_on.load_state_dict(state)
    assert {group["weight_decay"] for group in going_on.optimizer.param_groups} == {0.125}
    for group in going_on.optimizer.param_groups:
        group["weight_decay"] = optimizer.optimizer.param_groups[0]["weight_decay"]
    for seed in range(3, 6):
        step(through, optimizer.optimizer, seed)
        step(second, going_on.optimizer, seed)
    with optimizer.judging(), going_on.judging():
        assert same(through, second)


def test_optimizers_that_need_more_than_a_gradient_are_refused_at_once() -> None:
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(UserError, match=r"stepped with a gradient alone, fails.*use another optimizer"):
        ScheduledOptimizer(network(), {"type": "AdaHessian", "lr": 0.1}, None)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "StepLR", "step_size": 3, "gamma": 0.3},
        {"type": "ExponentialLR", "gamma": 0.9},
        {"type": "CosineAnnealingWarmRestarts", "T_0": 4, "T_mult": 2},
        {"type": "PolynomialLR", "total_iters": 8, "power": 2.0},
        {"type": "LinearLR", "start_factor": 0.1, "total_iters": 5},
        {"type": "OneCycleLR", "max_lr": 0.5, "total_steps": 12, "cycle_momentum": False},
        {"type": "CyclicLR", "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "cycle_momentum": False},
    ],
    ids=lambda options: options["type"],
)
def test_schedules_of_torch(options: dict[str, Any]) -> None:
    schedule = build_schedule(options)
    optimizer = torch.optim.SGD(network().parameters(), lr=0.05)
    keywords = {key: value for key, value in options.items() if key != "type"}
    scheduler = getattr(lr_scheduler, options["type"])(optimizer, **keywords)
    expected = []
    for _ in range(11):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [schedule(iteration, 0.05) for iteration in range(11)] == expected
    assert build_schedule(options)(7, 0.05) == expected[7]  # as a resumed run asks
    assert schedule(2, 0.05) == expected[2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "ReduceLROnPlateau"}, "follows a metric"),
        ({"type": "LambdaLR"}, "needs a Python function"),
        ({"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 9}, "write cycle_momentum: false"),
        ({"type": "StepLR"}, "StepLR gives no rate"),
        ({"type": "StepLR", "stepsize": 3}, "unknown key 'stepsize' for StepLR; did you mean 'step_size'"),
        ({"type": "StepLR", "step_size": 3, "optimizer": 1}, "unknown key 'optimizer'"),
    ],
)
def test_schedules_that_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        build_schedule(options, "train.scheduler")


def test_a_schedule_that_ends_says_so() -> None:
    schedule = build_schedule({"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 5, "cycle_momentum": False}, "here")
    with pytest.raises(UserError, match="here: OneCycleLR gives no rate at 9"):
        schedule(9, 0.1)


def test_schedules_of_plugins(plugins_forgotten: None) -> None:
    @SCHEDULERS.register()
    class Halving:
        def __init__(self, every: int) -> None:
            self.every = every

        def __call__(self, iteration: int, base_lr: float) -> float:
            return base_lr * 0.5 ** (iteration // self.every)

    assert build_schedule({"type": "Halving", "every": 10})(25, 8.0) == 2.0

    @SCHEDULERS.register()
    class Wordy:
        def __call__(self, iteration: int, base_lr: float) -> str:
            return "fast"

    with pytest.raises(UserError, match="give a number"):
        build_schedule({"type": "Wordy"})
