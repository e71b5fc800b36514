"""Forward and backward passes of a phase: plain ones, and ones replayed as CUDA graphs.

A training step of MambaIR is thousands of short kernels, and Python starts them more slowly than a GPU finishes them. A
CUDA graph starts all of them at once; the numbers are the same.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mambair.errors import UserError
from mambair.models.base_model import Batch, Phase, TrainableModel
from mambair.models.optimizers import ScheduledOptimizer

logger = logging.getLogger(__name__)

Losses = dict[str, Tensor]

# Passes of a shape that run plainly before it is captured: kernels are compiled and tuned in the first ones.
WARMUP = 3
# Shapes that stay captured, each with the memory of a pass: full micro-batches, and an iteration's smaller last one.
KEPT_GRAPHS = 2


class PlainPasses:
    """Runs passes one operation after the other; on several processes DistributedDataParallel averages gradients."""

    def __init__(self, model: TrainableModel, scaler: torch.amp.GradScaler) -> None:
        self.model = model
        self.scaler = scaler

    def zero_gradients(self, optimizer: ScheduledOptimizer) -> None:
        """Before the first pass of a phase."""
        optimizer.optimizer.zero_grad(set_to_none=True)

    def run(self, phase: Phase, batch: Batch, weight: float, last: bool) -> tuple[Losses, Tensor]:
        """Add a micro-batch's gradients, times `weight`; returns its losses by name, and their weighted sum.

        `last`: whether it is the iteration's last one, after which the gradients are averaged over the processes.
        """
        with synchronising(self.model.wrapped(phase.network), last):
            return backward(phase, batch, weight, self.scaler)


def backward(phase: Phase, batch: Batch, weight: float, scaler: torch.amp.GradScaler) -> tuple[Losses, Tensor]:
    """One pass; the results are detached."""
    values, total = weighted_losses(phase, batch, weight)
    scaler.scale(total).backward()
    return detached(values, total)


def weighted_losses(phase: Phase, batch: Batch, weight: float) -> tuple[Losses, Tensor]:
    """The losses of a micro-batch by name, and the sum of those that train, times `weight`."""
    values = phase.losses(batch)
    trained = [value for value in values.values() if value.requires_grad]
    assert trained, f"no loss of {phase.network} has a gradient"
    return values, sum(trained[1:], trained[0]) * weight


def detached(values: Losses, total: Tensor) -> tuple[Losses, Tensor]:
    return {name: value.detach() for name, value in values.items()}, total.detach()


def add_gradients(total: Tensor, parameters: Sequence[Tensor], parts: Sequence[Tensor]) -> None:
    """Add the gradients of `total` to `parts`, a flat tensor for each parameter; unused parameters have none."""
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    used = [part for part, grad in zip(parts, found, strict=True) if grad is not None]
    torch._foreach_add_(used, [grad.reshape(-1) for grad in found if grad is not None])


def synchronising(network: nn.Module, last: bool) -> AbstractContextManager:
    """The context of a backward pass: only an iteration's last one averages gradients over the processes."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


class GraphedPasses:
    """Replays passes as CUDA graphs, one for each shape of micro-batch; for models of one network and one phase.

    The gradients of all parameters lie in one buffer: a few kernels add a pass's to it, instead of one for each
    parameter, and on several processes one reduction averages them all, which takes DistributedDataParallel's place.
    """

    def __init__(self, model: TrainableModel, scaler: torch.amp.GradScaler, world_size: int = 1) -> None:
        (name,) = model.optimizers
        self.scaler = scaler
        self.world_size = world_size
        self._parameters = model.optimizers[name].parameters
        if world_size > 1:
            for tensor in (*model.networks[name].parameters(), *model.networks[name].buffers()):
                dist.broadcast(tensor.detach(), 0)
        sizes = [parameter.numel() for parameter in self._parameters]
        self.gradients = torch.zeros(sum(sizes), device=model.device)
        self._parts = self.gradients.split(sizes)
        for parameter, part in zip(self._parameters, self._parts, strict=True):
            parameter.grad = part.view_as(parameter)
        # Autograd works on the stream that the pass began on; captured and plain passes share one.
        self._stream = torch.cuda.Stream(model.device)
        self._seen: dict[tuple, int] = {}
        self._graphs: OrderedDict[tuple, _Graph] = OrderedDict()

    def zero_gradients(self, optimizer: ScheduledOptimizer) -> None:
        """Before the first pass of a phase."""
        self.gradients.zero_()

    def run(self, phase: Phase, batch: Batch, weight: float, last: bool) -> tuple[Losses, Tensor]:
        """As `PlainPasses.run`."""
        shapes = ((name, value.shape) for name, value in batch.items() if isinstance(value, Tensor))
        key = (weight, phase.variant, *shapes)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if key in self._graphs:
                self._graphs.move_to_end(key)
                results = self._graphs[key].replay(batch)
            elif self._seen.get(key, 0) < WARMUP:
                self._seen[key] = self._seen.get(key, 0) + 1
                results = self._run_plainly(phase, batch, weight)
            else:
                results = self._capture(key, phase, batch, weight).replay(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        if last and self.world_size > 1:
            dist.all_reduce(self.gradients, dist.ReduceOp.AVG)
        return results

    def _run_plainly(self, phase: Phase, batch: Batch, weight: float) -> tuple[Losses, Tensor]:
        values, total = weighted_losses(phase, batch, weight)
        add_gradients(self.scaler.scale(total), self._parameters, self._parts)
        return detached(values, total)

    def _capture(self, key: tuple, phase: Phase, batch: Batch, weight: float) -> "_Graph":
        while len(self._graphs) >= KEPT_GRAPHS:
            self._graphs.popitem(last=False)
        torch.cuda.empty_cache()  # what plain passes held, graphs cannot use
        try:
            graph = _Graph(lambda static: self._run_plainly(phase, static, weight), batch, self._stream)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"a CUDA graph of the training step could not be captured ({reason}); set train: cuda_graph: false"
            ) from error
        self._graphs[key] = graph
        logger.debug("captured a CUDA graph for batches of %s", [shape for _, shape in key[2:]])
        return graph


class _Graph:
    """A captured pass with the tensors that it reads and writes."""

    def __init__(self, run: Callable[[Batch], tuple[Losses, Tensor]], batch: Batch, stream: torch.cuda.Stream) -> None:
        self.inputs = {name: value.clone() for name, value in batch.items() if isinstance(value, Tensor)}
        self.graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: the loader's pins memory, NCCL's watches over collectives.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.losses, self.total = run({**batch, **self.inputs})

    def replay(self, batch: Batch) -> tuple[Losses, Tensor]:
        for name, value in self.inputs.items():
            value.copy_(batch[name])
        self.graph.replay()
        return {name: value.clone() for name, value in self.losses.items()}, self.total.clone()


def graph_refusal(model: TrainableModel, phases: Sequence[Phase]) -> str | None:
    """Why a model's passes cannot be captured as CUDA graphs; None when they can."""
    if model.device.type != "cuda":
        return "CUDA graphs need a CUDA GPU"
    if len(model.optimizers) != 1 or len(phases) != 1 or phases[0].frozen:
        return "CUDA graphs are for models with a single network and loss, and this one trains adversarially"
    return None
