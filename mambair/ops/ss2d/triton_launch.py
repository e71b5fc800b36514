"""Buffers, grids and launches of the Triton kernels, for images and sequences alike.

Shapes: B batch, L = H W pixels, K = G groups x senses directions, E channels of a group, N states, R rank of delta,
P = R + 2N. An image has one group per axis, all groups reading the same channels; a sequence has one group per set of
channels that share B and C, and one sense.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.ss2d import triton_backward as backward
from mambair.ops.ss2d import triton_forward as forward

WARP = 32
# Pixels of a tile: registers for more do not suffice in gradients_kernel; fewer would keep states twice as often.
_TILE = 16
# Warps wanted from one launch of outputs_kernel: about what an H100's 132 multiprocessors hold at once.
_TARGET_WARPS = 1536
# A shorter chunk would spend more on its saved states than on its pixels.
_MIN_CHUNK_TILES = 4


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
    """How a scan is cut: pixels per tile, channels per program (32 a warp), chunks per direction; registers per thread
    of gradients_kernel."""

    tile: int
    block: int
    backward_block: int
    chunks: int
    registers: int | None = 168


def make_plan(shape: ScanShape) -> Plan:
    """Chunks as long as they can be with the GPU still full: saved states and parts of sums shrink with their number."""
    warps = shape.batch * triton.cdiv(shape.channels, WARP)
    chunks = min(triton.cdiv(_TARGET_WARPS, warps), min(shape.axis_tiles(_TILE)) // _MIN_CHUNK_TILES)
    # d_dbl has one part per block of channels: wide blocks keep it small where they do not idle.
    padded = {block: triton.cdiv(shape.channels, block) * block for block in (32, 64, 128)}
    backward_block = max(block for block, width in padded.items() if width == min(padded.values()))
    return Plan(tile=_TILE, block=WARP, backward_block=backward_block, chunks=max(1, chunks))


def _on(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _precision(x: Tensor) -> str:
    """How the tensor cores sum over channels: tf32 is finer than bf16 and fp16 inputs are; fp32 needs three terms."""
    if not x.is_cuda or torch.cuda.get_device_capability(x.device) < (8, 0):
        return "ieee"
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def _warps(block: int) -> int:
    """A thread per channel: then a scan along a tile never leaves its thread."""
    return max(1, block // WARP)


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
            BN=triton.next_power_of_2(states), BR=triton.next_power_of_2(rank), BE=WARP, num_warps=1,
        )  # fmt: skip
    return A2, packed


def _order_projections(shape: ScanShape, plan: Plan, projected: Tensor) -> Tensor:
    """dbl (B, K, tiles, P, T) from projected (B, L, K P)."""
    tiles = max(shape.axis_tiles(plan.tile))
    size = (shape.batch, shape.directions, tiles, shape.projections, plan.tile)
    dbl = projected.new_empty(size, dtype=torch.float32)
    forward.order_projections_kernel[(tiles, shape.directions, shape.batch)](
        projected, dbl, shape.height, shape.width, shape.projections, shape.directions, shape.groups, tiles,
        BP=triton.next_power_of_2(shape.projections), T=plan.tile, IMAGE=shape.image, num_warps=1,
    )  # fmt: skip
    return dbl


def _pass_states(
    shape: ScanShape, plan: Plan, states: Tensor, sums: Tensor, A2: Tensor, first: int, groups: int, against: bool
) -> None:
    grid = (_blocks(shape.channels, WARP), shape.states, shape.batch * groups * shape.senses)
    forward.pass_states_kernel[grid](
        states, sums, A2, shape.channels, shape.states, shape.directions, shape.groups, plan.chunks, first,
        groups, SENSES=shape.senses, BACKWARD=against, BC=16, BE=WARP, num_warps=1,
    )  # fmt: skip


def _launches(shape: ScanShape) -> list[tuple[int, int, bool, bool]]:
    """(first group, groups, ADD, FINISH): an image's axes add to the same pixels, one launch after the other."""
    if not shape.image:
        return [(0, shape.groups, False, True)]
    return [(group, 1, group > 0, group == shape.groups - 1) for group in range(shape.groups)]


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
    size = (shape.batch, shape.directions, chunks, shape.states, shape.channels)
    states = torch.zeros(size, dtype=torch.float32, device=x.device) if chunks == 1 else A2.new_empty(size)
    sums = A2.new_empty(shape.batch, shape.directions, chunks, shape.channels)
    common = dict(R=shape.rank, T=plan.tile, BE=plan.block, IMAGE=shape.image, FULL_DELTA=shape.delta_given,
                  SOFTPLUS=shape.softplus, num_warps=_warps(plan.block))  # fmt: skip
    sizes = (shape.height, shape.width, shape.pixel_stride, shape.group_stride, shape.channels, shape.states,
             shape.directions, shape.groups, tiles, chunks)  # fmt: skip
    blocks = _blocks(shape.channels, plan.block)
    y = torch.empty_like(x)
    with _on(x):
        dbl = _order_projections(shape, plan, projected)
        inputs = (x, x if delta is None else delta, dbl, A2, A2 if dt_weight is None else dt_weight, bias)
        if chunks > 1:
            forward.chunk_states_kernel[(blocks, chunks, shape.batch * shape.directions)](
                *inputs, states, sums, *sizes, **common
            )
            _pass_states(shape, plan, states, sums, A2, 0, shape.groups, against=False)
        else:
            sums.zero_()
        carry = torch.empty_like(states) if keep_states else states
        partial = shape.image and shape.directions > 1
        total = torch.empty_like(x, dtype=torch.float32) if partial and x.dtype != torch.float32 else y
        for first, groups, add, finish in _launches(shape):
            forward.outputs_kernel[(blocks, chunks, shape.batch * groups)](
                *inputs, D, states, carry, total, y, *sizes, first, groups,
                SENSES=shape.senses, ADD=add, FINISH=finish, **common,
            )  # fmt: skip
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
    A_is_log: bool,
    plan: Plan | None = None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients (x without its way through projected, delta, projected, A (K E, N), dt weight (K, E, R), bias, D).

    A_is_log: the gradient of A_logs instead of A. Parameters' gradients are fp32, the others of their tensor's type.
    """
    plan = plan or make_plan(shape)
    chunks, tiles = plan.chunks, max(shape.axis_tiles(plan.tile))
    common = dict(R=shape.rank, T=plan.tile, IMAGE=shape.image, FULL_DELTA=shape.delta_given, SOFTPLUS=shape.softplus,
                  SENSES=shape.senses)  # fmt: skip
    sizes = (shape.height, shape.width, shape.pixel_stride, shape.group_stride, shape.channels, shape.states,
             shape.directions, shape.groups, tiles, chunks)  # fmt: skip
    channels, rows = shape.channels, shape.states + shape.rank + 2
    blocks, parts = _blocks(channels, plan.block), _blocks(channels, plan.backward_block)
    adjoints = torch.empty_like(states)
    dx, d_projected = torch.empty_like(x), torch.empty_like(projected)
    d_delta = None if delta is None else torch.empty_like(delta)
    d_parts = A2.new_empty(shape.batch * chunks, shape.directions, rows, channels)
    partial = shape.image and shape.directions > 1
    launches = _launches(shape)
    group_count = launches[0][1]
    tiled = (shape.batch, group_count, shape.senses, tiles)
    with _on(x):
        dbl = _order_projections(shape, plan, projected)
        inputs = (x, dy, x if delta is None else delta, dbl, A2, A2 if dt_weight is None else dt_weight, bias)
        tile_states = A2.new_empty(*tiled, shape.states, channels)
        d_dbl = x.new_empty(parts, *tiled, shape.projections, plan.tile)
        total = torch.empty_like(x, dtype=torch.float32) if partial and x.dtype != torch.float32 else dx
        for first, groups, add, finish in launches:
            grid = (blocks, chunks, shape.batch * groups * shape.senses)
            backward.chunk_adjoints_kernel[grid](
                *inputs, states, tile_states, adjoints, *sizes, first, groups,
                BE=plan.block, num_warps=_warps(plan.block), **common,
            )  # fmt: skip
            _pass_states(shape, plan, adjoints, sums, A2, first, groups, against=True)
            backward.gradients_kernel[(parts, chunks, shape.batch * groups)](
                *inputs, D, states, tile_states, adjoints, total, dx, dx if d_delta is None else d_delta, d_dbl, d_parts,
                *sizes, first, groups, BE=plan.backward_block, BR=max(16, triton.next_power_of_2(shape.rank)),
                ADD=add, FINISH=finish, PRECISION=_precision(x), num_warps=_warps(plan.backward_block),
                maxnreg=plan.registers, **common,
            )  # fmt: skip
            backward.gather_projections_kernel[(tiles, groups * shape.senses, shape.batch)](
                d_dbl, d_projected, shape.height, shape.width, shape.projections, shape.directions, shape.groups,
                tiles, parts, first, groups, BP=triton.next_power_of_2(shape.projections), T=plan.tile,
                IMAGE=shape.image, SENSES=shape.senses, num_warps=1,
            )  # fmt: skip
        d_A = A2.new_empty(shape.directions * channels, shape.states)
        d_weight = A2.new_empty(shape.directions, channels, shape.rank)
        d_bias, d_D = torch.empty_like(A2[:, 0]), torch.empty_like(A2[:, 0])
        backward.sum_parameters_kernel[(_blocks(channels, WARP), shape.directions * rows)](
            d_parts, A2, d_A, d_weight, d_bias, d_D, shape.batch * chunks, channels, shape.states, shape.rank,
            shape.directions, LOGS=A_is_log, BC=16, BE=WARP, num_warps=1,
        )  # fmt: skip
    return dx, d_delta, d_projected, d_A, d_weight, d_bias, d_D
