"""Buffers and launches of the backward kernels, for images and sequences alike; shapes as in triton_launch.py."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.ss2d import triton_backward as backward
from mambair.ops.ss2d import triton_prepare as prepare
from mambair.ops.ss2d import triton_projections as projections
from mambair.ops.ss2d.triton_launch import (
    ScanInputs,
    pass_states,
    prepare_scan,
    product_precision,
    sum_parts,
)
from mambair.ops.ss2d.triton_plan import WARP, Launch, ScanShape, blocks_of, plan_for

# Of gradients_kernel in fp32, which would take 228 and leave room for 8 warps instead of 12.
_FULL_PRECISION_REGISTERS = 168
# Pixels per program of the kernels after the scan; pixels per partial sum of the weights' gradients, and those sums.
_PIXELS = 64
_MIN_SHARE = 256
_MAX_SHARES = 256


@dataclass(frozen=True)
class Kept:
    """What a backward pass needs of the forward one: the states that enter the chunks, and their sums of delta."""

    states: Tensor
    sums: Tensor


def scan_backward(
    shape: ScanShape, dy: Tensor, inputs: ScanInputs, kept: Kept, leaving: Tensor | None, A_is_log: bool
) -> "Gradients":
    """Gradients of all inputs.

    dy like x; leaving: gradient of the last states (B, K, N, E) or None. A_is_log: A_logs' gradient instead of A's.
    """
    plan = plan_for(shape, dy.device)
    # An image's axes run one after the other: scratch memory for one of them.
    axes = [(group, 1) for group in range(shape.groups)] if shape.image else [(0, shape.groups)]
    found = Gradients(shape, inputs)
    with torch.cuda.device_of(dy):
        for first, groups in axes:
            launch = Launch(shape, plan, first, groups)
            d_v = _gradients(launch, dy, inputs, kept, leaving, found, A_is_log)
            _finish_projections(launch, d_v, inputs, found)
            del d_v
        found.x = sum_parts(found.x_parts)
    return found


class Gradients:
    """What a backward pass finds: x (without its way through projected), delta, projected, A (K E, N), dt_weight
    (K, E, R), bias and D (K, E). Those of parameters are fp32, the others of their tensor's type."""

    def __init__(self, shape: ScanShape, inputs: ScanInputs) -> None:
        def parameter(*sizes: int) -> Tensor:
            return inputs.A2.new_empty(sizes)

        self.x_parts = inputs.x.new_empty(shape.senses, *inputs.x.shape)
        self.x: Tensor | None = None
        self.delta = None if inputs.delta is None else torch.empty_like(inputs.delta)
        self.projected = torch.empty_like(inputs.projected)
        self.A = parameter(shape.directions * shape.channels, shape.states)
        self.dt_weight = parameter(shape.directions, shape.channels, shape.rank)
        self.bias, self.D = (parameter(shape.directions, shape.channels) for _ in range(2))


def _adjoints(
    launch: Launch, dy: Tensor, inputs: ScanInputs, delta: Tensor, bc: Tensor, states: Tensor
) -> tuple[Tensor, Tensor]:
    """(running (B, C, S, EB, 2N + 1, lanes) with each chunk's own part of its adjoint, tile_states (B, S, tiles, EB, N,
    lanes))."""
    x, A2 = inputs.x, inputs.A2
    shape, chunks = launch.shape, launch.plan.chunks
    running = A2.new_empty(shape.batch, chunks, launch.slots, launch.channel_blocks, 2 * shape.states + 1, WARP)
    # As fine as the inputs: a tile starts from it and nothing accumulates.
    kind = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    blocks = (launch.channel_blocks, shape.states, WARP)
    tile_states = x.new_empty(shape.batch, launch.slots, launch.tiles, *blocks, dtype=kind)
    backward.chunk_adjoints_kernel[launch.grid(WARP)](
        x, dy, delta, bc, A2, states, tile_states, running, *launch.image_sizes(), shape.channels,
        launch.padded_channels, shape.directions, shape.groups, chunks, *launch.which, launch.tiles,
        SENSES=shape.senses, **launch.sequential_options(WARP, launch.plan.backward_registers),
    )  # fmt: skip
    return running, tile_states


