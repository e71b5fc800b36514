"""Grids and launches of the depthwise kernels, prepared once a shape; triton_kernels.py explains the shapes."""

import functools
import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.copies import Copies, transposed
from mambair.ops.depthwise import triton_kernels as kernels
from mambair.ops.launching import Layout, PreparedKernel

_THREADS = 128
_LAUNCH = {"num_warps": _THREADS // 32, "num_stages": 1}
_BLOCKS = (64, 32, 16)
# Of the sums over parts: 2.8 us for 360 and for 144 channels, where 128 parts of 32 took 2.9 and 4.0 (H200).
_SUM = {"BP": 256, "BC": 16, "num_warps": 8, "num_stages": 1}
_FP32 = torch.float32


# Rows whose loads are under way together.
_UNROLL = 2
# Of convolve_kernel: the most channels of a thread, which holds nine weights of each, and the rows of a strip.
_CHANNELS, _ROWS = 4, 8
# Of gradients_kernel: pixels times channels of a thread, and the least rows of a strip, which reads two more than it
# yields. About as many programs as keep a large GPU busy; not taken from the GPU at hand, so that the order of sums,
# and with it every bit, is the same on all.
_VALUES, _LEAST_ROWS, _PROGRAMS = 4, 16, 768


def channels_side_by_side(x: Tensor) -> Tensor:
    """x itself if the kernels can read it, else a contiguous copy."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _block(channels: int) -> int:
    """Channels per program: the widest block that computes at most a tenth more padding than the best."""
    padded = {block: triton.cdiv(channels, block) * block for block in _BLOCKS}
    return next(block for block in _BLOCKS if padded[block] <= 1.1 * min(padded.values()))


@dataclass(frozen=True)
class Image:
    """An image that is read: its shape (B, H, W, C), the strides of its first three dimensions and its type."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> "Image":
        return cls(tuple(x.shape), x.stride()[:3], x.dtype)


@dataclass(frozen=True)
class Convolution:
    """The operator on one kind of image.

    weight: type of weight.  bias: type of bias, None if there is none.  dx_stride: from pixel to pixel of the gradient.
    dx_channels: how many are written, zeros behind the image's own; none of them past the last block of channels.
    """

    image: Image
    weight: torch.dtype
    bias: torch.dtype | None
    dilation: int
    silu: bool
    dx_stride: int
    dx_channels: int


@dataclass(frozen=True)
class Cut:
    """An image cut for a kernel: grid, sizes, compile-time arguments; of gradients_kernel, how many parts there are."""

    grid: tuple[int, ...]
    sizes: tuple[int, ...]
    options: dict
    parts: int = 0


def convolve_cut(image: Image, dilation: int) -> Cut:
    """For convolve_kernel."""
    batch, height, width, channels = image.shape
    x_image, x_row, x_pixel = image.strides
    vector = math.gcd(_CHANNELS, channels, *image.strides)
    pairs = triton.cdiv(width, 2 * dilation) * dilation
    # Rows of one residue modulo the dilation are neighbours of each other and of no other row.
    residues, strips = min(dilation, height), triton.cdiv(triton.cdiv(height, dilation), _ROWS)
    across, down = triton.cdiv(pairs * (channels // vector), _THREADS), residues * strips
    return Cut(
        grid=(across * down * batch,),  # in the one dimension in which CUDA takes more than 65535 programs
        sizes=(height, width, x_image // vector, x_row // vector, strips, across, down),
        options={
            "C": channels, "X_PIXEL": x_pixel, "DILATION": dilation, "V": vector, "THREADS": _THREADS, "ROWS": _ROWS,
            "UNROLL": _UNROLL, **_LAUNCH,
        },
    )  # fmt: skip


def gradients_cut(image: Image, dilation: int, dx_stride: int, dx_channels: int) -> Cut:
    """For gradients_kernel."""
    batch, height, width, channels = image.shape
    block = _block(channels)
    vector = math.gcd(8, channels, *image.strides, dx_stride, dx_channels)
    columns = _VALUES * _THREADS // block
    blocks_w, blocks_c = triton.cdiv(width, columns), triton.cdiv(channels, block)
    residues, lines = min(dilation, height), triton.cdiv(height, dilation)
    others = batch * residues * blocks_w
    strips = min(triton.cdiv(_PROGRAMS, others * blocks_c), max(1, lines // _LEAST_ROWS))
    rows = triton.cdiv(lines, strips)
    strips = triton.cdiv(lines, rows)
    groups = (size // vector for size in (channels, *image.strides))
    return Cut(
        grid=(others * strips * blocks_c,),
        sizes=(
            height, width, *groups, dilation, residues, rows, strips, blocks_w, dx_stride // vector,
            dx_channels // vector,
        ),
        options={"V": vector, "PX": columns, "BC": block, "UNROLL": _UNROLL, **_LAUNCH},
        parts=others * strips,
    )  # fmt: skip


class ConvolutionPlan:
    """The launches of the operator.

    Weights are packed first: (9, C), fp32, from (C, 1, 3, 3): channels side by side, so that a thread reads its own
    with a few wide loads.
    """

    def __init__(self, key: Convolution, device: torch.device) -> None:
        image, bias = key.image, key.bias
        channels = image.shape[3]
        self.pack = Copies([transposed(channels, 9, key.weight, _FP32)], device)
        types = (image.dtype, _FP32, bias or _FP32, image.dtype, image.dtype)
        cut = convolve_cut(image, key.dilation)
        self._convolve, self._slope = (
            PreparedKernel(
                kernels.convolve_kernel, cut.grid, types, cut.sizes, device,
                {"BIAS": bias is not None, "SILU": key.silu and not slope, "SLOPE": slope, **cut.options},
            )
            for slope in (False, True)
        )  # fmt: skip
        self._silu = key.silu
        cut = gradients_cut(image, key.dilation, key.dx_stride, key.dx_channels)
        scratch = image.shape if key.silu else (0,)
        self.work = Layout(dy=(scratch, image.dtype), parts=((cut.parts, 10, channels), _FP32))
        self._gradients = PreparedKernel(
            kernels.gradients_kernel, cut.grid, (image.dtype, _FP32, image.dtype, image.dtype, _FP32), cut.sizes,
            device, cut.options,
        )  # fmt: skip
        self._sum = PreparedKernel(
            kernels.sum_parts_kernel, (triton.cdiv(channels, _SUM["BC"]), 9 if bias is None else 10),
            (_FP32, key.weight, bias or key.weight), (cut.parts, channels), device, _SUM,
        )  # fmt: skip
        self.forward_kernels = (self.pack.kernel, self._convolve)
        self.backward_kernels = (*((self._slope,) if key.silu else ()), self._gradients, self._sum)

    def convolve(self, x: int, packed: int, bias: int, y: int) -> None:
        """y (B, H, W, C), contiguous; bias is 0 if there is none."""
        self._convolve(x, packed, bias or packed, y, y)

    def gradients(
        self, dy: int, x: int, packed: int, bias: int, dx: int, d_weight: int, d_bias: int, work: list[int]
    ) -> None:
        """dy is contiguous. `work`: addresses of that layout; d_bias is 0 if there is none."""
        scratch, parts = work
        if self._silu:
            # A kernel of its own. To save its tensor in memory, the next kernel would have to convolve the pixels on
            # both sides of its own once more: three times the arithmetic of this one, for memory that is mostly cache.
            self._slope(x, packed, bias or packed, dy, scratch)
            dy = scratch
        self._gradients(x, packed, dy, dx, parts)
        self._sum(parts, d_weight, d_bias or d_weight)


@functools.lru_cache(maxsize=1024)
def convolution_plan(key: Convolution, device: torch.device) -> ConvolutionPlan:
    """Kept, since to work it out takes the CPU longer than a small image takes the GPU."""
    return ConvolutionPlan(key, device)


def plan_of(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> ConvolutionPlan:
    """The plan for these tensors; its dx is contiguous."""
    channels = x.shape[3]
    bias_type = None if bias is None else bias.dtype
    key = Convolution(Image.of(x), weight.dtype, bias_type, dilation, silu, channels, channels)
    return convolution_plan(key, x.device)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """The convolution of x (B, H, W, C), contiguous; weight (C, 1, 3, 3) and bias are contiguous."""
    plan = plan_of(x, weight, bias, dilation, silu)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    packed = torch.empty(9, x.shape[3], dtype=_FP32, device=x.device)
    with torch.cuda.device_of(x):
        plan.pack([weight.data_ptr()], [packed.data_ptr()])
        plan.convolve(x.data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr())
    return y


def convolution_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type; dy is contiguous."""
    plan = plan_of(x, weight, bias, dilation, silu)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    d_weight = torch.empty_like(weight)
    d_bias = weight.new_empty(0) if bias is None else torch.empty_like(bias)
    packed = torch.empty(9, x.shape[3], dtype=_FP32, device=x.device)
    with torch.cuda.device_of(x):
        plan.pack([weight.data_ptr()], [packed.data_ptr()])
        memory, work = plan.work.allocate(x.device)
        plan.gradients(
            dy.data_ptr(),
            x.data_ptr(),
            packed.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            dx.data_ptr(),
            d_weight.data_ptr(),
            0 if bias is None else d_bias.data_ptr(),
            work,
        )
    del memory
    return dx, d_weight, d_bias
