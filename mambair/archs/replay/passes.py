"""Passes without gradients as CUDA graphs, from the third of a shape on."""

import logging
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from mambair.archs.replay import gpu
from mambair.archs.replay.fingerprint import Fingerprint
from mambair.archs.replay.guards import circumstances
from mambair.archs.replay.turns import turns_of

logger = logging.getLogger(__name__)

# Plain passes of a shape before it is captured: a shape that comes once or twice is not worth the memory.
WARMUP = 2
# Shapes of a network that stay captured, those used last.
KEPT_GRAPHS = 4
# Pixels of all images times channels of the features. With more, the GPU takes longer than Python, which needs up to
# 60 ms for a pass of MambaIRv2.
MOST_VALUES = 2**24
# Bytes of the graphs' memory, which they share, for each of those values; an estimate: 2**22 took 0.3 GB.
BYTES_A_VALUE = 75
# The share of a GPU's memory that the graphs of a network may keep for themselves.
MOST_MEMORY = 0.05
_CHANNELS = 64

LEFT_OUT = frozenset({"_replays", "replays_graphs", "replays_steps"})
"""Attributes of a network that have nothing to do with what it computes."""


def values_of(network: nn.Module, x: Tensor) -> int:
    """Values of a layer's features, of all images."""
    options = getattr(network, "hyperparameters", {})
    channels = options.get("embed_dim", options.get("dim", _CHANNELS))
    return x.shape[0] * x.shape[2] * x.shape[3] * channels


def _is_small(network: nn.Module, x: Tensor) -> bool:
    """Whether Python may take longer than the GPU, and a graph's memory is within bounds."""
    values = values_of(network, x)
    return values <= MOST_VALUES and values * BYTES_A_VALUE <= MOST_MEMORY * gpu.memory_of(x.device)


def is_vouched_for(network: nn.Module, switch: str, fingerprint: Fingerprint) -> bool:
    """Whether replaying is known to be right: all parts are this project's or PyTorch's, or somebody says so."""
    own = not f"{type(network).__module__}.".startswith("mambair.")
    return fingerprint.is_ours or own or network.__dict__.get(switch) is True


class Passes:
    """The graphs of one network's passes without gradients."""

    def __init__(self) -> None:
        self._fingerprint: Fingerprint | None = None
        self._seen: dict[Any, int] = {}
        self._graphs: OrderedDict[Any, gpu.CapturedPass | None] = OrderedDict()
        self._last: Any = None
        self._streak = 0

    def result(self, network: nn.Module, x: Tensor, run: gpu.Run) -> Tensor | None:
        """The network's result; None where the pass is to be run as it is. `run`: the network's own pass."""
        if network.training or not _is_small(network, x):
            return None
        with turns_of(x.device).taken():
            if self._fingerprint is None or not self._fingerprint.fits(network):
                self._start_anew(network, x)
            if not self._is_capturable:
                return None
            captured = self._graph_for(circumstances(x), x, run)
            return None if captured is None else captured.replay(x)

    def _start_anew(self, network: nn.Module, x: Tensor) -> None:
        self._seen.clear()
        self._graphs.clear()
        found = self._fingerprint = Fingerprint(network, LEFT_OUT)
        in_training = any(module.training for module in network.modules())  # as random dropout would be
        vouched = is_vouched_for(network, "replays_graphs", found)
        self._is_capturable = found.is_plain and not in_training and vouched and found.is_on(x.device)

    def _graph_for(self, key: Any, x: Tensor, run: gpu.Run) -> gpu.CapturedPass | None:
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
        return self._graphs[key]

    def _capture(self, key: Any, x: Tensor, run: gpu.Run) -> None:
        if len(self._seen) > 16 * KEPT_GRAPHS:  # images of any size: those that come often come again
            self._seen.clear()
        while len(self._graphs) >= KEPT_GRAPHS:
            self._graphs.popitem(last=False)
        # They share memory, since none needs what another left there: results are copied before the next is replayed.
        pool = next((held.graph.pool() for held in self._graphs.values() if held is not None), None)
        try:
            self._graphs[key] = gpu.capture_pass(run, x, pool, turns_of(x.device))
        except RuntimeError as error:  # too little memory, or a network of somebody's own that waits for the GPU
            logger.debug("no CUDA graph for inputs of %s: %s", tuple(x.shape), str(error).splitlines()[0])
            self._graphs[key] = None
