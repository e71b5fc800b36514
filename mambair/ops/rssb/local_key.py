"""What the second half of a residual block is applied to, and its parameters.

Shapes: B images, H x W pixels, C channels, J hidden channels, S of the channel attention.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mambair.ops.rssb.rows import Rows


class CommonParameters(NamedTuple):
    """LayerNorm, channel attention (two 1x1 convolutions) and skip connection."""

    norm_weight: Tensor
    norm_bias: Tensor
    squeeze_weight: Tensor
    squeeze_bias: Tensor
    excite_weight: Tensor
    excite_bias: Tensor
    skip_scale: Tensor


class ClassicParameters(NamedTuple):
    """Two 3x3 convolutions, C -> J -> C."""

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor


class LightParameters(NamedTuple):
    """Pointwise C -> J, depthwise, pointwise J -> C, dilated depthwise."""

    first_weight: Tensor
    first_bias: Tensor
    first_depthwise_weight: Tensor
    first_depthwise_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    second_depthwise_weight: Tensor
    second_depthwise_bias: Tensor


@dataclass(frozen=True)
class LocalHalf:
    """What the operator is applied to. kind: the type that products run in."""

    light: bool
    batch: int
    height: int
    width: int
    channels: int
    hidden: int
    squeezed: int
    x: torch.dtype
    kind: torch.dtype
    parameter: torch.dtype
    norm_eps: float
    device: torch.device

    @property
    def out(self) -> torch.dtype:
        """The result's type."""
        return functools.reduce(torch.promote_types, (self.x, self.parameter, self.kind))

    @property
    def rows(self) -> Rows:
        return Rows(self.batch, self.height * self.width, self.device)
