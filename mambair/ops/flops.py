"""How many floating-point operations the operators count as: one rule for every backend and for the complexity tool.

The usual rule for a selective scan: 9 B L D N + B L D, for B sequences of length L with D channels and N states; the
second term is the product with D. A multiplication and an addition are two operations. A backward pass counts as two
forward passes, as PyTorch counts matrix products.
"""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

BACKWARD_FACTOR = 2

Shape = tuple[int, ...]
"""What PyTorch's counter hands to a rule in place of a tensor."""


Formula = Callable[..., int]
"""From an operator's arguments, with shapes in place of tensors, to its number of operations."""


def counts_flops(operator: Any) -> Callable[[Formula], Formula]:
    """Decorator: the formula of an operator, `torch.ops.mambair.name`, for PyTorch's `FlopCounterMode`.

    A counter copies the registry when it is made, and our operators are often defined after that, where they are first
    used. So counters that are at work just now, in this thread, get the formula as well.
    """

    def register(formula: Formula) -> Formula:
        register_flop_formula(operator)(formula)
        for mode in _get_current_dispatch_mode_stack():
            counter = getattr(mode, "counter", mode)  # what is at work is a counter, or a mode that it has made
            if isinstance(counter, FlopCounterMode):
                counter.flop_registry[operator] = flop_registry[operator]
        return formula

    return register


def selective_scan_flops(batch: int, length: int, channels: int, states: int) -> int:
    """Operations of one selective scan, forward."""
    return 9 * batch * length * channels * states + batch * length * channels


def ss2d_core_flops(batch: int, pixels: int, channels: int, states: int, rank: int, directions: int) -> int:
    """Operations of the scans of all directions and of delta's low-rank projections, forward."""
    projection = 2 * batch * pixels * directions * channels * rank
    return selective_scan_flops(batch, pixels, directions * channels, states) + projection


def ss2d_scan_flops(batch: int, pixels: int, channels: int, states: int, rank: int, directions: int) -> int:
    """Operations of a whole `ss2d_scan`, forward: with the projections of x to (dt, B, C)."""
    projections = 2 * batch * pixels * channels * directions * (rank + 2 * states)
    return projections + ss2d_core_flops(batch, pixels, channels, states, rank, directions)


def depthwise_conv_flops(batch: int, pixels: int, channels: int) -> int:
    """Operations of a depthwise 3x3 convolution, forward."""
    return 2 * 9 * batch * pixels * channels


def window_attention_flops(pixels: int, channels: int, window_size: int) -> int:
    """Operations of attention inside of windows, forward: the two products of all heads together."""
    return 2 * 2 * pixels * window_size**2 * channels
