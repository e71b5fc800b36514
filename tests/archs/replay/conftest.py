"""Capturing on the CPU: fakes with one place for the input and what a backward pass needs, as a graph has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mambair.archs.replay import gpu, passes, steps
from mambair.archs.replay.turns import Turns


class FakeTurns(Turns):
    """Whoever asks gets the turn, without a stream."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        self._acquire()
        try:
            yield
        finally:
            self._lock.release()


class FakePass:
    """Computes what a graph would have kept, in memory that the next replay overwrites."""

    graph = torch.nn.Identity()
    graph.pool = lambda: None  # type: ignore[assignment]

    def __init__(self, run: gpu.Run, x: Tensor) -> None:
        self.run, self.source = run, x.clone()
        self.static = run(self.source)

    def replay(self, x: Tensor) -> Tensor:
        self.source.copy_(x)
        self.static.copy_(self.run(self.source))
        return self.static.clone()


class FakeStep:
    """Forward and backward of a function of one tensor and of leaves."""

    bytes = 100

    def __init__(self, run: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor]) -> None:
        self.run, self.parameters = run, parameters
        self.source = x.detach().clone().requires_grad_(x.requires_grad)
        self.kept: Tensor | None = None
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        with torch.no_grad():
            self.source.copy_(x)
        with torch.enable_grad():
            self.kept = self.run(self.source)
        return self.kept.detach().clone()

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        assert self.kept is not None
        wanted = [self.source, *self.parameters] if self.source.requires_grad else list(self.parameters)
        found = torch.autograd.grad(self.kept, wanted, gradient, allow_unused=True)
        self.kept = None
        return (found[0], list(found[1:])) if self.source.requires_grad else (None, list(found))


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> FakeTurns:
    """What captures, captures on the CPU."""
    turns = FakeTurns(torch.device("cpu"))

    def capture_step(run: gpu.Run, x: Tensor, parameters: Sequence[Tensor], turns: object) -> FakeStep:
        # The modules have these parameters only while it is captured.
        modules = run.__self__  # type: ignore[attr-defined]
        names = {id(p): name for name, p in modules.named_parameters()}
        by_name = {names[id(p)]: p for p in parameters}
        return FakeStep(lambda source: torch.func.functional_call(modules, by_name, (source,)), x, parameters)

    for module in (passes, steps):
        monkeypatch.setattr(module, "turns_of", lambda device: turns)
    monkeypatch.setattr(gpu, "capture_pass", lambda run, x, pool, turns: FakePass(run, x))
    monkeypatch.setattr(gpu, "capture_step", capture_step)
    monkeypatch.setattr(gpu, "generator_of", lambda device: torch.default_generator)
    monkeypatch.setattr(gpu, "memory_of", lambda device: 2**40)
    return turns