def _gradients(
    launch: Launch,
    dy: Tensor,
    inputs: ScanInputs,
    kept: Kept,
    leaving: Tensor | None,
    found: Gradients,
    A_is_log: bool,
) -> Tensor:
    """d_v (B L, S, E); fills A, D, the columns of B and C in projected, and this launch's share of x_parts."""
    shape, plan, x, A2 = launch.shape, launch.plan, inputs.x, inputs.A2
    channels, slots, tiles = shape.channels, launch.slots, launch.tiles
    delta, bc = prepare_scan(launch, inputs)
    running, tile_states = _adjoints(launch, dy, inputs, delta, bc, kept.states)
    del bc
    pass_states(launch, running, kept.sums, A2, backward=True, initial=leaving)
    sums = {"PRECISION": product_precision(x)}
    if sums["PRECISION"] == "tf32":
        sums = {"PRECISION": "bf16", "maxnreg": plan.backward_registers}
    elif sums["PRECISION"] == "tf32x3":
        sums["maxnreg"] = max(plan.backward_registers, _FULL_PRECISION_REGISTERS)
    tile_bc = A2.new_empty(shape.batch, slots, tiles, 2 * shape.states, plan.tile)
    d_bc = x.new_empty(launch.channel_blocks, *tile_bc.shape)
    d_v = x.new_empty(launch.pixels, slots, channels) if found.delta is None else found.delta
    walk = (shape.projections, shape.rank, shape.states, shape.directions, shape.groups, *launch.which, tiles)
    options = {"BP": triton.next_power_of_2(2 * shape.states), "SENSES": shape.senses, **launch.walk_options()}
    grid = (tiles, slots, shape.batch)
    prepare.order_bc_kernel[grid](inputs.projected, tile_bc, shape.height, shape.width, *walk, **options)
    backward.gradients_kernel[launch.grid(WARP)](
        x, dy, delta, tile_bc, A2, inputs.D, tile_states, running, found.x_parts, d_v, d_bc,
        *launch.image_sizes(), x.numel(), channels, launch.padded_channels, shape.groups, plan.chunks, *launch.which,
        tiles, BE=WARP, SENSES=shape.senses, SOFTPLUS=shape.softplus, ADD=launch.first > 0, **sums,
        **launch.scan_options(),
    )  # fmt: skip
    projections.gather_bc_kernel[grid](
        d_bc, found.projected, shape.height, shape.width, *walk, launch.channel_blocks, **options
    )
    # All but the adjoints, which are used up.
    parts = running.flatten(0, 1)[:, :, :, shape.states :]
    _sum_rows(launch, parts, parts.stride()[-2:-4:-1], A2, found.A, found.D, A_is_log)
    return d_v


def _rank_block(rank: int) -> int:
    """Columns of a matrix product over the rank: the tensor cores take no fewer than 16."""
    return max(16, triton.next_power_of_2(rank))


def _finish_projections(launch: Launch, d_v: Tensor, inputs: ScanInputs, found: Gradients) -> None:
    """Fills dt_weight, bias and the columns of dt in projected."""
    projected, A2 = inputs.projected, inputs.A2
    shape, slots = launch.shape, launch.slots
    sizes = (launch.pixels, shape.projections, shape.directions, shape.groups, *launch.which, slots)
    share = max(_MIN_SHARE, triton.cdiv(launch.pixels, _MAX_SHARES * _PIXELS) * _PIXELS)
    shares = triton.cdiv(launch.pixels, share)
    parts = A2.new_empty(shares, slots, shape.rank + 1, shape.channels)
    precision = product_precision(projected if d_v.dtype != torch.float32 else d_v)
    projections.weight_gradient_kernel[(blocks_of(shape.channels, 64), slots, shares)](
        d_v, projected, parts, *sizes, share, E=shape.channels, R=shape.rank, BR=_rank_block(shape.rank + 1),
        BL=_PIXELS, BE=64, PRECISION=precision, num_warps=4,
    )  # fmt: skip
    _sum_rows(launch, parts, (shape.channels, WARP), A2, found.dt_weight, found.bias, False)
    if inputs.dt_weight is not None:
        projections.dt_gradient_kernel[(triton.cdiv(launch.pixels, _PIXELS), slots)](
            d_v, inputs.dt_weight, found.projected, *sizes, E=shape.channels, R=shape.rank, BR=_rank_block(shape.rank),
            BL=_PIXELS, BE=64, PRECISION=precision, num_warps=4,
        )  # fmt: skip


def _sum_rows(
    launch: Launch, parts: Tensor, strides: tuple[int, int], A2: Tensor, first: Tensor, last: Tensor, A_is_log: bool
) -> None:
    """Sum parts (parts, S, ...); `strides`: from row to row and from block to block of channels."""
    shape = launch.shape
    rows = first.numel() // (shape.directions * shape.channels) + 1
    projections.sum_rows_kernel[(launch.channel_blocks, rows, launch.slots)](
        parts, A2, first, last, parts.shape[0], shape.channels, launch.padded_channels, rows, parts.stride(0),
        *strides, shape.groups, *launch.which, LOGS=A_is_log, BC=128, BE=WARP, num_warps=4, num_stages=1,
    )  # fmt: skip
