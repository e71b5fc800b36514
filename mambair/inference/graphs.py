"""Inference replayed as CUDA graphs, for many images or tiles of one size."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Calls of a shape that run plainly before it is captured: a shape that comes once or twice is not worth the memory.
WARMUP = 2
# Shapes that stay captured, those used last: tiles within a photo, at two of its edges, and in a corner.
KEPT_GRAPHS = 4
# Pixels of all images of a call. With more, the GPU takes longer than Python, and a graph only takes memory; so many
# take 2 GB in a classic network.
WORTHWHILE_PIXELS = 2**17


class GraphedForward:
    """Calls `forward`, a function of one CUDA tensor to another; calls with a shape that has come before are replayed.

    The GPU runs a network of MambaIR's depth faster than Python can start its kernels; a graph starts them all at once.
    Call it in inference mode, and under one setting of autocast. The graphs share their memory, which holds the
    intermediates of the largest.

    Args:
        forward: the function.
        most_pixels: larger calls are never captured; None for no bound.
        asked_for: say so where a shape cannot be captured, since somebody asked for speed.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        most_pixels: int | None = WORTHWHILE_PIXELS,
        asked_for: bool = False,
    ) -> None:
        self.forward = forward
        self._most_pixels, self._level = most_pixels, logging.WARNING if asked_for else logging.DEBUG
        self._pool: Any = None
        self._seen: dict[torch.Size, int] = {}
        self._graphs: OrderedDict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        if not x.is_cuda or not self._is_worthwhile(x):
            return self.forward(x)
        self._seen[x.shape] = self._seen.get(x.shape, 0) + 1
        if self._seen[x.shape] > WARMUP and x.shape not in self._graphs:
            self._capture(x)
        if x.shape in self._graphs:
            self._graphs.move_to_end(x.shape)
        captured = self._graphs.get(x.shape)
        if captured is None:
            return self.forward(x)
        graph, source, result = captured
        source.copy_(x)
        graph.replay()
        return result.clone()

    def _is_worthwhile(self, x: Tensor) -> bool:
        batch, _, height, width = x.shape
        return self._most_pixels is None or batch * height * width <= self._most_pixels

    def _capture(self, x: Tensor) -> None:
        while len(self._graphs) >= KEPT_GRAPHS:
            forgotten, _ = self._graphs.popitem(last=False)
            del self._seen[forgotten]
        torch.cuda.empty_cache()  # what plain calls held, a graph cannot use
        graph, source = torch.cuda.CUDAGraph(), x.clone()
        # Shared, since no graph needs what another left there: results are copied before the next is replayed.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            # Other threads go on meanwhile: those that read and write photos.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = self.forward(source)
        except RuntimeError as error:  # too little memory for a second set of intermediates, mostly
            reason = str(error).splitlines()[0]
            logger.log(self._level, "no CUDA graph for inputs of %s, which takes longer: %s", tuple(x.shape), reason)
            self._graphs[x.shape] = None
        else:
            self._graphs[x.shape] = graph, source, result
