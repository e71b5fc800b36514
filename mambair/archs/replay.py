"""A network's passes on a GPU replayed as CUDA graphs, where Python takes longer to start kernels than the GPU to run.

A graph reads parameters where they lie, so new values need nothing; for all else that it has taken over there is a
fingerprint, and what does not fit it any more is forgotten.
"""

import itertools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.direct import may_start_directly

logger = logging.getLogger(__name__)

# Plain passes of a shape before it is captured: a shape that comes once or twice is not worth the memory.
WARMUP = 2
# Shapes of a network that stay captured, those used last.
KEPT_GRAPHS = 4
# Pixels of all images times channels of the features. With more, the GPU takes longer than Python. So many take 0.3 GB,
# which the graphs of a network share.
MOST_VALUES = 2**22
_CHANNELS = 64


class Fingerprint:
    """What a graph of a network rests on: its modules, where its tensors lie, and its settings."""

    def __init__(self, network: nn.Module) -> None:
        # Not the network itself: whoever keeps this would keep it alive.
        self._modules = [module for module in network.modules() if module is not network]
        everything = [network, *self._modules]
        self._children = [module._modules for module in everything]
        self._tensors = [held for module in everything for held in (module._parameters, module._buffers)]
        self._hooks = [hooks for module in everything for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self.is_capturable = not any(module._compiled_call_impl for module in everything) and self._is_plain()
        self._taken = self._now(network)

    def _is_plain(self) -> bool:
        """Whether no hook waits to be called, and nothing is in training mode, as random dropout would be."""
        hooked = any(self._hooks) or nn_module._has_any_global_hook()
        return not hooked and not any(module.training for module in self._modules)

    def _now(self, network: nn.Module) -> tuple[Any, ...]:
        children = list(itertools.chain.from_iterable(held.values() for held in self._children))
        tensors = itertools.chain.from_iterable(held.values() for held in self._tensors)
        places = [tensor.data_ptr() for tensor in tensors if tensor is not None]
        settings = [value for value in network.__dict__.values() if isinstance(value, (int, float, str))]
        return children, places, settings

    def fits(self, network: nn.Module) -> bool:
        """Whether a graph of the network as it was computes what it would now."""
        return self._is_plain() and self._now(network) == self._taken


class Replayer:
    """The graphs of one network."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fingerprint: Fingerprint | None = None
        self._seen: dict[Any, int] = {}
        self._graphs: OrderedDict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None] = OrderedDict()
        self._pool: Any = None
        self._last: Any = None
        self._streak = 0

    def replay(self, network: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor | None:
        """The result; None where the pass is to be run as it is. `run`: the network's own pass."""
        with self._lock:  # another thread must not write the input between a copy and its replay
            if self._fingerprint is None or not self._fingerprint.fits(network):
                self._forget()
                self._fingerprint = Fingerprint(network)
            if not self._fingerprint.is_capturable:
                return None
            key = (x.shape, x.stride(), x.dtype, *_circumstances(x.device))
            self._streak = self._streak + 1 if key == self._last else 1
            self._last = key
            if key not in self._graphs:
                self._seen[key] = self._seen.get(key, 0) + 1
                # Images of many sizes that come in turns must not drive out each other's graphs.
                times = self._seen[key] if len(self._graphs) < KEPT_GRAPHS else self._streak
                if times <= WARMUP:
                    return None
                self._capture(key, x, run)
            self._graphs.move_to_end(key)
            captured = self._graphs[key]
            if captured is None:
                return None
            graph, source, result = captured
            source.copy_(x)
            graph.replay()
            return result.clone()

    def _forget(self) -> None:
        self._seen.clear()
        self._graphs.clear()

    def _capture(self, key: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> None:
        if len(self._seen) > 16 * KEPT_GRAPHS:  # images of any size: those that come often come again
            self._seen.clear()
        while len(self._graphs) >= KEPT_GRAPHS:
            self._graphs.popitem(last=False)
        graph, source = torch.cuda.CUDAGraph(), x.clone()
        # Shared, since no graph needs what another left there: results are copied before the next is replayed.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = run(source)
        except RuntimeError as error:  # too little memory, or a network of somebody's own that waits for the GPU
            logger.debug("no CUDA graph for inputs of %s: %s", tuple(x.shape), str(error).splitlines()[0])
            self._graphs[key] = None
        else:
            self._graphs[key] = graph, source, result


_replayers: "WeakKeyDictionary[nn.Module, Replayer]" = WeakKeyDictionary()


def _circumstances(device: torch.device) -> tuple[Any, ...]:
    """What decides how operators run besides their arguments."""
    return (
        torch._C._cuda_getCurrentRawStream(device.index),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        os.environ.get(ENVIRONMENT_VARIABLE),
    )


def is_worthwhile(network: nn.Module, x: Tensor) -> bool:
    """Whether a pass without gradients waits for Python, and may be replayed."""
    if not x.is_cuda or x.ndim != 4 or torch.is_grad_enabled() or network.training or not may_start_directly(x):
        return False
    options = getattr(network, "hyperparameters", {})
    channels = options.get("embed_dim", options.get("dim", _CHANNELS))
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return 0 < pixels * channels <= MOST_VALUES and not torch.cuda.is_current_stream_capturing()


def replayed(network: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The network's result for x by a CUDA graph, from the third pass of a shape on; None where there is none.

    Results are equal, bit by bit, to those of `run`, the network's own pass.
    """
    if not is_worthwhile(network, x):
        return None
    with torch.cuda.device_of(x):
        return _replayers.setdefault(network, Replayer()).replay(network, x, run)
