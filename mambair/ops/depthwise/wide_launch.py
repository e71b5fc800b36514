"""Grids and launches of the depthwise convolutions with more than 3x3 weights; wide_kernels.py has the legend."""

import functools
import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.copies import Copies, transposed
from mambair.ops.depthwise import wide_kernels as kernels
from mambair.ops.depthwise.triton_launch import Image
from mambair.ops.launching import Layout, PreparedKernel

# Values of a tile: of the convolution; of the weights' gradients, whose sums take k + 1 registers per value.
_VALUES, _SUMMED = 2048, 1024
# Shares that the sums are split into, for all channels together. Not those of the GPU at hand, so that the order of the
# sums is the same on all.
_SHARES = 512
_FP32 = torch.float32


def _block(channels: int) -> int:
    """Channels per program: few that do not exist, and lines of memory as whole as can be."""
    return min((64, 32, 16), key=lambda block: (triton.cdiv(channels, block) * block, -block))


@dataclass(frozen=True)
class WideConvolution:
    """What the operator is applied to; types of weight and bias, None without one."""

    image: Image
    weight: torch.dtype
    bias: torch.dtype | None
    size: int
    dilation: int


class WidePlan:
    """The launches of the operator. Weights are packed first: (k k, C), fp32, from (C, 1, k, k)."""

    def __init__(self, key: WideConvolution, device: torch.device) -> None:
        image, size = key.image, key.size
        batch, height, width, channels = image.shape
        kind, block = image.dtype, _block(channels)
        blocks = triton.cdiv(channels, block)
        self.pack = Copies([transposed(channels, size * size, key.weight, _FP32)], device)
        of_dy = (height * width * channels, width * channels, channels)

        def convolution(strides: tuple[int, ...], reverse: bool) -> PreparedKernel:
            bias = key.bias is not None and not reverse
            vector = math.gcd(8, channels, *strides)
            columns = _VALUES // block
            sizes = (height, width, channels // vector, *(stride // vector for stride in strides), key.dilation)
            options = {"k": size, "V": vector, "PX": columns, "BC": block, "BIAS": bias, "REVERSE": reverse}
            grid = (batch * height * triton.cdiv(width, columns), blocks)
            types = (kind, _FP32, key.bias or _FP32, kind)
            return PreparedKernel(kernels.convolve_kernel, grid, types, sizes, device, options | {"num_warps": 4})

        self._convolve = convolution(image.strides, False)
        self._transpose = convolution(of_dy, True)
        columns = _SUMMED // block
        lines, across = batch * height, triton.cdiv(width, columns)
        share = triton.cdiv(lines, max(1, _SHARES // (across * blocks)))
        shares = triton.cdiv(lines, share) * across
        vector = math.gcd(8, channels, *image.strides)
        strides = tuple(stride // vector for stride in image.strides)
        self._gradients = PreparedKernel(
            kernels.weight_gradients_kernel, (shares, blocks, size), (kind, kind, _FP32),
            (height, width, channels // vector, *strides, key.dilation, lines, share), device,
            {"k": size, "V": vector, "PX": columns, "BC": block, "num_warps": 4},
        )  # fmt: skip
        self._sum = PreparedKernel(
            kernels.sum_parts_kernel, (triton.cdiv(channels, 32), size * size + (key.bias is not None)),
            (_FP32, key.weight, key.bias or key.weight), (shares, channels), device,
            {"KK": size * size, "BP": 64, "BC": 32, "num_warps": 4},
        )  # fmt: skip
        self.work = Layout(parts=((shares, size * size + 1, channels), _FP32))
        self.forward_kernels = (self._convolve,)
        self.backward_kernels = (self._transpose, self._gradients, self._sum)

    def convolve(self, x: int, packed: int, bias: int, y: int) -> None:
        """y (B, H, W, C), contiguous; bias is 0 if there is none."""
        self._convolve(x, packed, bias or packed, y)

    def gradients(self, dy: int, x: int, packed: int, dx: int, d_weight: int, d_bias: int, parts: int) -> None:
        """dy and dx are contiguous; `parts`: the address of that layout; d_bias is 0 if there is none."""
        self._transpose(dy, packed, packed, dx)
        self._gradients(x, dy, parts)
        self._sum(parts, d_weight, d_bias or d_weight)


@functools.lru_cache(maxsize=512)
def wide_plan(key: WideConvolution, device: torch.device) -> WidePlan:
    """Kept, since to work it out takes the CPU longer than a small image takes the GPU."""
    return WidePlan(key, device)


def _plan_of(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> WidePlan:
    bias_type = None if bias is None else bias.dtype
    return wide_plan(WideConvolution(Image.of(x), weight.dtype, bias_type, weight.shape[2], dilation), x.device)


def _packed(plan: WidePlan, weight: Tensor) -> Tensor:
    packed = torch.empty(weight.shape[2] ** 2, weight.shape[0], dtype=_FP32, device=weight.device)
    plan.pack([weight.data_ptr()], [packed.data_ptr()])
    return packed


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """The convolution of x (B, H, W, C), contiguous; weight (C, 1, k, k) and bias are contiguous."""
    plan = _plan_of(x, weight, bias, dilation)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):
        packed = _packed(plan, weight)
        plan.convolve(x.data_ptr(), packed.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr())
    return y


def convolution_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type; dy is contiguous."""
    plan = _plan_of(x, weight, bias, dilation)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    d_weight = torch.empty_like(weight)
    d_bias = weight.new_empty(0) if bias is None else torch.empty_like(bias)
    with torch.cuda.device_of(x):
        packed = _packed(plan, weight)
        memory, (parts,) = plan.work.allocate(x.device)
        plan.gradients(
            dy.data_ptr(), x.data_ptr(), packed.data_ptr(), dx.data_ptr(), d_weight.data_ptr(),
            0 if bias is None else d_bias.data_ptr(), parts,
        )  # fmt: skip
    del memory
    return dx, d_weight, d_bias
