"""What the compiled backends' operators share: what is saved for the gradients, and what is counted.

Shapes: B images of H x W pixels, C channels; the operators take (qkv, bias_table, window_size, shift, keep) and return
the result and the norms.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mambair.ops.flops import Shape, window_attention_flops


def setup_context(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
    """Save tensors and options for the backward pass; norms have no gradient."""
    qkv, bias_table, window_size, shift, _ = inputs
    y, norms = output
    ctx.save_for_backward(qkv, bias_table, y, norms)
    ctx.options = window_size, shift
    ctx.mark_non_differentiable(norms)
    ctx.set_materialize_grads(False)


def forward_flops(qkv: Shape, bias_table: Shape, window_size: int, *_: Any, **__: Any) -> int:
    """FLOPs of the forward operator, from its arguments' shapes."""
    batch, height, width, channels = qkv
    return window_attention_flops(batch * height * width, channels // 3, window_size)


def backward_flops(
    dy: Shape, qkv: Shape, bias_table: Shape, y: Shape, norms: Shape, window_size: int, *_: Any, **__: Any
) -> int:
    """The same of the backward operator: five products where the forward pass has two."""
    return forward_flops(qkv, bias_table, window_size) * 5 // 2
