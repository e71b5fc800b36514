"""Buffers and launches of the Triton kernels, for images and sequences alike; triton_plan.py says how scans are cut up.

Shapes: B batch, L = H W pixels, K directions, S of them in a launch, C chunks, E channels of a group in EB blocks, N
states, R rank of delta, P = R + 2N.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from mambair.ops.ss2d import triton_backward as backward
from mambair.ops.ss2d import triton_forward as forward
from mambair.ops.ss2d import triton_prepare as prepare
from mambair.ops.ss2d.triton_plan import ONE_WARP, WARP, Launch, ScanShape, blocks_of, plan_for

LOG2_E = math.log2(math.e)
# Registers per thread of the backward kernels: 16 warps fit on a multiprocessor, instead of 12.
_BACKWARD_REGISTERS = 128
# Of delta_kernel: channels per thread, threads that share the weights; and what it and bc_kernel take per program.
_RUN = 8
_SHARING = 4
_BLOCK = 128
# Pixels per program of the kernels after the scan; pixels per partial sum of the weights' gradients, and those sums.
_PIXELS = 64
_MIN_SHARE = 256
_MAX_SHARES = 256


@dataclass(frozen=True)
class ScanInputs:
    """What a scan reads, contiguous: x (B, L, pixel stride); delta before softplus (B, L, K, E), None where it is
    projected from rank R; projected (B, L, K P); A2 (K, EB, N, lanes); dt_weight (K, R, E) or None; bias, D (K, E)."""

    x: Tensor
    delta: Tensor | None
    projected: Tensor
    A2: Tensor
    dt_weight: Tensor | None
    bias: Tensor
    D: Tensor


def launch_refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on `device`, with the remedy; None when they can."""
    if isinstance(forward.scan_kernel, InterpretedFunction):
        return None
    if device.type != "cuda":
        return f"it runs on CUDA GPUs and the tensors are on {device}; move them to one, or use backend 'numba'"
    if torch.version.hip is not None:
        return "it is written for NVIDIA GPUs; use backend 'reference'"
    if not torch.cuda.is_available():
        return "no CUDA GPU is usable; run nvidia-smi to see whether the driver finds one"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 7:
        return f"it needs compute capability 7.0 and this GPU has {major}.{minor}; use backend 'mamba_ssm'"
    return None


