"""ss2d_scan on the CPU: the compiled kernels as a PyTorch operator with gradients.

Shapes: B batch, H x W pixels, L = H W, D channels in G = ceil(D / 16) blocks, K directions, R rank of delta, N states,
P = R + 2N, S parts of the directions, Q parts of the blocks.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.cpu.lanes import block_count, from_blocks, to_blocks
from mambair.ops.cpu.recurrence import CHUNK
from mambair.ops.cpu.simd import FOLDED, LANES, LOG2_E
from mambair.ops.cpu.workers import run_tasks, split_work, sum_parts, worker_count
from mambair.ops.direct import may_start_directly
from mambair.ops.flops import BACKWARD_FACTOR, counts_flops, ss2d_core_flops
from mambair.ops.ss2d.numba_kernels import COLUMNS, REVERSED, backward_unit, forward_unit

_CODES = {1: (0,), 2: (0, REVERSED), 4: (0, COLUMNS, REVERSED, COLUMNS | REVERSED)}


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU and the tensors are on {device}; move them there, or use backend 'triton' on a GPU"
    return None


def ss2d_scan_numba(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
) -> Tensor:
    """See `ss2d_scan`; computes in float32."""
    channels, states = x.shape[3], A_logs.shape[1]
    with torch.autocast("cpu", enabled=False):
        image = x.float()
        # One matrix product for all directions: a pixel's projections do not depend on the order of the pixels.
        projections = F.linear(image, x_proj_weight.float().flatten(0, 1))  # (B, H, W, K P)
        y = scan_projected(
            image,
            projections,
            dt_projs_weight.float(),
            dt_projs_bias.float(),
            -torch.exp(A_logs.float()).view(directions, channels, states),
            Ds.float().view(directions, channels),
        )
    return y.to(x.dtype)


def scan_projected(x: Tensor, projections: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """The scans of an image whose projections to dt, B and C are given; all in float32, shapes as in `_scan`."""
    tensors = (x, projections, dt_weight, dt_bias, A, D)
    keep_states = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if may_start_directly(*tensors):
        return _DirectScan.apply(*tensors) if keep_states else run_forward(*tensors, False)[0]
    return _scan(*tensors, keep_states)[0]


def run_forward(
    x: Tensor,
    projections: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """(sum of the directions' scans (B, H, W, D), states at each chunk's start (B, K, chunks, G, N, 16) or empty).

    x: (B, H, W, D).  projections: (B, H, W, K P).  dt_weight: (K, D, R).  dt_bias, D: (K, D).  A: (K, D, N).
    """
    batch, height, width, channels = x.shape
    arrays, codes, blocks = _kernel_inputs(x, projections, dt_weight, dt_bias, A, D)
    directions, states = A.shape[0], A.shape[2]
    parts = split_work(batch, directions, blocks)
    output = x.new_empty(parts[0], batch, height * width, channels)
    saved = _new_saved(x, A, keep_states)
    units = batch * parts[0] * parts[1]
    workers = worker_count(units, forward_unit)
    columns = arrays[1].shape[3]
    buffers = [
        _buffers(x, ((CHUNK, columns), *[(blocks, CHUNK, LANES)] * 4, (blocks, states, LANES))) for _ in range(workers)
    ]
    results = output.numpy(), saved.numpy()

    def task(worker: int, unit: int) -> None:
        forward_unit(unit, *parts, height, width, codes, *arrays, *results, *buffers[worker])

    run_tasks(task, units, workers)
    return sum_parts(output).view_as(x), saved


_scan = torch.library.custom_op("mambair::ss2d_scan_numba", run_forward, mutates_args=(), device_types="cpu")


@_scan.register_fake
def _(x: Any, projections: Any, dt_weight: Any, dt_bias: Any, A: Any, D: Any, keep_states: Any) -> Any:
    return x.new_empty(x.shape), _new_saved(x, A, keep_states)


def run_backward(
    dy: Tensor,
    x: Tensor,
    projections: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, projections, dt_weight, dt_bias, A and D, from that of the output."""
    batch, height, width, channels = x.shape
    arrays, codes, blocks = _kernel_inputs(x, projections, dt_weight, dt_bias, A, D)
    directions, states, rank = A.shape[0], A.shape[2], dt_weight.shape[2]
    columns = rank + 2 * states
    parts = split_work(batch, directions, blocks)
    length = height * width
    dx = x.new_empty(parts[0], batch, length, channels)
    dprojections = x.new_empty(parts[1], batch, length, directions, columns)
    dparameters = [
        x.new_empty(batch, directions, blocks, *shape) for shape in ((rank, LANES), (LANES,), (states, LANES), (LANES,))
    ]
    units = batch * parts[0] * parts[1]
    workers = worker_count(units, backward_unit)
    shapes = (
        (CHUNK, columns),
        *[(blocks, CHUNK, LANES)] * 6,
        (blocks, states, LANES),
        (columns, CHUNK, FOLDED),
        (CHUNK, LANES),
        *[(2, CHUNK, LANES)] * 2,
        *[(CHUNK, LANES)] * 2,
    )
    buffers = [_buffers(x, shapes) for _ in range(workers)]
    gradient = dy.detach().contiguous().view(batch, length, channels).numpy()
    results = [tensor.numpy() for tensor in (dx, dprojections, *dparameters)]

    def task(worker: int, unit: int) -> None:
        backward_unit(unit, *parts, height, width, codes, *arrays, saved.numpy(), gradient, *results, *buffers[worker])

    run_tasks(task, units, workers)
    dweight, dbias, dA, dD = (from_blocks(gradient.sum(dim=0), channels) for gradient in dparameters)
    return sum_parts(dx).view_as(x), sum_parts(dprojections).view(projections.shape), dweight, dbias, dA, dD


