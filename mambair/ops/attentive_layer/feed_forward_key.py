"""What a feed-forward of MambaIRv2 is applied to, and its arguments; feed_forward.py has the legend."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class FeedForwardTensors(NamedTuple):
    """The arguments, as modules name them; gate_weight and gate_bias: of the LayerNorm in a gate, if there is one."""

    x: Tensor
    other: Tensor
    scale: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    first_weight: Tensor
    first_bias: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    gate_weight: Tensor | None = None
    gate_bias: Tensor | None = None


@dataclass(frozen=True)
class FeedForward:
    """What the operator is applied to. kind: the type that products run in; gated: the light networks' kind."""

    gated: bool
    batch: int
    height: int
    width: int
    channels: int
    hidden: int
    size: int
    x: torch.dtype
    kind: torch.dtype
    parameter: torch.dtype
    eps: float
    gate_eps: float
    device: torch.device

    @property
    def out(self) -> torch.dtype:
        """The result's type."""
        return functools.reduce(torch.promote_types, (self.x, self.parameter, self.kind))

    @property
    def convolved(self) -> int:
        """Channels of the convolution."""
        return self.hidden // 2 if self.gated else self.hidden
