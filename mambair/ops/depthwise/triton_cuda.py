"""depthwise_conv on CUDA GPUs: the Triton kernels as a PyTorch operator with gradients.

Shapes: B images, H x W pixels, C channels.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mambair.ops.depthwise.triton_launch import (
    channels_side_by_side,
    convolution_gradients,
    convolve,
    pack_weight,
)
from mambair.ops.flops import BACKWARD_FACTOR, depthwise_conv_flops


def depthwise_conv_triton(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """See `depthwise_conv`. Weights stay as they are under autocast, sums are float32; deterministic."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _convolve(x, weight, bias, dilation, silu)


@torch.library.custom_op("mambair::depthwise_conv_triton", mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    return convolve(channels_side_by_side(x), pack_weight(weight.contiguous()), _contiguous(bias), dilation, silu)


@_convolve.register_fake
def _(x, weight, bias, dilation, silu):
    return x.new_empty(x.shape)


@torch.library.custom_op("mambair::depthwise_conv_triton_backward", mutates_args=())
def _convolve_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type."""
    x, dy = channels_side_by_side(x), dy.to(x.dtype).contiguous()
    packed, bias = pack_weight(weight.contiguous()), _contiguous(bias)
    if silu:
        # A kernel of its own. To save its tensor in memory, the next kernel would have to convolve the pixels on
        # both sides of its own once more: three times the arithmetic of this one, for memory that is mostly cache.
        dy = convolve(x, packed, bias, dilation, silu, dy)
    return convolution_gradients(dy, x, packed, bias, weight, dilation)


@_convolve_backward.register_fake
def _(dy, x, weight, bias, dilation, silu):
    d_bias = weight.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_bias


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _setup_context(ctx, inputs, output) -> None:
    x, weight, bias, ctx.dilation, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx, dy):
    gradients = _convolve_backward(dy, *ctx.saved_tensors, ctx.dilation, ctx.silu)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


_convolve.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.mambair.depthwise_conv_triton)
def _forward_flops(x, *_, **__) -> int:
    batch, height, width, channels = x
    return depthwise_conv_flops(batch, height * width, channels)


@register_flop_formula(torch.ops.mambair.depthwise_conv_triton_backward)
def _backward_flops(dy, x, *_, **__) -> int:
    return BACKWARD_FACTOR * _forward_flops(x)
