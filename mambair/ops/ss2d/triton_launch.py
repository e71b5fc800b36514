"""Buffers, grids and launches of the Triton kernels, for images and sequences alike.

Shapes: B batch, L = H W pixels, K = G groups x senses directions, E channels of a group, N states, R rank of delta,
P = R + 2N. An image has one group per axis, all groups reading the same channels; a sequence has one group per set of
channels that share B and C, and one sense.
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

WARP = 32
# Nothing to pipeline: staging loads through shared memory only cost registers.
_ONE_WARP = {"num_warps": 1, "num_stages": 1}
LOG2_E = math.log2(math.e)
# On an H200, classic sizes: tiles of 8 pixels with two channels per thread took 1240 us in gradients_kernel, not 901.
_TILE = 16
# Registers per thread. outputs_kernel: 339 us with 168, 398 with 128. chunk_adjoints_kernel: 468 us with 128, 658 with
# as many as it likes. gradients_kernel takes all 255: 901 us, 991 with 200.
_OUTPUTS_REGISTERS = 168
_ADJOINTS_REGISTERS = 128
# Warps per direction, at a channel per thread: with four directions twice what an H100's 132 multiprocessors hold.
_TARGET_WARPS = 1536
# A shorter chunk would spend more on its saved states than on its pixels.
_MIN_CHUNK_PIXELS = 64


@dataclass(frozen=True)
class ScanShape:
    """What is scanned. `delta_given`: delta is read in full (a sequence), instead of projected from rank R."""

    batch: int
    height: int
    width: int
    channels: int
    groups: int
    senses: int
    states: int
    rank: int
    image: bool
    delta_given: bool = False
    softplus: bool = True

    @property
    def directions(self) -> int:
        return self.groups * self.senses

    @property
    def projections(self) -> int:
        return self.rank + 2 * self.states

    def even(self, tile: int) -> bool:
        """Whether tiles of this length fill every line."""
        return self.width % tile == 0 and (self.groups == 1 or not self.image or self.height % tile == 0)

    @property
    def pixel_stride(self) -> int:
        return self.channels if self.image else self.channels * self.groups

    @property
    def group_stride(self) -> int:
        return 0 if self.image else self.channels

    def axis_tiles(self, tile: int) -> tuple[int, ...]:
        """Number of tiles along rows and, if columns are scanned, along columns."""
        rows = self.height * triton.cdiv(self.width, tile)
        columns = self.width * triton.cdiv(self.height, tile)
        return (rows, columns) if self.image and self.groups > 1 else (rows,)


@dataclass(frozen=True)
class Plan:
    """How a scan is cut: pixels per tile, channels per program (a warp), chunks per direction."""

    tile: int
    block: int
    chunks: int


def make_plan(shape: ScanShape) -> Plan:
    """Chunks as long as they can be with the GPU full: saved states and parts of sums shrink with their number."""
    warps = shape.batch * _blocks(shape.channels, WARP)
    chunks = min(triton.cdiv(_TARGET_WARPS, warps), min(shape.axis_tiles(_TILE)) * _TILE // _MIN_CHUNK_PIXELS)
    return Plan(tile=_TILE, block=WARP, chunks=max(1, chunks))


def kept_shapes(shape: ScanShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the states and sums that `scan_forward` keeps for `scan_backward`."""
    chunks = make_plan(shape).chunks
    sums = (shape.batch, shape.directions, chunks, shape.channels)
    return (*sums[:3], shape.states, shape.channels), sums


def launch_refusal(device: torch.device) -> str | None:
    """Why the kernels cannot run on `device`, with the remedy; None when they can."""
    if isinstance(forward.outputs_kernel, InterpretedFunction):
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
    """How the tensor cores sum over channels: tf32 is finer than bf16 and fp16 inputs are; fp32 needs three terms."""
    if not x.is_cuda or torch.cuda.get_device_capability(x.device) < (8, 0):
        return "ieee"
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def _blocks(channels: int, block: int) -> int:
    return triton.cdiv(channels, block)


def pack_parameters(A_logs: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor]:
    """(A log2(e) (K, N, E), dt weight (K, R, E)), fp32, from A_logs (K E, N) and dt_projs_weight (K, E, R)."""
    directions, channels, rank = dt_weight.shape
    states = A_logs.shape[1]
    A2 = A_logs.new_empty(directions, states, channels, dtype=torch.float32)
    packed = A_logs.new_empty(directions, rank, channels, dtype=torch.float32)
    with _on(A_logs):
        forward.pack_parameters_kernel[(_blocks(channels, WARP), directions)](
            A_logs.contiguous(), dt_weight.contiguous(), A2, packed, channels, states, rank,
            BN=triton.next_power_of_2(states), BR=triton.next_power_of_2(rank), BE=WARP, **_ONE_WARP,
        )  # fmt: skip
    return A2, packed


