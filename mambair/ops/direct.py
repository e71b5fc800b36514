"""Whether an operator may start its kernels right away, or has to go through torch.library's dispatcher.

The dispatcher costs a call with gradients 50 us of the CPU, which plain modules wait for; an autograd function costs
14. The dispatcher's first call also imports the compiler, seconds. But everything that traces calls or takes them over
sees only the dispatcher's: torch.compile and torch.export, functorch, torch.jit.trace, modes such as FlopCounterMode
and FakeTensorMode, and subclasses of tensors.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)


def may_start_directly(*tensors: Tensor) -> bool:
    """Whether nothing but autograd watches a call with these tensors."""
    if torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return False
    return not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_tracing_state() is not None
    )


def without_autocast(backward: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An autograd function's `backward`, of one gradient, with autocast off: it would change the types of products."""

    @functools.wraps(backward)
    def run(ctx: Any, gradient: Tensor) -> Any:
        kind = gradient.device.type
        if not torch.is_autocast_enabled(kind):
            return backward(ctx, gradient)
        with torch.autocast(kind, enabled=False):
            return backward(ctx, gradient)

    return run
