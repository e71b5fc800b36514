"""depthwise_conv on CUDA GPUs: the Triton kernels as a PyTorch operator with gradients.

Shapes: B images, H x W pixels, C channels.
"""

from typing import Any

import torch
from torch import Tensor

from mambair.ops.depthwise.triton_launch import channels_side_by_side, convolution_gradients, convolve
from mambair.ops.direct import may_start_directly
from mambair.ops.flops import BACKWARD_FACTOR, counts_flops, depthwise_conv_flops


def depthwise_conv_triton(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """See `depthwise_conv`. Weights stay as they are under autocast, sums are float32; deterministic."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if may_start_directly(x, weight, *(() if bias is None else (bias,))):
        return _DirectConvolution.apply(x, weight, bias, dilation, silu)
    return _convolve(x, weight, bias, dilation, silu)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    return convolve(channels_side_by_side(x), weight.contiguous(), _contiguous(bias), dilation, silu)


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type."""
    dy = dy.to(x.dtype).contiguous()
    x, weight, bias = channels_side_by_side(x), weight.contiguous(), _contiguous(bias)
    return convolution_gradients(dy, x, weight, bias, dilation, silu)


class _DirectConvolution(torch.autograd.Function):
    """The operator for plain calls, see `mambair.ops.direct`."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, dilation: Any, silu: Any) -> Any:
        ctx.save_for_backward(x, weight, bias)
        ctx.dilation, ctx.silu = dilation, silu
        return _forward(x, weight, bias, dilation, silu)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, weight, bias = ctx.saved_tensors
        # With a graph of its own, a second derivative is asked for: the operator says that it has none.
        run = _convolve_backward if torch.is_grad_enabled() else _gradients
        gradients = run(dy, x, weight, bias, ctx.dilation, ctx.silu)
        needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
        return (*needed, None, None)


@torch.library.custom_op("mambair::depthwise_conv_triton", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    return _forward(x, weight, bias, dilation, silu)


@_convolve.register_fake
def _(x: Any, weight: Any, bias: Any, dilation: Any, silu: Any) -> Any:
    return x.new_empty(x.shape)


@torch.library.custom_op("mambair::depthwise_conv_triton_backward", mutates_args=())
def _convolve_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type."""
    return _gradients(dy, x, weight, bias, dilation, silu)


@_convolve_backward.register_fake
def _(dy: Any, x: Any, weight: Any, bias: Any, dilation: Any, silu: Any) -> Any:
    d_bias = weight.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_bias


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, ctx.dilation, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx: Any, dy: Any) -> Any:
    gradients = _convolve_backward(dy, *ctx.saved_tensors, ctx.dilation, ctx.silu)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


_convolve.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.depthwise_conv_triton)
def _forward_flops(x: Any, *_: Any, **__: Any) -> int:
    batch, height, width, channels = x
    return depthwise_conv_flops(batch, height * width, channels)


@counts_flops(torch.ops.mambair.depthwise_conv_triton_backward)
def _backward_flops(dy: Any, x: Any, *_: Any, **__: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(x)
