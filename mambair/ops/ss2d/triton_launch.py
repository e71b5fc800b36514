"""The launches of the forward kernels, prepared once a shape, for images and sequences alike.

Shapes: B batch, L = H W pixels, K directions, S of them in a launch, C chunks, E channels of a group in EB blocks, N
states, R rank of delta, P = R + 2N. triton_plan.py cuts scans up.
"""

import functools
import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from mambair.ops.launching import Layout, PreparedKernel
from mambair.ops.ss2d import triton_forward as forward
from mambair.ops.ss2d import triton_prepare as prepare
from mambair.ops.ss2d.triton_plan import ONE_WARP, WARP, Launch, ScanShape, blocks_of, kept_layout, plan_for

LOG2_E = math.log2(math.e)
# Of delta_kernel: channels per thread, its pixels, threads that share the weights, and threads' runs per program.
_RUN = 8
_DELTA_PIXELS = 4
_SHARING = 4
_BLOCK = 128
# Of delta_product_kernel: the least and the largest rank that it is for, and the pixels and channels of a program. With
# rank 12 it takes 28 instead of 39 us for a classic block; with 6 it is as fast as delta_kernel, with 4 slower (H200).
_LEAST_PRODUCT, _LARGEST_PRODUCT = 8, 16
_PRODUCT_TILE = 128, 32
# Of pass_states_kernel: runs of chunks that warps go through side by side, at most, and about as many chunks of one.
_MOST_RUNS, _RUN_CHUNKS = 16, 16
_FP32 = torch.float32


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

    def types(self) -> "ScanTypes":
        delta = None if self.delta is None else self.delta.dtype
        return ScanTypes(self.x.dtype, delta, self.projected.dtype, self.bias.dtype, self.D.dtype)

    def addresses(self) -> "ScanAddresses":
        x, delta, projected, A2, dt_weight, bias, D = (
            0 if tensor is None else tensor.data_ptr()
            for tensor in (self.x, self.delta, self.projected, self.A2, self.dt_weight, self.bias, self.D)
        )
        return ScanAddresses(x, delta, projected, A2, dt_weight, bias, D)


@dataclass(frozen=True)
class ScanTypes:
    """Types of the tensors of `ScanInputs`; A2 and dt_weight are fp32. delta is None where it is projected."""

    x: torch.dtype
    delta: torch.dtype | None
    projected: torch.dtype
    bias: torch.dtype
    D: torch.dtype

    @property
    def after_softplus(self) -> torch.dtype:
        """Of delta as the scans read it."""
        half = self.x != _FP32 and (self.delta is None or self.delta != _FP32)
        return torch.float16 if half else _FP32


class ScanAddresses:
    """Where the tensors of `ScanInputs` lie, 0 for those that are not there."""

    __slots__ = ("A2", "D", "bias", "delta", "dt_weight", "projected", "x")

    def __init__(self, x: int, delta: int, projected: int, A2: int, dt_weight: int, bias: int, D: int) -> None:
        self.x, self.delta, self.projected, self.A2 = x, delta, projected, A2
        self.dt_weight, self.bias, self.D = dt_weight, bias, D


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


