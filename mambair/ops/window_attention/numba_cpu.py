"""window_attention on the CPU: the compiled kernels as a PyTorch operator with gradients.

Shapes: B images of L = H W pixels, w window size, h heads of d channels, C = h d, V = ceil(w / 16) vectors for a row of
queries, U = B H/w h units of work.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.ops.cpu.simd import LANES, LOG2_E
from mambair.ops.cpu.workers import run_tasks, worker_count
from mambair.ops.direct import may_start_directly
from mambair.ops.flops import counts_flops
from mambair.ops.window_attention.bookkeeping import backward_flops, forward_flops, setup_context
from mambair.ops.window_attention.numba_kernels import BLOCK, backward_unit, forward_unit
from mambair.ops.window_attention.reference import MASKED


def window_attention_numba(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Tensor:
    """See `window_attention`; computes in float32."""
    tensors = qkv.float(), bias_table.float()
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not may_start_directly(*tensors):
        y = _attend(*tensors, window_size, shift, needed)[0]
    elif needed:
        y = _DirectAttention.apply(*tensors, window_size, shift)
    else:
        y = _run(*tensors, window_size, shift, False)[0]
    return y.to(qkv.dtype)


def _run(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int, keep: bool) -> tuple[Tensor, Tensor]:
    """(result (B, H, W, C), the norms that the backward pass needs, or nothing)."""
    batch, height, width, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2], qkv.shape[3] // 3
    heads = bias_table.shape[1]
    units = batch * (height // window_size) * heads
    output = qkv.new_empty(batch, height, width, channels)
    norms = _new_norms(qkv, bias_table, window_size, keep)
    arguments = _kernel_inputs(qkv, bias_table, window_size, shift)
    results = _split_heads(output, heads).numpy(), norms.numpy()
    workers = worker_count(units, forward_unit)
    buffers = [_buffers(window_size, channels // heads) for _ in range(workers)]

    def task(worker: int, unit: int) -> None:
        forward_unit(unit, *arguments, *results, *buffers[worker])

    run_tasks(task, units, workers)
    return output, norms


_attend = torch.library.custom_op("mambair::window_attention_numba", _run, mutates_args=(), device_types="cpu")


@_attend.register_fake
def _(qkv: Any, bias_table: Any, window_size: Any, shift: Any, keep: Any) -> Any:
    y = qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))
    return y, _new_norms(qkv, bias_table, window_size, keep)


def _run_backward(
    dy: Tensor, qkv: Tensor, bias_table: Tensor, y: Tensor, norms: Tensor, window_size: int, shift: int
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv and of the table, from that of the output."""
    heads = bias_table.shape[1]
    channels = qkv.shape[3] // (3 * heads)
    units = norms.shape[0] * norms.shape[1] * heads
    arguments = _kernel_inputs(qkv, bias_table, window_size, shift)
    stride = _stride(window_size)
    d_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    d_tables = qkv.new_empty(units, (2 * window_size - 1) * stride)
    given = [norms.numpy(), *(_split_heads(each.detach(), heads).numpy() for each in (y, dy))]
    results = _split_heads(d_qkv, 3, heads).numpy(), d_tables.numpy()
    workers = worker_count(units, backward_unit)
    buffers = [[*_buffers(window_size, channels), *_backward_buffers(window_size, channels)] for _ in range(workers)]

    def task(worker: int, unit: int) -> None:
        backward_unit(unit, *arguments, *given, *results, *buffers[worker])

    run_tasks(task, units, workers)
    side = 2 * window_size - 1
    d_table = d_tables.view(-1, heads, side, stride).sum(0)[:, :, :side]
    return d_qkv, d_table.reshape(heads, -1).t().contiguous()


_attend_backward = torch.library.custom_op(
    "mambair::window_attention_numba_backward", _run_backward, mutates_args=(), device_types="cpu"
)


@_attend_backward.register_fake
def _(dy: Any, qkv: Any, bias_table: Any, y: Any, norms: Any, window_size: Any, shift: Any) -> Any:
    return qkv.new_empty(qkv.shape), bias_table.new_empty(bias_table.shape)


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
    gradients = backward(dy, *ctx.saved_tensors, *ctx.options)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


def _backward(ctx: Any, dy: Any, _: Any) -> Any:
    return (None,) * 5 if dy is None else (*_gradients(ctx, _attend_backward, dy), None)


_attend.register_autograd(_backward, setup_context=setup_context)


counts_flops(torch.ops.mambair.window_attention_numba)(forward_flops)
counts_flops(torch.ops.mambair.window_attention_numba_backward)(backward_flops)


def _split_heads(image: Tensor, *parts: int) -> Tensor:
    """(B, H, W, channels) as (B, L, *parts, channels of each part)."""
    return image.contiguous().view(image.shape[0], image.shape[1] * image.shape[2], *parts, -1)


def _vectors(count: int) -> int:
    return -(-count // LANES)


def _stride(window_size: int) -> int:
    """Length of the table's rows in the kernels: a vector of queries begins at each of 2w - 1 columns, or before."""
    return window_size + _vectors(window_size) * LANES


def _new_norms(qkv: Tensor, bias_table: Tensor, window_size: int, keep: bool) -> Tensor:
    batch, height, width, _ = qkv.shape
    grid = (height // window_size, width // window_size, bias_table.shape[1])
    return qkv.new_empty(batch if keep else 0, *grid, window_size, _vectors(window_size), LANES)


def _kernel_inputs(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> list[Any]:
    """The kernels' first arguments after the unit's number, up to the table."""
    heads, side, stride = bias_table.shape[1], 2 * window_size - 1, _stride(window_size)
    table = F.pad(bias_table.detach().t().reshape(heads, side, side) * LOG2_E, (0, stride - side)).view(heads, -1)
    image = _split_heads(qkv.detach(), 3, heads)
    sizes = [qkv.shape[1], qkv.shape[2], window_size, shift, MASKED * LOG2_E, stride]
    return [*sizes, image.numpy(), table.numpy()]


def _buffers(window_size: int, channels: int) -> list[np.ndarray]:
    """One worker's scratch memory for either pass."""
    keys = -(-(window_size**2) // BLOCK) * BLOCK
    parts = _vectors(window_size)
    shapes = ((4, parts, LANES), (window_size, parts, channels, LANES), (keys, channels), (keys, channels))
    floats = [np.empty(shape, np.float32) for shape in (*shapes, (keys, LANES), (channels, LANES))]
    return [np.empty(window_size**2, np.int64), *(np.empty(keys, np.int64) for _ in range(3)), *floats]


def _backward_buffers(window_size: int, channels: int) -> list[np.ndarray]:
    """What the backward pass needs besides."""
    keys = -(-(window_size**2) // BLOCK) * BLOCK
    wide = _vectors(channels) * LANES
    shapes = ((window_size, _vectors(window_size), channels, LANES), (keys, LANES))
    rows = ((window_size**2, wide), (window_size**2, wide), (keys, wide), (keys, wide))
    return [np.empty(shape, np.float32) for shape in (*shapes, *rows)]
