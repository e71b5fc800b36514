"""window_attention on CUDA GPUs: the Triton kernels as a PyTorch operator with gradients.

Shapes: B images, H x W pixels, w window size, h heads of d channels, C = h d.
"""

from typing import Any

import torch
from torch import Tensor

from mambair.ops.direct import may_start_directly
from mambair.ops.flops import counts_flops
from mambair.ops.window_attention.bookkeeping import backward_flops, forward_flops, setup_context
from mambair.ops.window_attention.triton_launch import WindowPlan, sizes_of, window_plan
from mambair.ops.window_attention.triton_tiles import tiles_for

__all__ = ["tiles_for", "window_attention_triton"]


def window_attention_triton(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Tensor:
    """See `window_attention`. Sums are float32; deterministic."""
    needed = torch.is_grad_enabled() and (qkv.requires_grad or bias_table.requires_grad)
    if not may_start_directly(qkv, bias_table):
        return _attend(qkv, bias_table, window_size, shift, needed)[0]
    if needed:
        return _DirectAttention.apply(qkv, bias_table, window_size, shift)
    return _run(qkv, bias_table, window_size, shift, False)[0]


def _plan(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> WindowPlan:
    return window_plan(sizes_of(qkv, bias_table, window_size, shift), qkv.dtype, bias_table.dtype, qkv.device)


def _run(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int, keep: bool) -> tuple[Tensor, Tensor]:
    plan = _plan(qkv, bias_table, window_size, shift)
    with torch.cuda.device_of(qkv):
        return plan.attend(qkv.contiguous(), plan.spread_bias(bias_table.contiguous()), keep)


def _run_backward(
    dy: Tensor, qkv: Tensor, bias_table: Tensor, y: Tensor, norms: Tensor, window_size: int, shift: int, table: bool
) -> tuple[Tensor, Tensor]:
    plan = _plan(qkv, bias_table, window_size, shift)
    dy = dy.to(qkv.dtype).contiguous()
    d_table = bias_table.new_empty(bias_table.shape if table else 0)
    with torch.cuda.device_of(qkv):
        bias = plan.spread_bias(bias_table.contiguous())
        return plan.gradients(dy, qkv.contiguous(), bias, y, norms, d_table if table else None), d_table


class _DirectAttention(torch.autograd.Function):
    """The operator for plain calls, see `mambair.ops.direct`."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Tensor:
        y, norms = _run(qkv, bias_table, window_size, shift, True)
        ctx.save_for_backward(qkv, bias_table, y, norms)
        ctx.options = window_size, shift
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        # With a graph of its own, a second derivative is asked for: the operator says that it has none.
        return _gradients(ctx, _attend_backward if torch.is_grad_enabled() else _run_backward, dy)


def _gradients(ctx: Any, backward: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    d_qkv, d_table = backward(dy, *ctx.saved_tensors, *ctx.options, ctx.needs_input_grad[1])
    return d_qkv if ctx.needs_input_grad[0] else None, d_table if ctx.needs_input_grad[1] else None, None, None


@torch.library.custom_op("mambair::window_attention_triton", mutates_args=())
def _attend(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int, keep: bool) -> tuple[Tensor, Tensor]:
    """`_run`, for what watches calls."""
    return _run(qkv, bias_table, window_size, shift, keep)


@_attend.register_fake
def _(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int, keep: bool) -> tuple[Tensor, Tensor]:
    sizes = sizes_of(qkv, bias_table, window_size, shift)
    y = qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))
    return y, qkv.new_empty((sizes.count if keep else 0, sizes.heads, sizes.pixels), dtype=torch.float32)


@torch.library.custom_op("mambair::window_attention_triton_backward", mutates_args=())
def _attend_backward(
    dy: Tensor, qkv: Tensor, bias_table: Tensor, y: Tensor, norms: Tensor, window_size: int, shift: int, table: bool
) -> tuple[Tensor, Tensor]:
    """`_run_backward`, for what watches calls."""
    return _run_backward(dy, qkv, bias_table, y, norms, window_size, shift, table)


@_attend_backward.register_fake
def _(
    dy: Tensor, qkv: Tensor, bias_table: Tensor, y: Tensor, norms: Tensor, window_size: int, shift: int, table: bool
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), bias_table.new_empty(bias_table.shape if table else 0)


def _backward(ctx: Any, dy: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    return (None,) * 5 if dy is None else (*_gradients(ctx, _attend_backward, dy), None)


_attend.register_autograd(_backward, setup_context=setup_context)


counts_flops(torch.ops.mambair.window_attention_triton)(forward_flops)
counts_flops(torch.ops.mambair.window_attention_triton_backward)(backward_flops)
