"""The launches of the backward kernels, for images and sequences alike; shapes as in triton_launch.py."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from mambair.ops.launching import Layout, PreparedKernel
from mambair.ops.ss2d import triton_backward as backward
from mambair.ops.ss2d import triton_prepare as prepare
from mambair.ops.ss2d import triton_projections as projections
from mambair.ops.ss2d.triton_launch import (
    MakeDelta,
    ScanAddresses,
    ScanInputs,
    ScanTypes,
    pass_states_kernel,
    product_precision,
    sum_parts_kernel,
)
from mambair.ops.ss2d.triton_plan import (
    GATHER_TILES,
    ORDER_TILES,
    WARP,
    Launch,
    ScanShape,
    blocks_of,
    kept_layout,
    plan_for,
)

# Of gradients_kernel in fp32, which would take 228 and leave room for 8 warps instead of 12.
_FULL_PRECISION_REGISTERS = 168
# Pixels per program of the kernels after the scan; pixels per partial sum of the weights' gradients, and those sums.
_PIXELS = 64
_MIN_SHARE = 256
_MAX_SHARES = 256
_FP32 = torch.float32


@dataclass(frozen=True)
class Gradients:
    """What a backward pass finds: x (without its way through projected), delta or None, projected; and in fp32 A (K E,
    N), dt_weight (K, E, R), bias and D (K, E)."""

    x: Tensor
    delta: Tensor | None
    projected: Tensor
    A: Tensor
    dt_weight: Tensor
    bias: Tensor
    D: Tensor


class GradientAddresses:
    """Where the tensors of `Gradients` lie; dx_parts: one part of x's for each sense."""

    __slots__ = ("A", "D", "bias", "delta", "dt_weight", "dx_parts", "projected")

    def __init__(self, dx_parts: int, delta: int, projected: int, A: int, dt_weight: int, bias: int, D: int) -> None:
        self.dx_parts, self.delta, self.projected, self.A = dx_parts, delta, projected, A
        self.dt_weight, self.bias, self.D = dt_weight, bias, D


def _rank_block(rank: int) -> int:
    """Columns of a matrix product over the rank: the tensor cores take no fewer than 16."""
    return max(16, triton.next_power_of_2(rank))


