"""Both halves of an RSSB through the operators that run a half at once, where every module in it is the plain one.

Modules that somebody has put hooks on, replaced (as LoRA does) or compiled on their own are called one by one instead.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from mambair.archs.layers import (
    CAB,
    ChannelAttention,
    DepthwiseConv2d,
    LightCAB,
    PaddedConv2d,
    PaddedLinear,
    PaddedPointwise,
)
from mambair.archs.vssm import VSSM
from mambair.ops import rssb


def _is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Whether calling this module does what its class says and nothing else."""
    return type(module) is kind and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or module._compiled_call_impl is not None
        or "forward" in module.__dict__
    )


def are_plain(*modules: tuple[Any, type[nn.Module]]) -> bool:
    for module, kind in modules:
        if not _is_plain(module, kind):
            return False
    return not nn_module._has_any_global_hook()


def run_scan_half(block: Any, x: Tensor, keep: Tensor | None) -> Tensor | None:
    """x skip_scale + keep self_attention(ln_1(x)) of an RSSB in one go; None where steps are needed."""
    if torch.compiler.is_compiling():
        return None
    norm, inner = block.ln_1, block.self_attention
    if not are_plain((norm, nn.LayerNorm), (inner, VSSM)):
        return None
    in_proj, conv, out_norm, out_proj = inner.in_proj, inner.conv2d, inner.out_norm, inner.out_proj
    if not are_plain(
        (in_proj, PaddedLinear), (conv, DepthwiseConv2d), (out_norm, nn.LayerNorm), (out_proj, PaddedLinear)
    ):
        return None
    parameters: tuple[Any, ...] = (
        norm.weight, norm.bias, in_proj.weight, conv.weight, conv.bias, inner.x_proj_weight, inner.dt_projs_weight,
        inner.dt_projs_bias, inner.A_logs, inner.Ds, out_norm.weight, out_norm.bias, out_proj.weight, block.skip_scale,
    )  # fmt: skip
    return rssb.scan_half(x, keep, parameters, inner.scan_directions, norm.eps, out_norm.eps)


def run_local_half(block: Any, x: Tensor) -> Tensor | None:
    """x skip_scale2 + conv_blk(ln_2(x)) of an RSSB in one go; None where steps are needed."""
    local: Any = block.conv_blk
    norm, light = block.ln_2, type(local) is LightCAB
    if torch.compiler.is_compiling() or not are_plain((norm, nn.LayerNorm), (local, LightCAB if light else CAB)):
        return None
    steps: list[Any] = list(local.cab)
    attention = steps[-1]
    kinds: tuple[type[nn.Module], ...] = (
        (PaddedPointwise, DepthwiseConv2d, nn.GELU, PaddedPointwise, DepthwiseConv2d, ChannelAttention)
        if light
        else (PaddedConv2d, nn.GELU, PaddedConv2d, ChannelAttention)
    )
    if len(steps) != len(kinds) or not are_plain((local.cab, nn.Sequential), *zip(steps, kinds, strict=True)):
        return None
    squeezing: list[Any] = list(attention.attention)
    kinds = (nn.AdaptiveAvgPool2d, nn.Conv2d, nn.ReLU, nn.Conv2d, nn.Sigmoid)
    if len(squeezing) != len(kinds) or not are_plain(
        (attention.attention, nn.Sequential), *zip(squeezing, kinds, strict=True)
    ):
        return None
    _, squeeze, _, excite, _ = squeezing
    parameters = (
        norm.weight, norm.bias, squeeze.weight, squeeze.bias, excite.weight, excite.bias, block.skip_scale2,
        *(parameter for step in steps if isinstance(step, nn.Conv2d) for parameter in (step.weight, step.bias)),
    )  # fmt: skip
    return rssb.local_half(x, light, parameters, norm.eps)
