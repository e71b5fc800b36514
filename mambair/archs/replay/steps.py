"""Passes with gradients as two CUDA graphs, forward and backward, behind one autograd function.

Whoever calls the network sees what autograd always shows: a result with a gradient, and gradients in memory of their
own. There is one set of kept activations; where a backward pass finds another pass's there, because several forward
passes came before it or because it comes a second time, its forward pass is replayed once more, with its input and its
random draws.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mambair.archs.replay import gpu
from mambair.archs.replay.fingerprint import Fingerprint
from mambair.archs.replay.guards import circumstances
from mambair.archs.replay.passes import LEFT_OUT, is_vouched_for, values_of
from mambair.archs.replay.turns import Turns, is_in_backward, turns_of

logger = logging.getLogger(__name__)

# Steps of a kind, forward and backward, that run plainly one after the other before they are captured.
WARMUP = 3
# Kinds of steps that stay captured: full batches, and an epoch's smaller last one.
KEPT_STEPS = 2
# Passes in a row that no graph serves, after which the graphs' memory is given back.
MOST_MISSES = 16
# Pixels of all images times channels of the features. With more, the GPU takes longer than Python.
MOST_VALUES = 2**23
# The share of a GPU's memory that the graphs of a network may keep for themselves.
MOST_MEMORY = 0.25


class KeptPass(NamedTuple):
    """What a backward pass needs if another pass has overwritten its activations."""

    number: int
    source: Tensor
    random_state: Tensor


class Step:
    """A captured step, and whose activations lie in it."""

    def __init__(self, captured: gpu.CapturedStep, turns: Turns) -> None:
        self.captured = captured
        self._turns = turns
        self._generator = gpu.generator_of(turns.device)
        self._passes = 0
        self._there: int | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, KeptPass]:
        """The result, and what to hand to `backward`."""
        with self._turns.taken():
            self._passes += 1
            kept = KeptPass(self._passes, x.detach().clone(), self._generator.get_state())
            self._there = kept.number
            return self.captured.forward(x), kept

    def backward(self, gradient: Tensor, kept: KeptPass) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of the input and of the parameters."""
        with self._turns.taken():
            if self._there != kept.number:
                now = self._generator.get_state()
                self._generator.set_state(kept.random_state)
                self.captured.forward(kept.source)
                self._generator.set_state(now)
            self._there = None
            return self.captured.backward(gradient)


