"""selective_scan on the CPU: the compiled kernels as a PyTorch operator with gradients.

Shapes: B batch, D channels, G groups of E = D / G channels in M = ceil(E / 16) blocks, L length, N states,
Q parts of the blocks.
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
from mambair.ops.flops import BACKWARD_FACTOR, counts_flops, selective_scan_flops
from mambair.ops.selective_scan.numba_kernels import backward_unit, forward_unit


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU and the tensors are on {device}; move them there, or use backend 'triton' on a GPU"
    return None


def selective_scan_numba(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """See `selective_scan`; B and C are (B, G, N, L). Computes in float32."""
    tensors = (u, delta, A, B, C, D, delta_bias)
    keep_states = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    nothing = torch.zeros(u.shape[1])
    u_, delta, A, B, C, D, bias = (nothing if tensor is None else tensor.float() for tensor in tensors)
    y, last_state, _ = _scan(u_, delta, A, B, C, D, bias, delta_softplus, keep_states)
    if z is not None:
        y = y * F.silu(z.float())
    y = y.to(u.dtype)
    return (y, last_state) if return_last_state else y


@torch.library.custom_op("mambair::selective_scan_numba", mutates_args=(), device_types="cpu")
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y (B, D, L), last state (B, D, N), states at each chunk's start (B, G, chunks, M, N, 16) or empty)."""
    batch, channels, _ = u.shape
    groups, states = B.shape[1], B.shape[2]
    arrays = _kernel_inputs(u, delta, A, B, C, D, delta_bias)
    blocks = block_count(channels // groups)
    _, parts = split_work(batch * groups, 1, blocks)
    y = u.new_empty(u.shape)
    last_state = u.new_empty(batch, groups, blocks, states, LANES)
    saved = _new_saved(u, B, keep_states)
    results = [tensor.numpy() for tensor in (y, last_state, saved)]
    units = batch * groups * parts
    workers = worker_count(units, forward_unit)
    shapes = ((CHUNK, 2 * states), *[(blocks, CHUNK, LANES)] * 4, (blocks, states, LANES))
    buffers = [[u.new_empty(shape).numpy() for shape in shapes] for _ in range(workers)]

    def task(worker: int, unit: int) -> None:
        forward_unit(unit, parts, delta_softplus, *arrays, *results, *buffers[worker])

    run_tasks(task, units, workers)
    last_state = from_blocks(last_state.flatten(0, 1), channels // groups)  # (B G, E, N)
    return y, last_state.view(batch, channels, states), saved


@_scan.register_fake
def _(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, delta_bias: Any, delta_softplus: Any, keep_states: Any
) -> Any:
    last_state = u.new_empty(u.shape[0], u.shape[1], B.shape[2])
    return u.new_empty(u.shape), last_state, _new_saved(u, B, keep_states)


@torch.library.custom_op("mambair::selective_scan_numba_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    dy: Tensor,
    dlast_state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    saved: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D and delta_bias, from those of y and the last state."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], B.shape[2]
    arrays = _kernel_inputs(u, delta, A, B, C, D, delta_bias)
    blocks = block_count(channels // groups)
    _, parts = split_work(batch * groups, 1, blocks)
    du, ddelta = u.new_empty(u.shape), u.new_empty(u.shape)
    dprojections = u.new_empty(parts, batch, groups, 2 * states, length)
    dparameters = [u.new_empty(batch, groups, blocks, *shape) for shape in ((states, LANES), (LANES,), (LANES,))]
    dlast_blocks = to_blocks(dlast_state.detach().view(batch * groups, channels // groups, states))
    gradients = [
        saved.numpy(),
        dy.detach().contiguous().numpy(),
        dlast_blocks.view(batch, groups, blocks, states, LANES).numpy(),
        *(tensor.numpy() for tensor in (du, ddelta, dprojections, *dparameters)),
    ]
    units = batch * groups * parts
    workers = worker_count(units, backward_unit)
    shapes = (
        (CHUNK, 2 * states),
        *[(blocks, CHUNK, LANES)] * 6,
        (blocks, states, LANES),
        (2 * states, CHUNK, FOLDED),
        (CHUNK, LANES),
        *[(2, CHUNK, LANES)] * 2,
        *[(CHUNK, LANES)] * 2,
    )
    buffers = [[u.new_empty(shape).numpy() for shape in shapes] for _ in range(workers)]

    def task(worker: int, unit: int) -> None:
        backward_unit(unit, parts, delta_softplus, *arrays, *gradients, *buffers[worker])

    run_tasks(task, units, workers)
    dA, dD, dbias = (from_blocks(gradient.sum(dim=0), channels // groups).flatten(0, 1) for gradient in dparameters)
    dB, dC = sum_parts(dprojections).split(states, dim=2)
    return du, ddelta, dA, dB.contiguous(), dC.contiguous(), dD, dbias


@_scan_backward.register_fake
def _(
    dy: Any,
    dlast_state: Any,
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    delta_bias: Any,
    saved: Any,
    delta_softplus: Any,
) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (u, delta, A, B, C, D, delta_bias))


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.delta_softplus, _ = inputs
    _, last_state, saved = output
    ctx.last_state_shape = last_state.shape
    ctx.save_for_backward(*tensors, saved)
    ctx.mark_non_differentiable(saved)
    # Otherwise zeros as large as the saved states are made for their gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Any, dlast_state: Any, _: Any) -> Any:
    u = ctx.saved_tensors[0]
    dy = u.new_zeros(u.shape) if dy is None else dy
    dlast_state = u.new_zeros(ctx.last_state_shape) if dlast_state is None else dlast_state
    gradients = _scan_backward(dy, dlast_state.contiguous(), *ctx.saved_tensors, ctx.delta_softplus)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.selective_scan_numba)
def _forward_flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    batch, channels, length = u
    return selective_scan_flops(batch, length, channels, A[1])


@counts_flops(torch.ops.mambair.selective_scan_numba_backward)
def _backward_flops(dy: Any, dlast_state: Any, *shapes: Any, **_: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(*shapes)


def _new_saved(u: Tensor, B: Tensor, keep_states: bool) -> Tensor:
    """Uninitialised memory for the states at each chunk's start; empty if they are not kept."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], B.shape[2]
    blocks = block_count(channels // groups)
    return u.new_empty((batch if keep_states else 0), groups, -(-length // CHUNK), blocks, states, LANES)


def _kernel_inputs(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> list[np.ndarray]:
    """The arrays in the kernels' order and layout: u, delta, B, C and the parameters in blocks."""
    groups = B.shape[1]
    parameters = [to_blocks(tensor.unflatten(0, (groups, -1))) for tensor in (A * LOG2_E, D, delta_bias)]
    return [tensor.detach().contiguous().numpy() for tensor in (u, delta, B, C, *parameters)]
