"""What the second half of a residual block is applied to.

Shapes: B images, H x W pixels, C channels, J hidden channels, S of the channel attention.
"""

import functools
from dataclasses import dataclass

import torch

from mambair.ops.rssb.rows import Rows


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