def product_precision(dtype: torch.dtype, device: torch.device) -> str:
    """How products run on the tensor cores: tf32 is finer than bf16 and fp16 inputs are; fp32 needs three terms."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32x3" if dtype == _FP32 else "tf32"


class PackParameters:
    """A_logs (K E, N), dt_projs_weight (K, E, R) -> A log2(e) (K, EB, N, lanes), dt weight (K, R, E); fp32."""

    def __init__(
        self, directions: int, channels: int, states: int, rank: int, types: tuple[torch.dtype, torch.dtype],
        device: torch.device,
    ) -> None:  # fmt: skip
        blocks = blocks_of(channels, WARP)
        self.layout = Layout(
            A2=((directions, blocks, states, WARP), _FP32), dt_weight=((directions, rank, channels), _FP32)
        )
        options = {"BN": triton.next_power_of_2(states), "BR": triton.next_power_of_2(rank), "BE": WARP, **ONE_WARP}
        self.pack = PreparedKernel(
            prepare.pack_parameters_kernel, (blocks, directions), (*types, _FP32, _FP32), (channels, states, rank),
            device, options,
        )  # fmt: skip


@functools.lru_cache(maxsize=256)
def pack_parameters_plan(
    directions: int, channels: int, states: int, rank: int, A_logs: torch.dtype, dt_weight: torch.dtype,
    device: torch.device,
) -> PackParameters:  # fmt: skip
    """The launch that packs parameters of these sizes and types."""
    return PackParameters(directions, channels, states, rank, (A_logs, dt_weight), device)


def pack_parameters(A_logs: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor]:
    """(A log2(e) (K, EB, N, lanes), dt weight (K, R, E)), fp32, from A_logs (K E, N), dt_projs_weight (K, E, R)."""
    directions, channels, rank = dt_weight.shape
    states = A_logs.shape[1]
    plan = pack_parameters_plan(directions, channels, states, rank, A_logs.dtype, dt_weight.dtype, A_logs.device)
    A2 = torch.empty(directions, blocks_of(channels, WARP), states, WARP, dtype=_FP32, device=A_logs.device)
    packed = torch.empty(directions, rank, channels, dtype=_FP32, device=A_logs.device)
    A_logs, dt_weight = A_logs.contiguous(), dt_weight.contiguous()
    with torch.cuda.device_of(A_logs):
        plan.pack(A_logs.data_ptr(), dt_weight.data_ptr(), A2.data_ptr(), packed.data_ptr())
    return A2, packed


def _is_product(shape: ScanShape, types: ScanTypes, device: torch.device) -> bool:
    """Whether delta_product_kernel makes delta: from 16 bits to 16 bits, on tensor cores that take bf16 and fp16."""
    if types.delta is not None or types.after_softplus == _FP32 or not shape.softplus:
        return False
    return product_precision(types.projected, device) == "tf32" and _LEAST_PRODUCT <= shape.rank <= _LARGEST_PRODUCT


def delta_launch(launch: Launch, types: ScanTypes, device: torch.device) -> PreparedKernel:
    """The launch over projected, the weights (any address where delta is given), bias, given delta, delta."""
    shape, given = launch.shape, types.delta is not None
    pointers = (
        types.projected, types.bias if given else _FP32, types.bias, types.delta or types.x, types.after_softplus,
    )  # fmt: skip
    numbers = (launch.pixels, shape.directions, shape.groups, *launch.which)
    options = {"E": shape.channels, "R": shape.rank, "P": shape.projections, "SLOTS": launch.slots, "num_warps": 4}
    if _is_product(shape, types, device):
        pixels, channels = _PRODUCT_TILE
        programs = triton.cdiv(launch.pixels, pixels) * blocks_of(shape.channels, channels) * launch.slots
        options |= {"BR": _LARGEST_PRODUCT, "BL": pixels, "BE": channels}
        return PreparedKernel(prepare.delta_product_kernel, (programs,), pointers, numbers, device, options)
    run = math.gcd(shape.channels, _RUN)
    places = triton.cdiv(launch.pixels, _SHARING * _DELTA_PIXELS) * _SHARING * (shape.channels // run)
    options |= {"RUN": run, "SHARING": _SHARING, "PIXELS": _DELTA_PIXELS, "BLOCK": _BLOCK}
    options |= {"GIVEN": given, "SOFTPLUS": shape.softplus}
    grid = (triton.cdiv(places, _BLOCK) * launch.slots,)
    return PreparedKernel(prepare.delta_kernel, grid, pointers, numbers, device, options)


class MakeDelta:
    """delta (B L, S, E) of the launch's directions."""

    def __init__(self, launch: Launch, types: ScanTypes, device: torch.device) -> None:
        self.result = (launch.pixels, launch.slots, launch.shape.channels), types.after_softplus
        self._given = types.delta is not None
        self.kernel = delta_launch(launch, types, device)

    def __call__(self, at: ScanAddresses, delta: int) -> None:
        weight, source = (at.bias, at.delta) if self._given else (at.dt_weight, at.x)
        self.kernel(at.projected, weight, at.bias, source, delta)


def pass_states_kernel(
    launch: Launch, rows: int, device: torch.device, backward: bool = False, initial: bool = False
) -> PreparedKernel:
    """The launch over states (B, C, S, EB, rows, lanes), sums, A2, initial."""
    shape, chunks = launch.shape, launch.plan.chunks
    # A second pass costs more than a run of 32.
    runs = 1 if chunks <= 2 * _RUN_CHUNKS else min(_MOST_RUNS, triton.next_power_of_2(triton.cdiv(chunks, _RUN_CHUNKS)))
    grid = (launch.channel_blocks, shape.states, shape.batch * launch.slots)
    numbers = (
        shape.channels, launch.padded_channels, shape.directions, shape.groups, chunks, *launch.which,
    )  # fmt: skip
    options = {"N": shape.states, "ROWS": rows, "SENSES": shape.senses, "BACKWARD": backward, "INITIAL": initial}
    options |= {"RUNS": runs, "AT_ONCE": 8, "BE": WARP, "num_warps": runs, "num_stages": 1}
    return PreparedKernel(forward.pass_states_kernel, grid, (_FP32,) * 4, numbers, device, options)