def _order_projections(shape: ScanShape, plan: Plan, projected: Tensor) -> Tensor:
    """dbl (B, K, tiles, P, T) from projected (B, L, K P)."""
    tiles = max(shape.axis_tiles(plan.tile))
    size = (shape.batch, shape.directions, tiles, shape.projections, plan.tile)
    dbl = projected.new_empty(size, dtype=torch.float32)
    forward.order_projections_kernel[(tiles, shape.directions, shape.batch)](
        projected, dbl, shape.height, shape.width, shape.projections, shape.directions, shape.groups, tiles,
        BP=triton.next_power_of_2(shape.projections), T=plan.tile, IMAGE=shape.image, EVEN=shape.even(plan.tile),
        **_ONE_WARP,
    )  # fmt: skip
    return dbl


def _pass_states(
    shape: ScanShape,
    plan: Plan,
    states: Tensor,
    sums: Tensor,
    A2: Tensor,
    launch: tuple[int, int],
    backward: bool = False,
    initial: Tensor | None = None,
) -> None:
    first, groups = launch
    grid = (_blocks(shape.channels, WARP), shape.states, shape.batch * groups * shape.senses)
    forward.pass_states_kernel[grid](
        states, sums, A2, A2 if initial is None else initial, shape.channels, shape.states, shape.directions,
        shape.groups, plan.chunks, first, groups, SENSES=shape.senses, BACKWARD=backward,
        INITIAL=initial is not None, BC=16, BE=WARP, **_ONE_WARP,
    )  # fmt: skip


def _sum_parts(parts: Tensor) -> Tensor:
    """The sum over the first dimension, in the type of `parts`."""
    if parts.shape[0] == 1:
        return parts[0]
    total = torch.empty_like(parts[0])
    forward.sum_parts_kernel[(_blocks(total.numel(), 1024),)](
        parts, total, total.numel(), total.numel(), parts=parts.shape[0], BLOCK=1024, num_warps=4
    )
    return total


def _options(shape: ScanShape, plan: Plan) -> dict:
    """The compile-time arguments that all scanning kernels share."""
    return {
        "R": shape.rank, "T": plan.tile, "BE": plan.block, "IMAGE": shape.image, "EVEN": shape.even(plan.tile),
        "FULL_DELTA": shape.delta_given, "SOFTPLUS": shape.softplus, **_ONE_WARP,
    }  # fmt: skip


