"""A network's passes on a GPU replayed as CUDA graphs, where Python takes longer to start kernels than the GPU to run.

    guards.py       which passes may be replayed at all
    fingerprint.py  what a graph rests on; where it no longer fits, the graph is forgotten
    turns.py        whose turn it is to write into the memory of graphs
    gpu.py          capturing and replaying
    passes.py       passes without gradients
    steps.py        passes with gradients: forward and backward are two graphs behind one autograd function

A graph reads parameters where they lie, so new values need nothing.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mambair.archs.replay.guards import Local, may_replay, needs_gradients, switched_on
from mambair.archs.replay.passes import Passes
from mambair.archs.replay.steps import Steps

KEPT_AS = "_replays"
"""The attribute of a network that holds its graphs; copies and pickles of the network are made without it."""


class Replays:
    """The graphs of one network."""

    def __init__(self, network: nn.Module) -> None:
        self.owner = weakref.ref(network)
        self.passes = Passes()
        self.steps = Steps()

    def drop(self, with_gradients: bool) -> None:
        """Give back the memory of one kind of graphs."""
        if with_gradients:
            self.steps = Steps()
        else:
            self.passes = Passes()


def _found_in(network: nn.Module) -> Replays | None:
    found: Replays | None = network.__dict__.get(KEPT_AS)
    # Whoever makes a network of another one's attributes has not made its graphs.
    return found if found is not None and found.owner() is network else None


def forget(network: nn.Module) -> None:
    """Give back the memory of all graphs of a network."""
    network.__dict__.pop(KEPT_AS, None)


def replayed(network: nn.Module, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor | None:
    """The network's result for x, by CUDA graphs where its switches allow it and such passes come again and again.

    None where the pass is to be run as it is. Results are those of `run`, the network's own pass, bit by bit.
    """
    if not may_replay(x) or getattr(network, "_is_replica", False):  # DataParallel makes replicas anew for each pass
        return None
    with_gradients = needs_gradients(network, x)
    replays = _found_in(network)
    if not switched_on(network, with_gradients):
        if replays is not None:
            replays.drop(with_gradients)
        return None
    if replays is None:
        replays = network.__dict__[KEPT_AS] = Replays(network)
    return (replays.steps if with_gradients else replays.passes).result(network, x, run)


@contextmanager
def paused() -> Iterator[None]:
    """Within this block, in this thread, networks run as they are: for those that make graphs of their own."""
    before, Local.paused = Local.paused, True
    try:
        yield
    finally:
        Local.paused = before
