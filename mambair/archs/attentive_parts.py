"""The parts of an attentive layer through the operators that run one at once, see `mambair.archs.halves`."""

from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs.assm import ASSM, SelectiveScan
from mambair.archs.feed_forward import ConvFFN, GatedConvFFN, SpatialGate
from mambair.archs.halves import are_plain
from mambair.archs.layers import DepthwiseConv2d, LayerNorm, PaddedLinear, PaddedPointwise
from mambair.ops import attentive_layer


def run_feed_forward(feed_forward: Any, norm: LayerNorm, scale: Tensor, x: Tensor, other: Tensor) -> Tensor | None:
    """x + feed_forward(norm(x)) + other scale in one go; None where steps are needed."""
    if torch.compiler.is_compiling():
        return None
    gated = type(feed_forward) is GatedConvFFN
    inside = feed_forward.sg if gated else feed_forward.dwconv.depthwise_conv
    conv = inside.conv if gated else inside[0]
    if not are_plain(
        (norm, LayerNorm), (feed_forward, GatedConvFFN if gated else ConvFFN), (feed_forward.fc1, PaddedLinear),
        (inside, SpatialGate if gated else nn.Sequential), (conv, DepthwiseConv2d), (feed_forward.fc2, PaddedLinear),
    ):  # fmt: skip
        return None
    parameters: tuple[Any, ...] = (
        scale, norm.weight, norm.bias, feed_forward.fc1.weight, feed_forward.fc1.bias, conv.weight, conv.bias,
        feed_forward.fc2.weight, feed_forward.fc2.bias,
    )  # fmt: skip
    if not gated:
        return attentive_layer.feed_forward_part(x, other, parameters, norm.eps, None)
    if not are_plain((inside.norm, LayerNorm)):
        return None
    return attentive_layer.feed_forward_part(
        x, other, (*parameters, inside.norm.weight, inside.norm.bias), norm.eps, inside.norm.eps
    )


def run_attention(layer: Any, x: Tensor) -> Tensor | None:
    """x + win_mhsa(wqkv(norm1(x))) of an attentive layer in one go; None where steps are needed."""
    if torch.compiler.is_compiling():
        return None
    norm, qkv, attention = layer.norm1, layer.wqkv, layer.win_mhsa
    if attention._forward_hooks or not are_plain(
        (norm, LayerNorm), (qkv, PaddedLinear), (attention.proj, PaddedLinear)
    ):
        return None
    table = attention.relative_position_bias_table
    parameters: tuple[Any, ...] = (
        norm.weight, norm.bias, qkv.weight, table, attention.proj.weight, attention.proj.bias,
    )  # fmt: skip
    if qkv.bias is not None:
        parameters = (*parameters, qkv.bias)
    return attentive_layer.attention_part(x, parameters, table.shape[1], attention.window_size, layer.shift, norm.eps)


def run_state_space(layer: Any, x: Tensor, noise: Tensor | None) -> Tensor | None:
    """x + assm(norm3(x)) of an attentive layer in one go; None where steps are needed."""
    if torch.compiler.is_compiling():
        return None
    norm, inside, basis = layer.norm3, layer.assm, layer.embeddingA
    scan, embedding, out_norm, out = inside.selectiveScan, inside.embeddingB, inside.out_norm, inside.out_proj
    if len(inside.route) != 3 or len(inside.in_proj) != 1 or len(inside.CPE) != 1:
        return None
    (first, gelu, second), (into,), (conv,) = inside.route, inside.in_proj, inside.CPE
    if not are_plain(
        (norm, LayerNorm), (inside, ASSM), (scan, SelectiveScan), (embedding, nn.Embedding), (basis, nn.Embedding),
        (inside.route, nn.Sequential), (first, nn.Linear), (gelu, nn.GELU), (second, nn.Linear),
        (inside.in_proj, nn.Sequential), (into, PaddedPointwise), (inside.CPE, nn.Sequential), (conv, DepthwiseConv2d),
        (out_norm, LayerNorm), (out, PaddedLinear),
    ):  # fmt: skip
        return None
    parameters = (
        norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias, into.weight, into.bias,
        conv.weight, conv.bias, embedding.weight, basis.weight, scan.x_proj_weight, scan.dt_projs_weight,
        scan.dt_projs_bias, scan.A_logs, scan.Ds, out_norm.weight, out_norm.bias, out.weight, out.bias,
    )  # fmt: skip
    return attentive_layer.state_space_part(x, noise, parameters, norm.eps, out_norm.eps)