class _ReplayedStep(torch.autograd.Function):
    """step, x, parameters -> the network's result."""

    @staticmethod
    def forward(ctx: Any, step: Step, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.step, ctx.parameters = step, parameters
        ctx.taken = _state_of(parameters)
        result, ctx.kept = step.forward(x)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if _state_of(ctx.parameters) != ctx.taken:
            raise RuntimeError(
                "a parameter of the network has been changed between a forward pass and its backward pass; "
                "step the optimizer after the backward pass"
            )
        on_source, gradients = ctx.step.backward(gradient, ctx.kept)
        return None, on_source, *gradients


def _state_of(parameters: tuple[Tensor, ...]) -> list[int]:
    """Where they lie, and how often they have been changed in place."""
    return [*(p.data_ptr() for p in parameters), *(p._version for p in parameters)]


@contextmanager
def _standing_in(slots: list[dict[str, Tensor | None]], others: Mapping[int, Tensor]) -> Iterator[None]:
    """Within this block the modules have `others` in place of the tensors with these ids."""
    places = [(held, name, tensor) for held in slots for name, tensor in held.items() if id(tensor) in others]
    try:
        for held, name, tensor in places:
            held[name] = others[id(tensor)]
        yield
    finally:
        for held, name, tensor in places:
            held[name] = tensor


class Steps:
    """The graphs of one network's passes with gradients."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._steps: OrderedDict[Any, Step | None] = OrderedDict()
        self._last: Any = None
        self._done = 0
        self._misses = 0

    def result(self, network: nn.Module, x: Tensor, run: gpu.Run) -> Tensor | None:
        """The network's result, with its gradient; None where the pass is to be run as it is."""
        if values_of(network, x) > MOST_VALUES or x.is_inference() or _saving_is_watched():
            return None
        turns = turns_of(x.device)
        with turns.taken():
            fingerprint = self._fingerprint_of(network, x)
            if not self._is_capturable:
                return None
            key = (circumstances(x), fingerprint.wanted())
            if key != self._last:
                self._last, self._done = key, 0
            is_next = key not in self._steps and self._done >= WARMUP and not is_in_backward()
            step = None
            if turns.trains_here(is_next):
                if is_next:
                    self._capture(key, fingerprint, x, run, turns)
                step = self._steps.get(key)
            self._count(key, step)
        if step is not None:
            return _ReplayedStep.apply(step, x, *fingerprint.parameters())
        if key in self._steps:
            return None
        result = run(x)
        if result.requires_grad:
            result.register_hook(_Watch(self, key))
        return result

    def _fingerprint_of(self, network: nn.Module, x: Tensor) -> Fingerprint:
        """That which all graphs here rest on; what rested on another is forgotten."""
        if self._fingerprint is not None and self._fingerprint.fits(network):
            return self._fingerprint
        self._steps.clear()
        self._last, self._done, self._misses = None, 0, 0
        found = self._fingerprint = Fingerprint(network, LEFT_OUT)
        self._is_capturable = (
            found.is_plain
            and not found.recomputes  # with the random state of the pass, which is not to be touched in a capture
            and is_vouched_for(network, "replays_steps", found)
            and found.is_on(x.device)
            and len({parameter.dtype for parameter in found.parameters()}) <= 1
        )
        return found

    def _count(self, key: Any, step: Step | None) -> None:
        if step is not None:
            self._misses = 0
            self._steps.move_to_end(key)
            return
        self._misses += 1
        if self._misses > MOST_MISSES:
            for kind in [kind for kind, held in self._steps.items() if held is not None]:
                del self._steps[kind]

    def finished(self, key: Any) -> None:
        """A plain step has come back through autograd."""
        if key == self._last:
            self._done += 1

    def _capture(self, key: Any, fingerprint: Fingerprint, x: Tensor, run: gpu.Run, turns: Turns) -> None:
        while len(self._steps) >= KEPT_STEPS:
            self._steps.popitem(last=False)
        # Hooks on parameters are for those who train, and autograd knows the streams of earlier passes by them.
        others = {id(parameter): parameter.detach().requires_grad_() for parameter in fingerprint.parameters()}
        try:
            with _standing_in(fingerprint.slots, others):
                captured = gpu.capture_step(run, x, list(others.values()), turns)
        except RuntimeError as error:  # too little memory, or a network of somebody's own that waits for the GPU
            logger.debug("no CUDA graphs for steps of %s: %s", tuple(x.shape), str(error).splitlines()[0])
            self._steps[key] = None
            return
        self._steps[key] = Step(captured, turns) if self._fits_in(captured.bytes, x.device) else None

    def _fits_in(self, more: int, device: torch.device) -> bool:
        """Whether graphs of so many bytes are within bounds, without others if need be."""
        most = MOST_MEMORY * gpu.memory_of(device)
        held = sum(step.captured.bytes for step in self._steps.values() if step is not None)
        if more <= most < held + more:
            self._steps.clear()
        return more <= most


class _Watch:
    """Tells, once, that a gradient came back to a plain pass."""

    def __init__(self, steps: Steps, key: Any) -> None:
        self._steps: Steps | None = steps
        self._key = key

    def __call__(self, gradient: Tensor) -> None:
        # With create_graph somebody wants to differentiate once more, which graphs cannot.
        if self._steps is not None and not torch.is_grad_enabled():
            self._steps.finished(self._key)
        self._steps = None


def _saving_is_watched() -> bool:
    """Whether somebody packs what autograd keeps: checkpoints, or activations that are moved to the CPU."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
