"""Window attention of MambaIRv2.

Shapes: B batch, C embed_dim, H x W features, multiples of the window size w.
"""

import torch
from torch import Tensor, nn

from mambair.archs.layers import PaddedLinear
from mambair.ops import window_attention


class WindowAttention(nn.Module):
    """Multi-head self-attention inside of windows: (B, H, W, 3C) queries, keys and values -> (B, H, W, C)."""

    def __init__(self, channels: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        self.proj = PaddedLinear(channels, channels, bias=True)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, qkv: Tensor, shift: int) -> Tensor:
        return self.proj(window_attention(qkv, self.relative_position_bias_table, self.window_size, shift))
