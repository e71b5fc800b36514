"""depthwise_conv on the CPU: the compiled kernels with gradients, for plain calls in float32.

The halves of residual blocks, `mambair.ops.rssb`, use them too, where SiLU and its gradient come in the same pass.

Shapes: B images, H x W pixels, C channels, k sides of the weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.cpu.simd import LANES
from mambair.ops.cpu.workers import run_ranges
from mambair.ops.depthwise.numba_kernels import BAND, forward_units, weights_units
from mambair.ops.direct import may_start_directly


def can_train(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a call with gradients is one for the kernels: float32, a vector of channels, weights of more than 3x3.

    PyTorch's gradients of 5x5 weights took 5.9 ms for 64 x 64 pixels of 96 channels, these 2.4; of 3x3 ones both 1.3.
    """
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return False
    if any(tensor.dtype != torch.float32 for tensor in tensors) or x.shape[3] < LANES or weight.shape[2] <= 3:
        return False
    return may_start_directly(*tensors) and not torch.is_autocast_enabled("cpu")


def depthwise_conv_numba(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """See `depthwise_conv`; for tensors that `can_train`."""
    return _Convolution.apply(x.contiguous(), weight, bias, dilation, silu)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    """(y, what it was before SiLU, or empty unless `silu` and `keep`), both (B, H, W, C).

    x: (B, H, W, C), or with more channels, the first C of which are meant; contiguous.
    """
    batch, height, width, _ = x.shape
    channels = weight.shape[0]
    y = x.new_empty(batch, height, width, channels)
    before = x.new_empty(y.shape if silu and keep else (0, 0, 0, channels))
    shifts = x.new_zeros(channels) if bias is None else bias.detach().contiguous()
    arrays = [tensor.detach().numpy() for tensor in (x, _taps_first(weight), shifts, before, y)]

    _run_forward(batch * -(-height // BAND), dilation, silu, arrays)
    return y, before


def convolve_backward(
    dy: Tensor, x: Tensor, weight: Tensor, before: Tensor, dilation: int, silu: bool, dx: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of weight (C, 1, k, k) and bias (C,); that of x is written to dx.

    x and dx: see `convolve`.  dy, before: (B, H, W, C).
    """
    batch, height, _, channels = dy.shape
    units, size = batch * -(-height // BAND), weight.shape[2]
    dbefore = torch.empty_like(dy) if silu else dy
    dweight, dbias = x.new_empty(units, size, size, channels), x.new_empty(units, channels)
    arrays = [tensor.detach().numpy() for tensor in (x, before, dy, dbefore, dweight, dbias)]
    nothing, no_shifts = x.new_empty(0, 0, 0, channels), x.new_zeros(channels)
    turned = [tensor.detach().numpy() for tensor in (dbefore, _taps_first(weight).flip(0, 1), no_shifts, nothing, dx)]

    run_ranges(lambda first, last: weights_units(first, last, dilation, silu, *arrays), units, weights_units)
    _run_forward(units, dilation, False, turned)
    return dweight.sum(dim=0).permute(2, 0, 1).unsqueeze(1).contiguous(), dbias.sum(dim=0)


def _run_forward(units: int, dilation: int, silu: bool, arrays: list[Any]) -> None:
    run_ranges(lambda first, last: forward_units(first, last, dilation, silu, *arrays), units, forward_units)


def _taps_first(weight: Tensor) -> Tensor:
    """(C, 1, k, k) -> (k, k, C), contiguous."""
    return weight.detach().squeeze(1).permute(1, 2, 0).contiguous()


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
        y, before = convolve(x, weight, bias, dilation, silu, keep=True)
        ctx.dilation, ctx.silu = dilation, silu
        ctx.save_for_backward(x, weight, before)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, before = ctx.saved_tensors
        dx = x.new_empty(x.shape)
        dweight, dbias = convolve_backward(dy.contiguous(), x, weight, before, ctx.dilation, ctx.silu, dx)
        gradients = (dx, dweight, dbias)
        needed = ctx.needs_input_grad[:3]
        return (*(gradient if need else None for gradient, need in zip(gradients, needed, strict=True)), None, None)