class _AxisBackward:
    """The launches for the directions of one launch: an axis of an image, or all groups of a sequence."""

    def __init__(self, launch: Launch, types: ScanTypes, A_is_log: bool, leaving: bool, device: torch.device) -> None:
        shape, plan, tiles = launch.shape, launch.plan, launch.tiles
        self._types, self._device, self._launch = types, device, launch
        self._given = types.delta is not None
        # As fine as the inputs: a tile starts from it and nothing accumulates.
        state_type = torch.bfloat16 if types.x == torch.bfloat16 else _FP32
        running = (shape.batch, plan.chunks, launch.slots, launch.channel_blocks, 2 * shape.states + 1, WARP)
        tile_states = (shape.batch, launch.slots, tiles, launch.channel_blocks, shape.states, WARP)
        share = max(_MIN_SHARE, triton.cdiv(launch.pixels, _MAX_SHARES * _PIXELS) * _PIXELS)
        shares = triton.cdiv(launch.pixels, share)
        bc = shape.batch, launch.slots, tiles, 2 * shape.states, plan.tile
        self._delta = MakeDelta(launch, types, device)
        self._bc = self._kernel(
            prepare.order_bc_kernel, launch.tile_grid(ORDER_TILES[0]), (types.projected, _FP32),
            launch.tile_numbers(), launch.tile_options(*ORDER_TILES),
        )  # fmt: skip
        self.work = Layout(
            delta=self._delta.result,
            bc=(bc, _FP32),
            running=(running, _FP32),
            tile_states=(tile_states, state_type),
            d_bc=((launch.channel_blocks, *bc), types.x),
            parts=((shares, launch.slots, shape.rank + 1, shape.channels), _FP32),
        )
        d_v_type = types.delta or types.x
        numbers = (*launch.image_sizes(), shape.channels, launch.padded_channels)
        self._adjoints = self._kernel(
            backward.chunk_adjoints_kernel, launch.grid(WARP),
            (types.x, types.x, types.after_softplus, types.projected, _FP32, _FP32, state_type, _FP32),
            (*numbers, *launch.scan_numbers(), *launch.which, tiles),
            {"SENSES": shape.senses} | launch.sequential_options(WARP, plan.backward_registers),
        )  # fmt: skip
        self._pass = pass_states_kernel(launch, 2 * shape.states + 1, device, backward=True, initial=leaving)
        self._gather = self._kernel(
            projections.gather_bc_kernel, launch.tile_grid(GATHER_TILES[0]), (types.x, types.projected),
            (*launch.tile_numbers(), launch.channel_blocks), launch.tile_options(*GATHER_TILES),
        )  # fmt: skip
        sums: dict[str, Any] = {"PRECISION": product_precision(types.x, device)}
        if sums["PRECISION"] == "tf32":
            sums = {"PRECISION": "bf16", "maxnreg": plan.backward_registers}
        elif sums["PRECISION"] == "tf32x3":
            sums["maxnreg"] = max(plan.backward_registers, _FULL_PRECISION_REGISTERS)
        self._gradients = self._kernel(
            backward.gradients_kernel, launch.grid(WARP),
            (types.x, types.x, types.after_softplus, _FP32, _FP32, types.D, state_type, _FP32, types.x, d_v_type,
             types.x),
            (*numbers[:4], launch.pixels * shape.pixel_stride, *numbers[4:], shape.groups, plan.chunks, *launch.which,
             tiles),
            {"BE": WARP, "SENSES": shape.senses, "SOFTPLUS": shape.softplus, "ADD": launch.first > 0, **sums,
             **launch.scan_options()},
        )  # fmt: skip
        # The rows behind the adjoints, which are used up.
        self._rows_offset = shape.states * WARP * _FP32.itemsize
        part = math.prod(running[2:])
        self._sum_A = self._sum_rows(
            shape.batch * plan.chunks, shape.states + 1, part, (WARP, running[4] * WARP), A_is_log
        )
        sizes = (
            launch.pixels, shape.projections, shape.directions, shape.groups, *launch.which, launch.slots,
        )  # fmt: skip
        precision = product_precision(types.projected if d_v_type != _FP32 else d_v_type, device)
        products = {"E": shape.channels, "R": shape.rank, "BL": _PIXELS, "BE": 64, "PRECISION": precision}
        products |= {"num_warps": 4, "num_stages": 1}
        self._weight = self._kernel(
            projections.weight_gradient_kernel, (blocks_of(shape.channels, 64), launch.slots, shares),
            (d_v_type, types.projected, _FP32), (*sizes, share), products | {"BR": _rank_block(shape.rank + 1)},
        )  # fmt: skip
        part = launch.slots * (shape.rank + 1) * shape.channels
        self._sum_weight = self._sum_rows(shares, shape.rank + 1, part, (shape.channels, WARP), False)
        self._dt = self._kernel(
            projections.dt_gradient_kernel, (triton.cdiv(launch.pixels, _PIXELS), launch.slots),
            (d_v_type, _FP32, types.projected), sizes, products | {"BR": _rank_block(shape.rank)},
        )  # fmt: skip
        self.kernels = (
            self._delta.kernel, self._bc, self._adjoints, self._pass, self._gradients, self._gather,
            self._sum_A, self._weight, self._sum_weight, *(() if self._given else (self._dt,)),
        )  # fmt: skip

    def _kernel(
        self, kernel: Any, grid: Sequence[int], types: Sequence[torch.dtype], numbers: Sequence[int], options: Any
    ) -> PreparedKernel:
        return PreparedKernel(kernel, grid, types, numbers, self._device, options)

    def _sum_rows(self, parts: int, rows: int, part: int, strides: tuple[int, int], logs: bool) -> PreparedKernel:
        """Sums `parts` of `part` numbers; `strides`: from row to row and from block to block of channels."""
        launch, shape = self._launch, self._launch.shape
        numbers = (
            parts, shape.channels, launch.padded_channels, rows, part, *strides, shape.groups, *launch.which,
        )  # fmt: skip
        # A classic block's 64 parts of weights take 2.3 us instead of 2.5 so, its 88 of A 2.9 instead of 3.1 (H200).
        block = 64 if parts <= 64 else 128
        options = {"LOGS": logs, "BC": block, "BE": WARP, "num_warps": 4, "num_stages": 1}
        grid = (launch.channel_blocks, rows, launch.slots)
        return self._kernel(projections.sum_rows_kernel, grid, (_FP32,) * 4, numbers, options)

    def __call__(
        self, at: ScanAddresses, dy: int, states: int, sums: int, leaving: int, to: GradientAddresses, work: list[int]
    ) -> None:
        delta, bc, running, tile_states, d_bc, parts = work
        # Of the projected delta's size; every place is read before it is written.
        d_v = to.delta if self._given else delta
        self._delta(at, delta)
        self._bc(at.projected, bc)
        self._adjoints(at.x, dy, delta, at.projected, at.A2, states, tile_states, running)
        self._pass(running, sums, at.A2, leaving or at.A2)
        self._gradients(
            at.x, dy, delta, bc, at.A2, at.D, tile_states, running, to.dx_parts, d_v, d_bc
        )  # fmt: skip
        self._gather(d_bc, to.projected)
        self._sum_A(running + self._rows_offset, at.A2, to.A, to.D)
        self._weight(d_v, at.projected, parts)
        self._sum_weight(parts, at.A2, to.dt_weight, to.bias)
        if not self._given:
            self._dt(d_v, at.dt_weight, to.projected)


