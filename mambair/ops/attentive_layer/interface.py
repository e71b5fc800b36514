"""The parts of an attentive layer as one operator each: chooses whether they can run, and runs them."""

import torch
from torch import Tensor

from mambair.ops.direct import may_start_directly
from mambair.ops.rssb.interface import product_type

MOST_TOKENS = 1024
"""That the routing kernels take in one go."""


def feed_forward_part(
    x: Tensor, other: Tensor, parameters: tuple[Tensor, ...], eps: float, gate_eps: float | None
) -> Tensor | None:
    """x + other scale + FFN(LayerNorm(x)) for x and other (B, H, W, C); None where it cannot run as one operator.

    parameters: in the order of `FeedForwardTensors`.  gate_eps: of the LayerNorm in a gate; None without gate.
    """
    kind = product_type(x, parameters)
    if kind is None or other.dtype != x.dtype or not may_start_directly(other):
        return None
    from mambair.ops.attentive_layer.feed_forward import feed_forward_plan
    from mambair.ops.attentive_layer.feed_forward_key import FeedForward
    from mambair.ops.attentive_layer.function import PartFunction

    batch, height, width, channels = x.shape
    hidden, size = parameters[3].shape[0], parameters[5].shape[2]
    gated = gate_eps is not None
    key = FeedForward(
        gated, batch, height, width, channels, hidden, size, x.dtype, kind, parameters[0].dtype, eps, gate_eps or 0.0,
        x.device,
    )  # fmt: skip
    with torch.cuda.device_of(x):
        return PartFunction.apply(feed_forward_plan(key), x.contiguous(), other.contiguous(), *parameters)


def attention_part(
    x: Tensor, parameters: tuple[Tensor, ...], heads: int, window_size: int, shift: int, eps: float
) -> Tensor | None:
    """x + proj(window_attention(qkv(LayerNorm(x)))) for x (B, H, W, C); None where it cannot run as one operator.

    parameters: in the order of `AttentionTensors`, the bias of queries, keys and values only if there is one.
    """
    kind = product_type(x, parameters)
    if kind is None:
        return None
    from mambair.ops.attentive_layer.attention import Attention, attention_plan
    from mambair.ops.attentive_layer.function import PartFunction
    from mambair.ops.window_attention.triton_tiles import tiles_for

    batch, height, width, channels = x.shape
    if tiles_for(window_size, channels // heads, kind, x.device) is None:
        return None
    key = Attention(
        batch, height, width, channels, heads, window_size, shift, len(parameters) > 6, x.dtype, kind,
        parameters[0].dtype, eps, x.device,
    )  # fmt: skip
    with torch.cuda.device_of(x):
        return PartFunction.apply(attention_plan(key), x.contiguous(), *parameters)


def state_space_part(
    x: Tensor, noise: Tensor | None, parameters: tuple[Tensor, ...], eps: float, out_eps: float
) -> Tensor | None:
    """x + ASSM(LayerNorm(x)) for x (B, H, W, C); None where it cannot run as one operator.

    noise: (B, H W, T), fp32, that tokens are drawn with, or None.  parameters: in the order of `StateSpaceTensors`.
    """
    kind = product_type(x, parameters)
    tokens = parameters[4].shape[0]
    if kind is None or tokens > MOST_TOKENS or parameters[8].shape[2:] != (3, 3):
        return None
    if noise is not None and (noise.dtype != torch.float32 or not noise.is_contiguous()):
        return None
    from mambair.ops.attentive_layer.function import PartFunction
    from mambair.ops.attentive_layer.state_space import state_space_plan
    from mambair.ops.attentive_layer.state_space_key import StateSpace

    batch, height, width, channels = x.shape
    _, inner, rank = parameters[13].shape  # of dt_projs
    routed, states = parameters[2].shape[0], parameters[15].shape[1]  # of A_logs
    key = StateSpace(
        batch, height, width, channels, inner, routed, tokens, states, rank, noise is not None, x.dtype, kind,
        parameters[0].dtype, eps, out_eps, x.device,
    )  # fmt: skip
    with torch.cuda.device_of(x):
        return PartFunction.apply(state_space_plan(key), x.contiguous(), noise, *parameters)
