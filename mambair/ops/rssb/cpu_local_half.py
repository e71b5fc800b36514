"""x skip + LightCAB(LayerNorm(x)) on the CPU: PyTorch's products and the compiled kernels, forward and backward.

Shapes: B images, H x W pixels, L = B H W rows, C channels, J hidden channels of the bottleneck, S squeezed ones of the
channel attention.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.depthwise.numba_cpu import convolve, convolve_backward
from mambair.ops.rssb.numba_rows import norm, norm_backward
from mambair.ops.rssb.parameters import CommonParameters, LightParameters

DILATION = 2


class Kept(NamedTuple):
    """What the backward pass needs, besides x and the parameters."""

    normed: Tensor  # (L, C)
    stats: Tensor  # (L, 2)
    hidden: Tensor  # (B, H, W, J), before the first depthwise convolution
    before: Tensor  # (B, H, W, J), before GELU
    active: Tensor  # (L, J)
    wide: Tensor  # (B, H, W, C), before the second depthwise convolution
    local: Tensor  # (B, H, W, C)
    pooled: Tensor  # (B, C)
    squeezed: Tensor  # (B, S)
    attention: Tensor  # (B, C)


def local_half_cpu(x: Tensor, parameters: tuple[Tensor, ...], norm_eps: float) -> Tensor:
    """See `mambair.ops.rssb.interface.local_half`; all in float32, contiguous, at least 16 channels, also hidden."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters)):
        return _LocalHalf.apply(x, norm_eps, *parameters)
    return _forward(x, *_split(parameters), norm_eps)[0]


def _split(parameters: Any) -> tuple[CommonParameters, LightParameters]:
    count = len(CommonParameters._fields)
    return CommonParameters(*parameters[:count]), LightParameters(*parameters[count:])


def _forward(x: Tensor, c: CommonParameters, p: LightParameters, norm_eps: float) -> tuple[Tensor, Kept]:
    channels = x.shape[3]
    normed, stats = norm(x.view(-1, channels), c.norm_weight, c.norm_bias, norm_eps)
    hidden = F.linear(normed, p.first_weight.flatten(1), p.first_bias).view(*x.shape[:3], -1)
    before, _ = convolve(hidden, p.first_depthwise_weight, p.first_depthwise_bias, 1, False, False)
    active = F.gelu(before).flatten(0, 2)
    wide = F.linear(active, p.second_weight.flatten(1), p.second_bias).view_as(x)
    local, _ = convolve(wide, p.second_depthwise_weight, p.second_depthwise_bias, DILATION, False, False)
    pooled = local.mean(dim=(1, 2))
    squeezed = F.linear(pooled, c.squeeze_weight.flatten(1), c.squeeze_bias).relu_()
    attention = F.linear(squeezed, c.excite_weight.flatten(1), c.excite_bias).sigmoid_()
    out = torch.mul(x, c.skip_scale).addcmul_(local, attention[:, None, None])
    return out, Kept(normed, stats, hidden, before, active, wide, local, pooled, squeezed, attention)


def _backward(
    dout: Tensor, x: Tensor, c: CommonParameters, p: LightParameters, kept: Kept
) -> tuple[Tensor, CommonParameters, LightParameters]:
    """Gradients of x and the parameters."""
    pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
    attention = kept.attention
    dexcited = (dout * kept.local).sum(dim=(1, 2)) * attention * (1 - attention)
    dsqueezed = (dexcited @ c.excite_weight.flatten(1)) * (kept.squeezed > 0)
    dpooled = dsqueezed @ c.squeeze_weight.flatten(1) / pixels
    dlocal = torch.addcmul(dpooled[:, None, None], dout, attention[:, None, None])
    dwide = torch.empty_like(kept.wide)
    dsecond_depthwise = convolve_backward(
        dlocal, kept.wide, p.second_depthwise_weight, kept.local, DILATION, False, dwide
    )
    dwide = dwide.view(-1, channels)
    dactive = (dwide @ p.second_weight.flatten(1)).view_as(kept.before)
    dbefore = torch.ops.aten.gelu_backward(dactive, kept.before)
    dhidden = torch.empty_like(kept.hidden)
    dfirst_depthwise = convolve_backward(dbefore, kept.hidden, p.first_depthwise_weight, kept.before, 1, False, dhidden)
    dhidden = dhidden.flatten(0, 2)
    dx, dnorm_weight, dnorm_bias, dskip = norm_backward(
        x.view(-1, channels),
        c.norm_weight,
        kept.stats,
        c.skip_scale,
        dhidden @ p.first_weight.flatten(1),
        dout.view(-1, channels),
    )
    common = CommonParameters(
        norm_weight=dnorm_weight,
        norm_bias=dnorm_bias,
        squeeze_weight=(dsqueezed.t() @ kept.pooled).view_as(c.squeeze_weight),
        squeeze_bias=dsqueezed.sum(dim=0),
        excite_weight=(dexcited.t() @ kept.squeezed).view_as(c.excite_weight),
        excite_bias=dexcited.sum(dim=0),
        skip_scale=dskip,
    )
    light = LightParameters(
        first_weight=(dhidden.t() @ kept.normed).view_as(p.first_weight),
        first_bias=dhidden.sum(dim=0),
        first_depthwise_weight=dfirst_depthwise[0],
        first_depthwise_bias=dfirst_depthwise[1],
        second_weight=(dwide.t() @ kept.active).view_as(p.second_weight),
        second_bias=dwide.sum(dim=0),
        second_depthwise_weight=dsecond_depthwise[0],
        second_depthwise_bias=dsecond_depthwise[1],
    )
    return dx.view_as(x), common, light


class _LocalHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm_eps: float, *parameters: Tensor) -> Tensor:
        out, kept = _forward(x, *_split(parameters), norm_eps)
        ctx.save_for_backward(x, *parameters, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        count = len(CommonParameters._fields) + len(LightParameters._fields)
        dx, common, light = _backward(dout.contiguous(), x, *_split(rest[:count]), Kept(*rest[count:]))
        needed = ctx.needs_input_grad
        gradients = zip((*common, *light), needed[2:], strict=True)
        return (dx if needed[0] else None, None, *(gradient if need else None for gradient, need in gradients))
