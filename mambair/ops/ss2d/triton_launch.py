"""Buffers and launches of the forward kernels, for images and sequences alike; triton_plan.py cuts scans up.

Shapes: B batch, L = H W pixels, K directions, S of them in a launch, C chunks, E channels of a group in EB blocks, N
states, R rank of delta, P = R + 2N.
"""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from mambair.ops.ss2d import triton_forward as forward
from mambair.ops.ss2d import triton_prepare as prepare
from mambair.ops.ss2d.triton_plan import ONE_WARP, WARP, Launch, ScanShape, blocks_of, plan_for

LOG2_E = math.log2(math.e)
# Of delta_kernel: channels per thread, threads that share the weights; and what it and bc_kernel take per program.
_RUN = 8
_SHARING = 4
_BLOCK = 128


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


def product_precision(x: Tensor) -> str:
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
    with torch.cuda.device_of(A_logs):
        prepare.pack_parameters_kernel[(blocks_of(channels, WARP), directions)](
            A_logs.contiguous(), dt_weight.contiguous(), A2, packed, channels, states, rank,
            BN=triton.next_power_of_2(states), BR=triton.next_power_of_2(rank), BE=WARP, **ONE_WARP,
        )  # fmt: skip
    return A2, packed


def prepare_scan(launch: Launch, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
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


def pass_states(
    launch: Launch, states: Tensor, sums: Tensor, A2: Tensor, backward: bool = False, initial: Tensor | None = None
) -> None:
    shape = launch.shape
    grid = (launch.channel_blocks, shape.states, shape.batch * launch.slots)
    forward.pass_states_kernel[grid](
        states, sums, A2, A2 if initial is None else initial, shape.channels, launch.padded_channels, shape.directions,
        shape.groups, launch.plan.chunks, *launch.which, N=shape.states, ROWS=states.shape[-2],
        SENSES=shape.senses, BACKWARD=backward, INITIAL=initial is not None, BC=16, BE=WARP, **ONE_WARP,
    )  # fmt: skip


def sum_parts(parts: Tensor) -> Tensor:
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
    with torch.cuda.device_of(x):
        delta, bc = prepare_scan(launch, inputs)

        def scan(**options: bool) -> None:
            block, registers = launch.plan.block, launch.plan.registers
            forward.scan_kernel[launch.grid(block)](
                x, delta, bc, A2, inputs.D, states, sums, last, parts, *launch.image_sizes(),
                x.numel() if shape.image else 0, *sizes, **options, **launch.sequential_options(block, registers),
            )  # fmt: skip

        if chunks > 1:
            scan(OUTPUTS=False, LAST=False)
            pass_states(launch, states, sums, A2)
        else:
            states.zero_()
            sums.zero_()
        scan(OUTPUTS=True, LAST=not shape.image)
        y = sum_parts(parts)
    return y, states, sums, last