class BackwardScan:
    """The launches of a backward pass."""

    def __init__(self, shape: ScanShape, types: ScanTypes, A_is_log: bool, leaving: bool, device: torch.device) -> None:
        plan = plan_for(shape, device)
        # An image's axes run one after the other: scratch memory for one of them.
        axes = [(group, 1) for group in range(shape.groups)] if shape.image else [(0, shape.groups)]
        launches = [Launch(shape, plan, first, groups) for first, groups in axes]
        self._axes = [_AxisBackward(launch, types, A_is_log, leaving, device) for launch in launches]
        self.work = max((axis.work for axis in self._axes), key=lambda layout: layout.size)
        self.kept = kept_layout(shape, device)
        self.dx_parts = shape.senses
        self.size = launches[0].pixels * shape.pixel_stride
        self._sum_parts = sum_parts_kernel(shape.senses, self.size, types.x, device)
        self.kernels = (*(kernel for axis in self._axes for kernel in axis.kernels), self._sum_parts)

    def __call__(
        self, at: ScanAddresses, dy: int, kept: int, leaving: int, to: GradientAddresses, work: int, dx: int
    ) -> None:
        """`work`: address of memory of that layout; dx gets the sum of the parts, where there is more than one."""
        states, sums = (kept + offset for offset in self.kept.offsets)
        for axis in self._axes:
            axis(at, dy, states, sums, leaving, to, [work + offset for offset in axis.work.offsets])
        if self.dx_parts > 1:
            self._sum_parts(to.dx_parts, dx)


@functools.lru_cache(maxsize=1024)
def backward_plan(
    shape: ScanShape, types: ScanTypes, A_is_log: bool, leaving: bool, device: torch.device
) -> BackwardScan:
    """The launches for tensors of these sizes and types, kept as those of the forward pass are."""
    return BackwardScan(shape, types, A_is_log, leaving, device)


def scan_backward(
    shape: ScanShape, dy: Tensor, inputs: ScanInputs, kept: Tensor, leaving: Tensor | None, A_is_log: bool
) -> Gradients:
    """Gradients of all inputs.

    dy like x; kept: of `scan_forward`; leaving: gradient of the last states (B, K, N, E) or None. A_is_log: A_logs'
    gradient instead of A's.
    """
    x, device = inputs.x, dy.device
    plan = backward_plan(shape, inputs.types(), A_is_log, leaving is not None, device)

    def parameter(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=_FP32, device=device)

    directions, channels = shape.directions, shape.channels
    found = Gradients(
        x=torch.empty_like(x),
        delta=None if inputs.delta is None else torch.empty_like(inputs.delta),
        projected=torch.empty_like(inputs.projected),
        A=parameter(directions * channels, shape.states),
        dt_weight=parameter(directions, channels, shape.rank),
        bias=parameter(directions, channels),
        D=parameter(directions, channels),
    )
    with torch.cuda.device_of(dy):
        work = torch.empty(plan.work.size, dtype=torch.uint8, device=device)
        dx_parts = found.x if plan.dx_parts == 1 else x.new_empty(plan.dx_parts, *x.shape)
        to = GradientAddresses(
            dx_parts.data_ptr(),
            0 if found.delta is None else found.delta.data_ptr(),
            found.projected.data_ptr(),
            found.A.data_ptr(),
            found.dt_weight.data_ptr(),
            found.bias.data_ptr(),
            found.D.data_ptr(),
        )
        entering = 0 if leaving is None else leaving.data_ptr()
        plan(inputs.addresses(), dy.data_ptr(), kept.data_ptr(), entering, to, work.data_ptr(), found.x.data_ptr())
    return found