_scan_backward = torch.library.custom_op(
    "mambair::ss2d_scan_numba_backward", run_backward, mutates_args=(), device_types="cpu"
)


@_scan_backward.register_fake
def _(dy: Any, x: Any, projections: Any, dt_weight: Any, dt_bias: Any, A: Any, D: Any, saved: Any) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, projections, dt_weight, dt_bias, A, D))


class _DirectScan(torch.autograd.Function):
    """The operator for plain calls, see `mambair.ops.direct`."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        arguments: list[Any] = [*tensors, True]
        y, saved = run_forward(*arguments)
        ctx.save_for_backward(*tensors, saved)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        # With a graph of its own, a second derivative is asked for: the operator says that it has none.
        run = _scan_backward if torch.is_grad_enabled() else run_backward
        gradients = run(dy, *ctx.saved_tensors)
        return tuple(gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=True))


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, _ = inputs
    _, saved = output
    ctx.save_for_backward(*tensors, saved)
    ctx.mark_non_differentiable(saved)
    # Otherwise zeros as large as the saved states are made for their gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Any, _: Any) -> Any:
    if dy is None:
        return (None,) * 7
    gradients = _scan_backward(dy, *ctx.saved_tensors)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.ss2d_scan_numba)
def _forward_flops(x: Any, projections: Any, dt_weight: Any, dt_bias: Any, A: Any, *_: Any, **__: Any) -> int:
    batch, height, width, channels = x
    return ss2d_core_flops(batch, height * width, channels, A[2], dt_weight[2], A[0])


@counts_flops(torch.ops.mambair.ss2d_scan_numba_backward)
def _backward_flops(dy: Any, *shapes: Any, **_: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(*shapes)


def _new_saved(x: Tensor, A: Tensor, keep_states: bool) -> Tensor:
    """Uninitialised memory for the states at each chunk's start; empty if they are not kept."""
    batch, height, width, channels = x.shape
    directions, _, states = A.shape
    chunks = -(-height * width // CHUNK)
    return x.new_empty((batch if keep_states else 0), directions, chunks, block_count(channels), states, LANES)


def _kernel_inputs(
    x: Tensor, projections: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """(arrays in the kernels' order and layout, the directions' codes, number of channel blocks)."""
    batch, height, width, channels = x.shape
    directions = A.shape[0]
    blocked = [to_blocks(parameter) for parameter in (dt_weight, dt_bias, A * LOG2_E, D)]
    tensors = [
        x.contiguous().view(batch, height * width, channels),
        projections.contiguous().view(batch, height * width, directions, -1),
        *blocked,
    ]
    codes = np.array(_CODES[directions], dtype=np.int64)
    return [tensor.detach().numpy() for tensor in tensors], codes, blocked[1].shape[1]


def _buffers(like: Tensor, shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """One worker's scratch memory: pixel numbers, then float32 arrays of the given shapes."""
    return [np.empty(CHUNK, dtype=np.int64), *(like.new_empty(shape).numpy() for shape in shapes)]