def sum_parts_kernel(parts: int, size: int, dtype: torch.dtype, device: torch.device) -> PreparedKernel:
    """The launch that sums `parts` tensors of `size` elements, one behind the other."""
    options = {"parts": parts, "BLOCK": 1024, "num_warps": 4}
    return PreparedKernel(
        forward.sum_parts_kernel, (blocks_of(size, 1024),), (dtype, dtype), (size, size), device, options
    )


class ForwardScan:
    """The launches of a forward pass.

    `parts` of the result, which the caller sums or lets `sum_parts` sum, are (parts_count, B, L, pixel stride): every
    direction of an image has its own, so that all run at once without atomics.
    """

    def __init__(self, shape: ScanShape, types: ScanTypes, device: torch.device) -> None:
        launch = Launch(shape, plan_for(shape, device), 0, shape.groups)
        plan, chunks = launch.plan, launch.plan.chunks
        self.shape, self.types, self.device = shape, types, device
        self.parts_count = shape.directions if shape.image else 1
        self.size = launch.pixels * shape.pixel_stride
        self.kept = kept_layout(shape, device)
        self._delta = MakeDelta(launch, types, device)
        self.work = Layout(delta=self._delta.result)
        self.last_shape = (0,) if shape.image else (shape.batch, shape.directions, shape.states, shape.channels)
        self._chunked = chunks > 1
        pointers = (types.x, types.after_softplus, types.projected, _FP32, types.D, _FP32, _FP32, _FP32, types.x)
        numbers = (
            *launch.image_sizes(), self.size if shape.image else 0, shape.channels, launch.padded_channels,
            *launch.scan_numbers(),
        )  # fmt: skip
        self._states, self._outputs = (
            PreparedKernel(
                forward.scan_kernel, launch.grid(plan.block), pointers, numbers, device,
                {"OUTPUTS": outputs, "LAST": outputs and not shape.image}
                | launch.sequential_options(plan.block, plan.registers),
            )
            for outputs in (False, True)
        )  # fmt: skip
        self._pass = pass_states_kernel(launch, shape.states, device)
        self.sum_parts = sum_parts_kernel(self.parts_count, self.size, types.x, device)
        self.kernels = (self._delta.kernel, self._states, self._pass, self._outputs, self.sum_parts)

    def __call__(self, at: ScanAddresses, work: list[int], kept: Tensor, last: int, parts: int) -> None:
        """`work`: addresses of that layout; `kept`: memory of that layout; `last`: last states, of sequences only."""
        (delta,) = work
        states, sums = (kept.data_ptr() + offset for offset in self.kept.offsets)
        self._delta(at, delta)
        if self._chunked:
            self._states(at.x, delta, at.projected, at.A2, at.D, states, sums, last, parts)
            self._pass(states, sums, at.A2, at.A2)
        else:
            kept.zero_()
        self._outputs(at.x, delta, at.projected, at.A2, at.D, states, sums, last, parts)


@functools.lru_cache(maxsize=1024)
def forward_plan(shape: ScanShape, types: ScanTypes, device: torch.device) -> ForwardScan:
    """The launches for tensors of these sizes and types, kept: to work them out takes longer than the GPU's work."""
    return ForwardScan(shape, types, device)


def scan_forward(shape: ScanShape, inputs: ScanInputs) -> tuple[Tensor, Tensor, Tensor]:
    """y like x; what `scan_backward` needs besides its inputs; the last states.

    The last states (B, K, N, E) are those of sequences, and empty for images.
    """
    x = inputs.x
    plan = forward_plan(shape, inputs.types(), x.device)
    y, last = torch.empty_like(x), torch.empty(plan.last_shape, dtype=_FP32, device=x.device)
    kept = torch.empty(plan.kept.size, dtype=torch.uint8, device=x.device)
    with torch.cuda.device_of(x):
        memory, work = plan.work.allocate(x.device)
        parts = x.new_empty(plan.parts_count, *x.shape) if plan.parts_count > 1 else y
        plan(inputs.addresses(), work, kept, last.data_ptr(), parts.data_ptr())
        if plan.parts_count > 1:
            plan.sum_parts(parts.data_ptr(), y.data_ptr())
    del memory
    return y, kept, last
