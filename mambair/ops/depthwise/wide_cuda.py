"""depthwise_conv on CUDA GPUs for weights of more than 3x3: the kernels as a PyTorch operator with gradients.

Shapes: B images, H x W pixels, C channels, k sides of the weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.ops.depthwise.triton_launch import channels_side_by_side
from mambair.ops.depthwise.wide_launch import convolution_gradients, convolve
from mambair.ops.flops import BACKWARD_FACTOR, Shape, counts_flops


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


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return convolve(channels_side_by_side(x), weight.contiguous(), _contiguous(bias), dilation)


def _run_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type."""
    x, dy = channels_side_by_side(x), dy.to(x.dtype).contiguous()
    return convolution_gradients(dy, x, weight.contiguous(), _contiguous(bias), dilation)


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


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


@counts_flops(torch.ops.mambair.depthwise_conv_wide)
def _forward_flops(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    batch, height, width, channels = x
    return 2 * weight[2] * weight[3] * batch * height * width * channels


@counts_flops(torch.ops.mambair.depthwise_conv_wide_backward)
def _backward_flops(dy: Shape, x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(x, weight)