def scan_forward(
    shape: ScanShape,
    x: Tensor,
    delta: Tensor | None,
    projected: Tensor,
    A2: Tensor,
    dt_weight: Tensor | None,
    bias: Tensor,
    D: Tensor,
    keep_states: bool,
    plan: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y like x; the states that enter the chunks and the chunks' sums of delta, for `scan_backward`; the last states.

    x (B, L, pixel stride) and delta like it, contiguous; projected (B, L, K P); A2 (K, N, E); dt_weight (K, R, E);
    bias, D (K, E). The last states (B, K, C, N, E) are those that leave each chunk; with keep_states false they
    overwrite the entering ones.
    """
    plan = plan or make_plan(shape)
    chunks, tiles = plan.chunks, max(shape.axis_tiles(plan.tile))
    states = A2.new_zeros(shape.batch, shape.directions, chunks, shape.states, shape.channels)
    sums = A2.new_zeros(shape.batch, shape.directions, chunks, shape.channels)
    options = _options(shape, plan)
    pixels = (shape.height, shape.width, shape.pixel_stride, shape.group_stride)
    sizes = (shape.channels, shape.states, shape.directions, shape.groups, tiles, chunks)
    grid = (_blocks(shape.channels, plan.block), chunks, shape.batch * shape.directions)
    with _on(x):
        dbl = _order_projections(shape, plan, projected)
        inputs = (x, x if delta is None else delta, dbl, A2, A2 if dt_weight is None else dt_weight, bias)
        if chunks > 1:
            forward.chunk_states_kernel[grid](
                *inputs, states, sums, *pixels, *sizes, **options
            )
            _pass_states(shape, plan, states, sums, A2, (0, shape.groups))
        carry = torch.empty_like(states) if keep_states else states
        # Every direction of an image has its own part of the sum, so that all run at once without atomics.
        parts = x.new_empty(shape.directions if shape.image else 1, *x.shape)
        forward.outputs_kernel[grid](
            *inputs, D, states, carry, parts, *pixels, x.numel() if shape.image else 0, *sizes,
            maxnreg=_OUTPUTS_REGISTERS, **options,
        )  # fmt: skip
        y = _sum_parts(parts)
    return y, states, sums, carry


def scan_backward(
    shape: ScanShape,
    dy: Tensor,
    x: Tensor,
    delta: Tensor | None,
    projected: Tensor,
    A2: Tensor,
    dt_weight: Tensor | None,
    bias: Tensor,
    D: Tensor,
    states: Tensor,
    sums: Tensor,
    leaving: Tensor | None,
    A_is_log: bool,
    plan: Plan | None = None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients (x without its way through projected, delta, projected, A (K E, N), dt weight (K, E, R), bias, D).

    leaving: gradient of the last states (B, K, N, E).  A_is_log: the gradient of A_logs instead of A. Parameters'
    gradients are fp32, the others of their tensor's type.
    """
    plan = plan or make_plan(shape)
    chunks, tiles = plan.chunks, max(shape.axis_tiles(plan.tile))
    channels, rows = shape.channels, shape.states + shape.rank + 2
    # An image's axes run one after the other: scratch memory for one of them.
    launches = [(group, 1) for group in range(shape.groups)] if shape.image else [(0, shape.groups)]
    slots = launches[0][1] * shape.senses
    blocks = _blocks(channels, plan.block)
    grid = (blocks, chunks, shape.batch * slots)
    options = _options(shape, plan) | {"SENSES": shape.senses}
    pixels = (shape.height, shape.width, shape.pixel_stride, shape.group_stride)
    sizes = (channels, shape.states, shape.directions, shape.groups, tiles, chunks)
    d_projected = torch.empty_like(projected)
    d_delta = None if delta is None else torch.empty_like(delta)
    d_A = A2.new_empty(shape.directions * channels, shape.states)
    d_weight = A2.new_empty(shape.directions, channels, shape.rank)
    d_bias, d_D = torch.empty_like(A2[:, 0]), torch.empty_like(A2[:, 0])
    with _on(x):
        dbl = _order_projections(shape, plan, projected)
        inputs = (x, dy, x if delta is None else delta, dbl, A2, A2 if dt_weight is None else dt_weight, bias)
        adjoints = A2.new_empty(shape.batch, slots, chunks, shape.states, channels)
        carry = torch.empty_like(adjoints)
        # As fine as the inputs: a tile starts from it and nothing accumulates.
        tile_type = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
        tile_states = x.new_empty(shape.batch, slots, tiles, shape.states, channels, dtype=tile_type)
        d_dbl = x.new_empty(blocks, shape.batch, slots, tiles, shape.projections, plan.tile)
        d_parameters = A2.new_empty(shape.batch * chunks, slots, rows, channels)
        dx_parts = x.new_empty(shape.senses, *x.shape)
        for launch in launches:
            backward.chunk_adjoints_kernel[grid](
                *inputs, states, carry, tile_states, adjoints, *pixels, *sizes, *launch,
                maxnreg=_ADJOINTS_REGISTERS, **options,
            )  # fmt: skip
            _pass_states(shape, plan, adjoints, sums, A2, launch, backward=True, initial=leaving)
            backward.gradients_kernel[grid](
                *inputs, D, tile_states, adjoints, dx_parts, x if d_delta is None else d_delta, d_dbl, d_parameters,
                *pixels, x.numel(), *sizes, *launch, BR=max(16, triton.next_power_of_2(shape.rank)),
                ADD=launch[0] > 0, PRECISION=_precision(x), **options,
            )  # fmt: skip
            backward.gather_projections_kernel[(tiles, slots, shape.batch)](
                d_dbl, d_projected, shape.height, shape.width, shape.projections, shape.directions, shape.groups,
                tiles, blocks, *launch, BP=triton.next_power_of_2(shape.projections), T=plan.tile, IMAGE=shape.image,
                EVEN=shape.even(plan.tile), SENSES=shape.senses, **_ONE_WARP,
            )  # fmt: skip
            backward.sum_parameters_kernel[(_blocks(channels, WARP), slots * rows)](
                d_parameters, A2, d_A, d_weight, d_bias, d_D, shape.batch * chunks, channels, shape.states, shape.rank,
                shape.groups, *launch, SENSES=shape.senses, LOGS=A_is_log, BC=32, BE=WARP, **_ONE_WARP,
            )  # fmt: skip
        dx = _sum_parts(dx_parts)
    return dx, d_delta, d_projected, d_A, d_weight, d_bias, d_D
