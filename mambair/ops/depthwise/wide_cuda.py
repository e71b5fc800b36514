"""depthwise_conv on CUDA GPUs for weights of more than 3x3: the kernels as a PyTorch operator with gradients.

Shapes: B images, H x W pixels, C channels, k sides of the weights.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from mambair.ops.depthwise import wide_kernels as kernels
from mambair.ops.depthwise.triton_launch import channels_side_by_side
from mambair.ops.flops import BACKWARD_FACTOR, Shape

# Values of a tile: of the convolution; of the weights' gradients, whose sums take k registers per value.
_VALUES, _SUMMED = 1024, 512
# Shares that the sums are split into, for all channels together. Not those of the GPU at hand, so that the order of the
# sums is the same on all.
_SHARES = 512


def depthwise_conv_wide(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """See `depthwise_conv`. Weights stay as they are under autocast, sums are float32; deterministic."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if torch.compiler.is_compiling():
        y = _convolve(x, weight, bias, dilation)
    elif torch.is_grad_enabled():
        y = _DepthwiseConv.apply(x, weight, bias, dilation)
    else:
        y = _run(x, weight, bias, dilation)
    return F.silu(y) if silu else y


def _block(channels: int) -> int:
    """Channels per program: few that do not exist, and lines of memory as whole as can be."""
    return min((64, 32, 16), key=lambda block: (triton.cdiv(channels, block) * block, -block))


def _vector(x: Tensor) -> tuple[int, tuple[int, ...]]:
    """(channels that may be read at once, channels and strides of x in groups of so many)."""
    sizes = (x.shape[3], *x.stride()[:3])
    vector = math.gcd(8, *sizes)
    return vector, tuple(size // vector for size in sizes)


def _launch(x: Tensor, packed: Tensor, bias: Tensor | None, dilation: int, size: int) -> Tensor:
    """The convolution of x (B, H, W, C) with packed weights (k k, C), contiguous."""
    batch, height, width, channels = x.shape
    y = torch.empty((batch, height, width, channels), dtype=x.dtype, device=x.device)
    block = _block(channels)
    columns = _VALUES // block
    vector, sizes = _vector(x)
    with torch.cuda.device_of(x):
        kernels.convolve_kernel[(batch * height * triton.cdiv(width, columns), triton.cdiv(channels, block))](
            x, packed, packed if bias is None else bias, y, height, width, *sizes, dilation,
            k=size, V=vector, PX=columns, BC=block, BIAS=bias is not None, num_warps=4,
        )  # fmt: skip
    return y


def _pack(weight: Tensor, reverse: bool) -> Tensor:
    """(k k, C), fp32, from (C, 1, k, k): channels side by side; in reverse for the gradient of x."""
    rows = weight.flatten(1).t()
    return (rows.flip(0) if reverse else rows).float().contiguous()


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    bias = None if bias is None else bias.contiguous()
    return _launch(channels_side_by_side(x), _pack(weight, False), bias, dilation, weight.shape[2])


def _run_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type."""
    x, dy = channels_side_by_side(x), dy.to(x.dtype).contiguous()
    batch, height, width, channels = x.shape
    size = weight.shape[2]
    dx = _launch(dy, _pack(weight, True), None, dilation, size)
    block = _block(channels)
    columns = _SUMMED // block
    lines, across = batch * height, triton.cdiv(width, columns)
    share = triton.cdiv(lines, max(1, _SHARES // (across * triton.cdiv(channels, block))))
    shares = triton.cdiv(lines, share) * across
    rows = size * size + 1
    vector, sizes = _vector(x)
    parts = torch.empty(shares, rows, channels, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        kernels.weight_gradients_kernel[(shares, triton.cdiv(channels, block), size + (bias is not None))](
            x, dy, parts, height, width, *sizes, dilation, lines, share,
            k=size, V=vector, ROW=rows, PX=columns, BC=block, num_warps=4,
        )  # fmt: skip
    sums = parts[:, : rows - (bias is None)].sum(0)
    d_weight = sums[: size * size].t().reshape(weight.shape).to(weight.dtype)
    return dx, d_weight, weight.new_empty(0) if bias is None else sums[-1].to(bias.dtype, copy=True)


class _DepthwiseConv(torch.autograd.Function):
    """The operator, when nothing is traced."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.dilation = dilation
        return _run(x, weight, bias, dilation)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, _run_backward, dy)


def _gradients(ctx: Any, backward: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = backward(dy, *ctx.saved_tensors, ctx.dilation)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None)


@torch.library.custom_op("mambair::depthwise_conv_wide", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """`_run` for tracing."""
    return _run(x, weight, bias, dilation)


@_convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("mambair::depthwise_conv_wide_backward", mutates_args=())
def _convolve_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`_run_backward` for tracing."""
    return _run_backward(dy, x, weight, bias, dilation)


@_convolve_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> tuple[Tensor, Tensor, Tensor]:
    d_bias = weight.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_bias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.dilation = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, _convolve_backward, dy)


_convolve.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.mambair.depthwise_conv_wide)
def _forward_flops(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    batch, height, width, channels = x
    return 2 * weight[2] * weight[3] * batch * height * width * channels


@register_flop_formula(torch.ops.mambair.depthwise_conv_wide_backward)
def _backward_flops(dy: Shape, x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(x, weight)