def _on(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _precision(x: Tensor) -> str:
    """How products run on the tensor cores: tf32 is finer than bf16 and fp16 inputs are; fp32 needs three terms."""
    if not x.is_cuda or torch.cuda.get_device_capability(x.device) < (8, 0):
        return "ieee"
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def pack_parameters(A_logs: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor]:
    """(A log2(e) (K, EB, N, lanes), dt weight (K, R, E)), fp32, from A_logs (K E, N), dt_projs_weight (K, E, R)."""
    directions, channels, rank = dt_weight.shape
    states = A_logs.shape[1]
    A2 = A_logs.new_empty(directions, blocks_of(channels, WARP), states, WARP, dtype=torch.float32)
    packed = A_logs.new_empty(directions, rank, channels, dtype=torch.float32)
    with _on(A_logs):
        prepare.pack_parameters_kernel[(blocks_of(channels, WARP), directions)](
            A_logs.contiguous(), dt_weight.contiguous(), A2, packed, channels, states, rank,
            BN=triton.next_power_of_2(states), BR=triton.next_power_of_2(rank), BE=WARP, **ONE_WARP,
        )  # fmt: skip
    return A2, packed


def _prepare(launch: Launch, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """(delta (B L, S, E), bc (B L, S, 2, NP)) of the launch's directions."""
    shape, x, given = launch.shape, inputs.x, inputs.delta
    half = x.dtype != torch.float32 and (given is None or given.dtype != torch.float32)
    kind = torch.float16 if half else torch.float32
    delta = x.new_empty(launch.pixels, launch.slots, shape.channels, dtype=kind)
    bc = x.new_empty(launch.pixels, launch.slots, 2, launch.padded_states, dtype=torch.float32)
    where = (shape.directions, shape.groups, *launch.which)
    sizes = {"R": shape.rank, "P": shape.projections, "SLOTS": launch.slots, "num_warps": 4}
    run = math.gcd(shape.channels, _RUN)
    places = triton.cdiv(launch.pixels, _SHARING) * _SHARING * (shape.channels // run)
    prepare.delta_kernel[(triton.cdiv(places, _BLOCK) * launch.slots,)](
        inputs.projected, inputs.bias if inputs.dt_weight is None else inputs.dt_weight, inputs.bias,
        x if given is None else given, delta, launch.pixels, *where, E=shape.channels, RUN=run, SHARING=_SHARING,
        BLOCK=_BLOCK, GIVEN=given is not None, SOFTPLUS=shape.softplus, **sizes,
    )  # fmt: skip
    padded = launch.padded_states
    prepare.bc_kernel[(triton.cdiv(launch.pixels * launch.slots, _BLOCK),)](
        inputs.projected, bc, launch.pixels, *where, N=shape.states, NP=padded, BN=triton.next_power_of_2(2 * padded),
        BLOCK=_BLOCK, **sizes,
    )  # fmt: skip
    return delta, bc


def _rank_block(rank: int) -> int:
    """Columns of a matrix product over the rank: the tensor cores take no fewer than 16."""
    return max(16, triton.next_power_of_2(rank))


def _pass_states(
    launch: Launch, states: Tensor, sums: Tensor, A2: Tensor, backward: bool = False, initial: Tensor | None = None
) -> None:
    shape = launch.shape
    grid = (launch.channel_blocks, shape.states, shape.batch * launch.slots)
    forward.pass_states_kernel[grid](
        states, sums, A2, A2 if initial is None else initial, shape.channels, launch.padded_channels, shape.directions,
        shape.groups, launch.plan.chunks, *launch.which, N=shape.states, ROWS=states.shape[-2],
        SENSES=shape.senses, BACKWARD=backward, INITIAL=initial is not None, BC=16, BE=WARP, **ONE_WARP,
    )  # fmt: skip


def _sum_parts(parts: Tensor) -> Tensor:
    """The sum over the first dimension, in the type of `parts`."""
    if parts.shape[0] == 1:
        return parts[0]
    total = torch.empty_like(parts[0])
    forward.sum_parts_kernel[(blocks_of(total.numel(), 1024),)](
        parts, total, total.numel(), total.numel(), parts=parts.shape[0], BLOCK=1024, num_warps=4
    )
    return total


def scan_forward(shape: ScanShape, inputs: ScanInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y like x; the states that enter the chunks and the chunks' sums of delta, for `scan_backward`; the last states.

    The last states (B, K, N, E) are those of sequences, and empty for images.
    """
    x, A2 = inputs.x, inputs.A2
    launch = Launch(shape, plan_for(shape, x.device), 0, shape.groups)
    chunks = launch.plan.chunks
    sums = A2.new_empty(shape.batch, chunks, shape.directions, launch.padded_channels)
    states = A2.new_empty(*sums.shape[:3], launch.channel_blocks, shape.states, WARP)
    last = A2.new_empty(0 if shape.image else (shape.batch, shape.directions, shape.states, shape.channels))
    sizes = (shape.channels, launch.padded_channels, shape.directions, shape.groups, chunks)
    # Every direction of an image has its own part of the sum, so that all run at once without atomics.
    parts = x.new_empty(shape.directions if shape.image else 1, *x.shape)
    with _on(x):
        delta, bc = _prepare(launch, inputs)

        def scan(**options: bool) -> None:
            block, registers = launch.plan.block, launch.plan.registers
            forward.scan_kernel[launch.grid(block)](
                x, delta, bc, A2, inputs.D, states, sums, last, parts, *launch.image_sizes(),
                x.numel() if shape.image else 0, *sizes, **options, **launch.sequential_options(block, registers),
            )  # fmt: skip

        if chunks > 1:
            scan(OUTPUTS=False, LAST=False)
            _pass_states(launch, states, sums, A2)
        else:
            states.zero_()
            sums.zero_()
        scan(OUTPUTS=True, LAST=not shape.image)
        y = _sum_parts(parts)
    return y, states, sums, last


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
    with _on(dy):
        for first, groups in axes:
            launch = Launch(shape, plan, first, groups)
            d_v = _gradients(launch, dy, inputs, kept, leaving, found, A_is_log)
            _finish_projections(launch, d_v, inputs, found)
            del d_v
        found.x = _sum_parts(found.x_parts)
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
    running = A2.new_empty(
        shape.batch, chunks, launch.slots, launch.channel_blocks, 2 * shape.states + 1, WARP, dtype=torch.float32
    )
    # As fine as the inputs: a tile starts from it and nothing accumulates.
    kind = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    blocks = (launch.channel_blocks, shape.states, WARP)
    tile_states = x.new_empty(shape.batch, launch.slots, launch.tiles, *blocks, dtype=kind)
    backward.chunk_adjoints_kernel[launch.grid(WARP)](
        x, dy, delta, bc, A2, states, tile_states, running, *launch.image_sizes(), shape.channels,
        launch.padded_channels, shape.directions, shape.groups, chunks, *launch.which, launch.tiles,
        SENSES=shape.senses, **launch.sequential_options(WARP, _BACKWARD_REGISTERS),
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
    delta, bc = _prepare(launch, inputs)
    running, tile_states = _adjoints(launch, dy, inputs, delta, bc, kept.states)
    del bc
    _pass_states(launch, running, kept.sums, A2, backward=True, initial=leaving)
    sums_precision = {"PRECISION": _precision(x)}
    if _precision(x) == "tf32":
        sums_precision = {"PRECISION": "bf16", "maxnreg": _BACKWARD_REGISTERS}
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
        tiles, BE=WARP, SENSES=shape.senses, SOFTPLUS=shape.softplus, ADD=launch.first > 0, **sums_precision,
        **launch.scan_options(),
    )  # fmt: skip
    prepare.gather_bc_kernel[grid](
        d_bc, found.projected, shape.height, shape.width, *walk, launch.channel_blocks, **options
    )
    # All but the adjoints, which are used up.
    parts = running.flatten(0, 1)[:, :, :, shape.states :]
    _sum_rows(launch, parts, parts.stride()[-2:-4:-1], A2, found.A, found.D, A_is_log)
    return d_v


def _finish_projections(launch: Launch, d_v: Tensor, inputs: ScanInputs, found: Gradients) -> None:
    """Fills dt_weight, bias and the columns of dt in projected."""
    projected, A2 = inputs.projected, inputs.A2
    shape, slots = launch.shape, launch.slots
    sizes = (launch.pixels, shape.projections, shape.directions, shape.groups, *launch.which, slots)
    share = max(_MIN_SHARE, triton.cdiv(launch.pixels, _MAX_SHARES * _PIXELS) * _PIXELS)
    shares = triton.cdiv(launch.pixels, share)
    parts = A2.new_empty(shares, slots, shape.rank + 1, shape.channels)
    precision = _precision(projected if d_v.dtype != torch.float32 else d_v)
    prepare.weight_gradient_kernel[(blocks_of(shape.channels, 64), slots, shares)](
        d_v, projected, parts, *sizes, share, E=shape.channels, R=shape.rank, BR=_rank_block(shape.rank + 1),
        BL=_PIXELS, BE=64, PRECISION=precision, num_warps=4,
    )  # fmt: skip
    _sum_rows(launch, parts, (shape.channels, WARP), A2, found.dt_weight, found.bias, False)
    if inputs.dt_weight is not None:
        prepare.dt_gradient_kernel[(triton.cdiv(launch.pixels, _PIXELS), slots)](
            d_v, inputs.dt_weight, found.projected, *sizes, E=shape.channels, R=shape.rank, BR=_rank_block(shape.rank),
            BL=_PIXELS, BE=64, PRECISION=precision, num_warps=4,
        )  # fmt: skip


def _sum_rows(
    launch: Launch, parts: Tensor, strides: tuple[int, int], A2: Tensor, first: Tensor, last: Tensor, A_is_log: bool
) -> None:
    """Sum parts (parts, S, ...); `strides`: from row to row and from block to block of channels."""
    shape = launch.shape
    rows = first.numel() // (shape.directions * shape.channels) + 1
    prepare.sum_rows_kernel[(launch.channel_blocks, rows, launch.slots)](
        parts, A2, first, last, parts.shape[0], shape.channels, launch.padded_channels, rows, parts.stride(0),
        *strides, shape.groups, *launch.which, LOGS=A_is_log, BC=32, BE=WARP, **ONE_WARP,
    )  # fmt: skip
