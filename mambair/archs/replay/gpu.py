"""CUDA graphs of passes, and whose turn it is to write into their memory."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


class Turns:
    """One thread, and one stream of a device, at a time uses graphs.

    Their inputs, results and workspaces are memory of their own that each replay writes: another thread must not write
    an input between a copy and its replay, and another stream's replay waits for the one before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None
        self._last: torch.cuda.Stream | None = None
        self._training: threading.Thread | None = None
        self._waits_for_autograd = False

    @functools.cached_property
    def stream(self) -> torch.cuda.Stream:
        """What graphs are captured on. Its workspace of cuBLAS is no other graph's."""
        return torch.cuda.Stream(self.device)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within this block graphs may be captured and replayed on the current stream."""
        self._acquire()
        try:
            with torch.cuda.device(self.device):
                stream = torch.cuda.current_stream()
                if self._done is None:
                    self._done = torch.cuda.Event()
                elif self._last != stream:
                    stream.wait_event(self._done)
                try:
                    yield
                finally:
                    self._done.record(stream)
                    self._last = stream
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        if not is_in_backward():
            self._lock.acquire()
            return
        # Autograd has one thread for a device: a backward pass that waits here keeps that of a capture from running.
        while not self._lock.acquire(timeout=0.05):
            if self._waits_for_autograd:
                raise RuntimeError(
                    "a backward pass met the capture of another thread's training step; set replays_steps = False in "
                    "networks that several threads train"
                )

    def trains_here(self, about_to_capture: bool) -> bool:
        """Whether this thread is the one whose steps are graphs: the first that comes to capture one."""
        if about_to_capture and (self._training is None or not self._training.is_alive()):
            self._training = threading.current_thread()
        return self._training is threading.current_thread()

    @contextmanager
    def waiting_for_autograd(self) -> Iterator[None]:
        """Within this block whoever has the turn needs autograd's thread."""
        self._waits_for_autograd = True
        try:
            yield
        finally:
            self._waits_for_autograd = False


def is_in_backward() -> bool:
    """Whether autograd called what runs here."""
    return torch._C._current_graph_task_id() != -1


@functools.cache
def turns_of(device: torch.device) -> Turns:
    """Those of a device, for all networks."""
    return Turns(device)


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


def capture_pass(run: Run, x: Tensor, pool: Any, turns: Turns) -> CapturedPass:
    """Raises RuntimeError where memory does not suffice, where the pass waits for the GPU, or draws random numbers."""
    graph = torch.cuda.CUDAGraph()
    with _capturing(graph, pool, turns, draws=False):
        source = torch.empty_like(x)
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
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with _capturing(forward, None, turns, draws=True):
        source = torch.empty_like(x).requires_grad_(x.requires_grad)
        result = run(source)
    with torch.autocast("cuda", enabled=False), _capturing(backward, forward.pool(), turns, draws=True):
        given = torch.empty_like(result)
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
