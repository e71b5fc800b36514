"""x skip + keep VSSM(LayerNorm(x)) on the CPU: PyTorch's products and the compiled kernels, forward and backward.

As one operator it keeps fewer tensors than its steps, and no gradient is read again only to be added to another.

Shapes: B images, H x W pixels, L = B H W rows, C channels, E inner channels, K directions, P columns of a projection.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.depthwise.numba_cpu import convolve, convolve_backward
from mambair.ops.rssb.numba_rows import gate, gate_backward, norm, norm_backward
from mambair.ops.rssb.parameters import ScanHalfParameters
from mambair.ops.ss2d import numba_cpu as scan


class Kept(NamedTuple):
    """What the backward pass needs, besides x and the parameters; of the scan: A (K, E, N) and its saved states."""

    normed: Tensor  # (L, C)
    stats: Tensor  # (L, 2)
    xz: Tensor  # (L, 2 E)
    before: Tensor  # (B, H, W, E), before SiLU
    inner: Tensor  # (B, H, W, E)
    projections: Tensor  # (B, H, W, K P)
    A: Tensor
    states: Tensor
    y: Tensor  # (L, E)
    out_stats: Tensor  # (L, 2)


def scan_half_cpu(
    x: Tensor, keep: Tensor | None, parameters: tuple[Tensor, ...], norm_eps: float, out_norm_eps: float
) -> Tensor:
    """See `mambair.ops.rssb.interface.scan_half`; all in float32, contiguous, with at least 16 channels."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters)):
        return _ScanHalf.apply(x, keep, norm_eps, out_norm_eps, *parameters)
    return _forward(x, keep, ScanHalfParameters(*parameters), norm_eps, out_norm_eps, False)[0]


def _forward(
    x: Tensor, keep: Tensor | None, p: ScanHalfParameters, norm_eps: float, out_norm_eps: float, training: bool
) -> tuple[Tensor, Kept]:
    batch, height, width, channels = x.shape
    normed, stats = norm(x.view(-1, channels), p.norm_weight, p.norm_bias, norm_eps)
    xz = normed @ p.in_proj.t()
    E = p.out_proj.shape[1]
    inner, before = convolve(xz.view(batch, height, width, -1), p.conv_weight, p.conv_bias, 1, True, training)
    projections = torch.nn.functional.linear(inner, p.x_proj_weight.flatten(0, 1))
    A = -torch.exp(p.A_logs).view(*p.dt_projs_bias.shape, -1)
    tensors = (inner, projections, p.dt_projs_weight, p.dt_projs_bias, A, p.Ds.view_as(p.dt_projs_bias))
    y, states = scan.run_forward(*tensors, training)
    y = y.view(-1, E)
    gated, out_stats = gate(y, xz, p.out_norm_weight, p.out_norm_bias, out_norm_eps)
    attended = (gated @ p.out_proj.t()).view_as(x)
    out = torch.addcmul(attended if keep is None else attended.mul_(keep), x, p.skip_scale)
    return out, Kept(normed, stats, xz, before, inner, projections, A, states, y, out_stats)


def _backward(
    dout: Tensor, x: Tensor, keep: Tensor | None, p: ScanHalfParameters, kept: Kept
) -> tuple[Tensor, ScanHalfParameters]:
    """Gradients of x and the parameters."""
    batch, height, width, channels = x.shape
    E = kept.y.shape[1]
    dattended = (dout if keep is None else dout * keep).view(-1, channels)
    dxz = torch.empty_like(kept.xz)
    gated, dy, dout_norm_weight, dout_norm_bias = gate_backward(
        kept.y, kept.xz, p.out_norm_weight, p.out_norm_bias, kept.out_stats, dattended @ p.out_proj, dxz
    )
    dout_proj = dattended.t() @ gated
    tensors = (kept.inner, kept.projections, p.dt_projs_weight, p.dt_projs_bias, kept.A, p.Ds.view_as(p.dt_projs_bias))
    dinner, dprojections, ddt_weight, ddt_bias, dA, dDs = scan.run_backward(
        dy.view_as(kept.inner), *tensors, kept.states
    )
    dprojections = dprojections.flatten(0, 2)
    dinner = dinner.view(-1, E).addmm_(dprojections, p.x_proj_weight.flatten(0, 1))
    dx_proj = dprojections.t() @ kept.inner.view(-1, E)
    image, dimage = (tensor.view(batch, height, width, -1) for tensor in (kept.xz, dxz))
    dconv_weight, dconv_bias = convolve_backward(
        dinner.view_as(kept.inner), image, p.conv_weight, kept.before, 1, True, dimage
    )
    dx, dnorm_weight, dnorm_bias, dskip = norm_backward(
        x.view(-1, channels), p.norm_weight, kept.stats, p.skip_scale, dxz @ p.in_proj, dout.view(-1, channels)
    )
    return dx.view_as(x), ScanHalfParameters(
        norm_weight=dnorm_weight,
        norm_bias=dnorm_bias,
        in_proj=dxz.t() @ kept.normed,
        conv_weight=dconv_weight,
        conv_bias=dconv_bias,
        x_proj_weight=dx_proj.view_as(p.x_proj_weight),
        dt_projs_weight=ddt_weight,
        dt_projs_bias=ddt_bias,
        A_logs=(dA * kept.A).view_as(p.A_logs),  # A = -exp(A_logs) is its own derivative
        Ds=dDs.view_as(p.Ds),
        out_norm_weight=dout_norm_weight,
        out_norm_bias=dout_norm_bias,
        out_proj=dout_proj,
        skip_scale=dskip,
    )


class _ScanHalf(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, keep: Tensor | None, norm_eps: float, out_norm_eps: float, *parameters: Tensor
    ) -> Tensor:
        out, kept = _forward(x, keep, ScanHalfParameters(*parameters), norm_eps, out_norm_eps, True)
        ctx.save_for_backward(x, keep, *parameters, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, keep, *rest = ctx.saved_tensors
        count = len(ScanHalfParameters._fields)
        dx, found = _backward(dout.contiguous(), x, keep, ScanHalfParameters(*rest[:count]), Kept(*rest[count:]))
        needed = ctx.needs_input_grad
        gradients = (gradient if need else None for gradient, need in zip(found, needed[4:], strict=True))
        return (dx if needed[0] else None, None, None, None, *gradients)
