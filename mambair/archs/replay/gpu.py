"""CUDA graphs of passes: capturing and replaying, for those whose turn it is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mambair.archs.replay.turns import Turns

Run = Callable[[Tensor], Tensor]


def generator_of(device: torch.device) -> torch.Generator:
    """What random draws on this device come from, replayed ones too."""
    return torch.cuda.default_generators[device.index]


def memory_of(device: torch.device) -> int:
    """Bytes that the device has."""
    return torch.cuda.get_device_properties(device).total_memory


@dataclass
class CapturedPass:
    """A pass without gradients."""

    graph: torch.cuda.CUDAGraph
    source: Tensor
    result: Tensor

    def replay(self, x: Tensor) -> Tensor:
        """The result, in memory of its own."""
        self.source.copy_(x)
        self.graph.replay()
        return self.result.clone()


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph, pool: Any, turns: Turns, draws: bool) -> Iterator[None]:
    """Other threads go on meanwhile. Autocast keeps no casts of weights: they would be another pass's memory.

    A capture takes a generator of random numbers for itself, from which other threads then fail to draw. Unless what is
    captured `draws`, that is another one than everybody's.
    """
    kind, on = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    generator = generator_of(turns.device)
    everybodys = generator.graphsafe_get_state()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # what plain passes held, a graph cannot use
    with torch.cuda.stream(turns.stream), torch.autocast("cuda", kind, enabled=on, cache_enabled=False):
        if not draws:
            generator.graphsafe_set_state(everybodys.clone_state())
        try:
            graph.capture_begin(pool, capture_error_mode="thread_local")
        finally:
            generator.graphsafe_set_state(everybodys)
        try:
            yield
        finally:
            graph.capture_end()


def _place_like(tensor: Tensor, turns: Turns) -> Tensor:
    """Memory that is written before a replay: deterministic algorithms fill what is made within a capture, each time.

    It belongs to the stream of captures, whose next use of it, after this one's end, waits for its turn.
    """
    with torch.cuda.stream(turns.stream):
        return torch.empty_like(tensor)


def _keep_workspaces(turns: Turns, backward: bool) -> None:
    """Have cuBLAS make its workspace, of this thread or of autograd's, in a graph that stays.

    It is made where it is first needed, and used by all graphs after that. Made in one that is forgotten later, it
    would be freed under the others once somebody clears workspaces, as torch.compile does.
    """
    if backward in turns.workspaces:
        return
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(False), torch.enable_grad(), _capturing(graph, None, turns, draws=False):
        x = torch.empty(16, 16, device=turns.device, requires_grad=backward)
        product = x @ x
        if backward:
            with turns.waiting_for_autograd():
                torch.autograd.grad(product, x, product.detach())
    turns.workspaces[backward] = graph


def capture_pass(run: Run, x: Tensor, pool: Any, turns: Turns) -> CapturedPass:
    """Raises RuntimeError where memory does not suffice, where the pass waits for the GPU, or draws random numbers."""
    _keep_workspaces(turns, backward=False)
    graph, source = torch.cuda.CUDAGraph(), _place_like(x, turns)
    with _capturing(graph, pool, turns, draws=False):
        result = run(source)
    return CapturedPass(graph, source, result)


class Flat:
    """Tensors of one type in one piece of memory, which is copied in one go."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        one = tensors[0].new_empty(1)
        step = 16 // one.element_size()  # kernels load four values at a time where they may
        self._templates: list[Tensor] = []
        self._places: list[int] = []
        for tensor in tensors:
            self._places.append(len(self._templates))
            self._templates.append(one.expand(tensor.shape))
            if tensor.numel() % step:
                self._templates.append(one.expand(-tensor.numel() % step))
        self.size = sum(template.numel() for template in self._templates)

    def parts(self, memory: Tensor) -> list[Tensor]:
        """The tensors in such a piece of memory."""
        found = torch._C._nn.unflatten_dense_tensors(memory, self._templates)
        return [found[place] for place in self._places]


@dataclass
class CapturedStep:
    """A pass with gradients, forward and backward; the latter overwrites what the former kept for it."""

    forward_graph: torch.cuda.CUDAGraph
    backward_graph: torch.cuda.CUDAGraph
    source: Tensor
    result: Tensor
    given: Tensor
    """The gradient of the result."""
    gradients: Tensor | None
    """Those of the parameters, one after the other."""
    flat: Flat | None
    used: list[bool]
    """Which of the parameters have a gradient."""
    source_gradient: Tensor | None
    bytes: int
    """Of the GPU's memory that the graphs have for themselves."""

    def forward(self, x: Tensor) -> Tensor:
        """The result, in memory of its own."""
        self.source.copy_(x)
        self.forward_graph.replay()
        return self.result.clone()

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of the input and of the parameters, in memory of their own; None for those not used."""
        self.given.copy_(gradient)
        self.backward_graph.replay()
        on_source = None if self.source_gradient is None else self.source_gradient.clone()
        if self.flat is None or self.gradients is None:
            return on_source, [None] * len(self.used)
        parts = iter(self.flat.parts(self.gradients.clone()))
        return on_source, [next(parts) if used else None for used in self.used]


def capture_step(run: Run, x: Tensor, parameters: Sequence[Tensor], turns: Turns) -> CapturedStep:
    """Of `run`, a pass that reads these `parameters`: leaves that nobody else knows, all of one type.

    Raises RuntimeError as `capture_pass`.
    """
    _keep_workspaces(turns, backward=True)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    source = _place_like(x, turns).requires_grad_(x.requires_grad)
    with _capturing(forward, None, turns, draws=True):
        result = run(source)
    given = _place_like(result, turns)
    with torch.autocast("cuda", enabled=False), _capturing(backward, forward.pool(), turns, draws=True):
        wanted = [source, *parameters] if x.requires_grad else list(parameters)
        with turns.waiting_for_autograd():
            found = list(torch.autograd.grad(result, wanted, given, allow_unused=True))
        on_source = found.pop(0) if x.requires_grad else None
        used = [gradient is not None for gradient in found]
        flat = gradients = None
        if any(used):
            kept = [gradient for gradient in found if gradient is not None]
            flat = Flat(kept)
            gradients = kept[0].new_empty(flat.size)
            torch._foreach_copy_(flat.parts(gradients), kept)
        if on_source is not None:
            on_source = on_source.detach()
    return CapturedStep(
        forward, backward, source.detach(), result.detach(), given, gradients, flat, used, on_source,
        torch.cuda.memory_reserved() - before,
    )  # fmt: skip
