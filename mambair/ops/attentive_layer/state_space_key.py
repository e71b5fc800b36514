"""What the attentive state-space module is applied to, its arguments and what it keeps; see state_space.py."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class StateSpaceTensors(NamedTuple):
    """The arguments, as modules name them; noise (B, L, T), fp32, or None."""

    x: Tensor
    noise: Tensor | None
    norm_weight: Tensor
    norm_bias: Tensor
    route_first_weight: Tensor
    route_first_bias: Tensor
    route_second_weight: Tensor
    route_second_bias: Tensor
    in_weight: Tensor
    in_bias: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    embedding: Tensor
    basis: Tensor
    x_proj_weight: Tensor
    dt_projs_weight: Tensor
    dt_projs_bias: Tensor
    A_logs: Tensor
    Ds: Tensor
    out_norm_weight: Tensor
    out_norm_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class Kept(NamedTuple):
    """What the backward pass needs besides the arguments."""

    route_first: Tensor
    route_second: Tensor
    into: Tensor
    out: Tensor
    taps: Tensor
    prompts: Tensor
    """(T, r) (r, N), the tokens' prompts (T, N)."""
    x_proj: Tensor
    route_before: Tensor
    logits: Tensor
    tokens: Tensor
    order: Tensor
    inner: Tensor
    local: Tensor
    scanned: Tensor
    states: Tensor


@dataclass(frozen=True)
class StateSpace:
    """What the operator is applied to. kind: the type that products run in; noise: whether tokens are drawn."""

    batch: int
    height: int
    width: int
    channels: int
    inner: int
    routed: int
    tokens: int
    states: int
    rank: int
    noise: bool
    x: torch.dtype
    kind: torch.dtype
    parameter: torch.dtype
    eps: float
    out_eps: float
    device: torch.device

    @property
    def out(self) -> torch.dtype:
        """The result's type."""
        return functools.reduce(torch.promote_types, (self.x, self.parameter, self.kind))
